import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openForReading } from "../../src/backup/file-content.ts";
import { FileJudge, type Verdict } from "../../src/backup/file-judge.ts";
import type { WalkedFile } from "../../src/backup/walk.ts";
import { createHasher } from "../../src/io/hash.ts";
import { ChangedBlocks } from "../../src/postgres/changed-blocks.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const PAGE = 8192;
/** Blocks of a relation segment of 1 GiB. */
const SEGMENT = 131_072;
const table = { tablespaceOid: 1663, databaseOid: 5, relfilenode: 16_400, fork: "main" } as const;

interface Case {
  readonly what: string;
  readonly note: (changes: ChangedBlocks) => void;
  /** Which file of the relation: 0 for the one without a suffix. */
  readonly segment?: number;
  /** Blocks then and now; 20 unless told. */
  readonly before?: number;
  readonly now?: number;
  /** Of the file; or what the whole verdict is. */
  readonly wanted: readonly number[] | "full" | "unchanged";
}

const cases: readonly Case[] = [
  { what: "nothing", note: () => {}, wanted: "unchanged" },
  { what: "a cut at its end", note: (all) => all.cutFork(table, 20), wanted: "unchanged" },
  { what: "a cut, grown again", note: (all) => all.cutFork(table, 17), wanted: [17, 18, 19] },
  {
    what: "a cut behind a changed block",
    note: (all) => {
      all.addBlock(table, 3);
      all.addBlock(table, 18);
      all.cutFork(table, 17);
    },
    wanted: [3, 17, 18, 19],
  },
  { what: "a cut that stayed", note: (all) => all.cutFork(table, 17), now: 17, wanted: [] },
  { what: "a cut to nothing", note: (all) => all.cutFork(table, 0), wanted: "full" },
  {
    what: "two cuts: the lower one counts",
    note: (all) => {
      all.cutFork(table, 15);
      all.cutFork(table, 18);
    },
    wanted: [15, 16, 17, 18, 19],
  },
  { what: "growth without a cut", note: () => {}, now: 22, wanted: [20, 21] },
  {
    what: "growth behind a cut",
    note: (all) => all.cutFork(table, 19),
    now: 22,
    wanted: [19, 20, 21],
  },
  {
    what: "a segment behind the cut",
    note: (all) => all.cutFork(table, 17),
    segment: 1,
    wanted: "full",
  },
  {
    what: "a segment that begins at the cut",
    note: (all) => all.cutFork(table, SEGMENT),
    segment: 1,
    wanted: "full",
  },
  {
    what: "a segment that the cut is in",
    note: (all) => {
      all.addBlock(table, 5);
      all.addBlock(table, SEGMENT + 2);
      all.cutFork(table, SEGMENT + 18);
    },
    segment: 1,
    wanted: [2, 18, 19],
  },
  {
    what: "a segment before the cut",
    note: (all) => {
      all.addBlock(table, 5);
      all.cutFork(table, SEGMENT + 1);
    },
    wanted: [5],
  },
  {
    what: "a segment after the one that the cut is in",
    note: (all) => all.cutFork(table, SEGMENT + 18),
    segment: 2,
    wanted: "full",
  },
  {
    what: "the cut of another fork",
    note: (all) => all.cutFork({ ...table, fork: "vm" }, 0),
    wanted: "unchanged",
  },
  {
    what: "the cut of another relation",
    note: (all) => all.cutFork({ ...table, relfilenode: 16_401 }, 0),
    wanted: "unchanged",
  },
];

for (const { what, note, segment = 0, before = 20, now = 20, wanted } of cases) {
  test(`what an increment holds of a file after ${what}`, async () => {
    const changes = new ChangedBlocks();
    note(changes);
    const verdict = await judge({ changes, segment, before, now });
    if (wanted === "full" || wanted === "unchanged") assert.equal(verdict.kind, wanted);
    else assert.deepEqual(verdict, { kind: "pages", fileBytes: now * PAGE, blockNumbers: wanted });
  });
}

/** By the change map alone: not a byte of the file is read. */
const onRead = async (): Promise<void> => assert.fail("the file was read");

async function judge(file: {
  readonly changes: ChangedBlocks;
  readonly segment: number;
  readonly before: number;
  readonly now: number;
}): Promise<Verdict> {
  using scratch = scratchDirectory();
  const path = join(scratch.path, "file");
  writeFileSync(path, "");
  const name = `/base/5/16400${file.segment === 0 ? "" : `.${file.segment}`}`;
  const known = { sizeBytes: file.before * PAGE, hash: "of then" };
  const judged = new FileJudge({
    files: { find: (wanted) => (wanted === name ? known : undefined) },
    startLsn: lsn(1n),
    sameDatabases: new Set([5]),
    changes: file.changes,
  });
  const entry: WalkedFile = {
    kind: "file",
    name,
    path,
    sizeBytes: file.now * PAGE,
    mode: 0o600,
    mtimeNs: 0n,
    uid: 0,
    gid: 0,
  };
  using opened = openForReading(path);
  assert.ok(opened !== undefined);
  const hasher = await createHasher("xxh64");
  return await judged.judge(entry, opened, { hasher, buffer: Buffer.alloc(PAGE), onRead });
}
