import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TablespaceSpec } from "../../src/layout/tablespace-spec.ts";
import { incrementBytes } from "./increment-bytes.ts";
import { MemoryStorage } from "./memory-storage.ts";
import { restoreInto } from "./restoring.ts";
import {
  putSyntheticBackup,
  specialEntries,
  SYNTHETIC_NAME,
  type SyntheticEntry,
} from "./synthetic-backup.ts";

/** A way to restore below a directory: into `data`, with a tablespace in `space`. */
export interface RestoreScenario {
  readonly name: string;
  /** What is there before. */
  readonly prepare: (directory: string) => Promise<void>;
  readonly restore: (directory: string) => Promise<unknown>;
}

const INCREMENT = "base_000000010000000000000004_D_000000010000000000000002";

function cluster(location: string): readonly SyntheticEntry[] {
  return [
    { kind: "directory", path: "" },
    { kind: "file", path: "PG_VERSION", content: Buffer.from("15\n") },
    { kind: "directory", path: "base" },
    { kind: "file", path: "base/1", content: Buffer.alloc(16_384, 1) },
    { kind: "directory", path: "global" },
    { kind: "file", path: "global/1262", content: Buffer.alloc(8192, 3), mode: 0o640 },
    { kind: "directory", path: "pg_tblspc" },
    { kind: "directory", path: "pg_tblspc/16385/PG_15" },
    { kind: "file", path: "pg_tblspc/16385/PG_15/1", content: Buffer.alloc(8192, 4) },
    ...specialEntries(`16385 ${location}\n`),
  ];
}

const nothing = async (): Promise<void> => {};
const data = (directory: string): string => join(directory, "data");

/** Restores to be killed; their backups name locations below `root`. */
export async function makeScenarios(root: string): Promise<readonly RestoreScenario[]> {
  const location = join(root, "here", "space");
  const spec = {
    basePrefix: "/x",
    tablespaces: [{ name: "16385", location, link: "pg_tblspc/16385" }],
  };
  const entries = cluster(location);
  const [ours, foreign, chain] = [new MemoryStorage(), new MemoryStorage(), new MemoryStorage()];
  await putSyntheticBackup(ours, { entries, sentinel: { spec } });
  await putSyntheticBackup(foreign, { entries, sentinel: { spec }, style: "walg" });
  await putSyntheticBackup(chain, { entries, sentinel: { spec }, style: "walg" });
  await putIncrement(chain, entries, spec);
  return [
    {
      name: "into no directory",
      prepare: nothing,
      restore: (directory) => restoreInto(ours, data(directory), { downloadConcurrency: 1 }),
    },
    {
      name: "of a backup of WAL-G's",
      prepare: nothing,
      restore: (directory) => restoreInto(foreign, data(directory), { downloadConcurrency: 1 }),
    },
    {
      name: "a chain into empty directories",
      prepare: async (directory) => {
        mkdirSync(data(directory));
        mkdirSync(join(directory, "space"));
      },
      restore: (directory) => restoreInto(chain, data(directory), { backup: INCREMENT }),
    },
    {
      name: "over a data directory",
      prepare: async (directory) => {
        await restoreInto(foreign, data(directory), { downloadConcurrency: 1 });
      },
      restore: (directory) =>
        restoreInto(ours, data(directory), {
          delta: { isOtherClusterAllowed: false, isWalDiscarded: false },
        }),
    },
  ];
}

async function putIncrement(
  storage: MemoryStorage,
  entries: readonly SyntheticEntry[],
  spec: TablespaceSpec,
): Promise<void> {
  const increment = incrementBytes(16_384, [[1, Buffer.alloc(8192, 9)]]);
  await putSyntheticBackup(storage, {
    name: INCREMENT,
    entries: entries.map((entry) =>
      entry.path === "base/1" && entry.kind === "file" ? { ...entry, content: increment } : entry,
    ),
    style: "walg",
    states: new Map([
      ["base/1", "incremented"],
      ["global/1262", "skipped"],
    ]),
    sentinel: {
      spec,
      base: { name: SYNTHETIC_NAME, fullName: SYNTHETIC_NAME, startLsn: 0x2000028n, stepCount: 1 },
    },
  });
}
