/** What the repository of a cluster gives back, held against what its clients know. */
import { mkdtemp } from "node:fs/promises";
import { join } from "node:path";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";
import type { ChaosCluster } from "./chaos-cluster.ts";
import { archivedEnd, brokenPromises, type Path } from "./chaos-line.ts";
import { ChaosNode } from "./chaos-node.ts";
import { freePort } from "./postgres-programs.ts";

const SEGMENT_BYTES = 1024 * 1024;

export interface Restored {
  /** Promises that what was opened does not keep. */
  readonly broken: readonly string[];
  /** The rows that it has. */
  readonly held: ReadonlySet<number>;
  /** It ended by itself instead of opening. */
  readonly isRefused: boolean;
  readonly log: string;
}

/** Restores a backup, has it replayed to the end of the archive or a target, and looks. */
export async function restoreAndLook(
  cluster: ChaosCluster,
  backup: string,
  settings: Readonly<Record<string, string>> = {},
): Promise<Restored> {
  const { primary, rows } = cluster;
  const archivedLsn = await archived(cluster, primary.path);
  await using node = await ChaosNode.make({
    ...cluster.parts,
    name: "restored",
    directory: await mkdtemp(join(cluster.parts.root, "restored-")),
    port: await freePort(),
    settings: { ...cluster.store.settings, WALNUT_WAL_TIMEOUT: "10s" },
  });
  await node.mustRun("backup-fetch", node.dataDirectory, backup);
  const unlike = { archive_mode: "off", synchronous_standby_names: "" };
  const outcome = await node.start({ role: "recovery", settings: { ...unlike, ...settings } });
  if (outcome === "exited") {
    return { broken: [], held: new Set(), isRefused: true, log: node.log() };
  }
  const found = await node.server.query("SELECT n FROM counted ORDER BY n");
  const held = new Set(found.map(({ n }) => Number(n)));
  const broken = brokenPromises(held, { rows, path: primary.path, archivedLsn });
  return { broken, held, isRefused: false, log: node.log() };
}

/** Up to where whole segments of a path are in the archive, from the newest backup on. */
async function archived(cluster: ChaosCluster, path: Path): Promise<bigint> {
  const names = await cluster.store.walNames();
  const whole = new Set(
    names.filter((name) => /^[0-9A-F]{24}\.(zst|lz4)$/.test(name)).map((name) => name.slice(0, 24)),
  );
  const newest = (await listBackups(cluster)).at(-1);
  return archivedEnd(path, {
    fromLsn: ((newest?.startLsn ?? 0n) / BigInt(SEGMENT_BYTES)) * BigInt(SEGMENT_BYTES),
    segmentBytes: BigInt(SEGMENT_BYTES),
    has: (timeline, segment) => whole.has(formatSegmentName(timeline, segment, SEGMENT_BYTES)),
  });
}

/** The newest backup of the primary's line that was finished before this position. */
export async function backupBefore(
  cluster: ChaosCluster,
  lsn: bigint,
): Promise<string | undefined> {
  const { path } = cluster.primary;
  return (await listBackups(cluster)).findLast(({ timeline, finishLsn }) => {
    const stretch = path.find((one) => one.timeline === timeline);
    const isOn =
      stretch !== undefined && (stretch.endLsn === undefined || finishLsn <= stretch.endLsn);
    return isOn && finishLsn <= lsn;
  })?.name;
}

interface Listed {
  readonly name: string;
  readonly timeline: number;
  readonly startLsn: bigint;
  readonly finishLsn: bigint;
}

/** Oldest first. */
async function listBackups({ primary }: ChaosCluster): Promise<Listed[]> {
  const stdout = await primary.mustRun("backup-list", "--json", "--detail");
  const list: Record<"backup_name" | "start_lsn" | "finish_lsn", string | number>[] =
    JSON.parse(stdout);
  return list.map(({ backup_name, start_lsn, finish_lsn }) => {
    const [segment = ""] = /[0-9A-F]{24}/.exec(String(backup_name)) ?? [];
    const timeline = Number.parseInt(segment.slice(0, 8), 16);
    const startLsn = position(start_lsn);
    return { name: String(backup_name), timeline, startLsn, finishLsn: position(finish_lsn) };
  });
}

function position(value: string | number): bigint {
  return typeof value === "number" ? BigInt(value) : parseLsn(value);
}
