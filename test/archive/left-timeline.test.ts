/**
 * Segments in which a timeline was left: PostgreSQL hands them over as if they were complete, cut
 * off by a standby with archive_mode = always, and with more by an old primary that was rewound.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { formatLsn, lsn } from "../../src/postgres/lsn.ts";
import { parseSegmentName, segmentStart } from "../../src/postgres/wal-file.ts";
import { walkSegment } from "../../src/postgres/wal-record.ts";
import { changeControl, IN_ARCHIVE_RECOVERY, IN_PRODUCTION } from "../support/control-file.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { flipBit, openWorkbench, type Workbench } from "./workbench.ts";

const wal = await recordWal();
const name = wal.segments.at(-1) ?? "";
const longer = walFile(wal, name);
const { endOfRecords } = walkSegment(longer, { name });
const middle = Buffer.from(longer).fill(0, endOfRecords / 2);
const forkAt = walkSegment(middle, { name }).endOfRecords;
/** The same up to the fork. */
const shorter = Buffer.from(middle).fill(0, forkAt);

let bench: Workbench;
beforeEach(async () => {
  bench = await openWorkbench();
});
afterEach(() => bench[Symbol.asyncDispose]());

/** Of timeline 2, which left timeline 1 so many bytes behind the beginning of the segment. */
function history(offset: number): Buffer {
  const { segmentNumber } = parseSegmentName(name, longer.length);
  const at = lsn(segmentStart(segmentNumber, longer.length) + BigInt(offset));
  return Buffer.from(`1\t${formatLsn(at)}\tno recovery target specified\n`);
}

interface Case {
  readonly what: string;
  readonly stored: Buffer;
  readonly local: Buffer;
  readonly state: number;
  /** Where the history in pg_wal, or in the archive, says that the timeline was left. */
  readonly localFork?: number;
  readonly storedFork?: number;
  readonly outcome: "already archived" | "kept aside" | "ConflictError";
}

const cases: readonly Case[] = [
  {
    what: "a standby has less than is stored, and the archive knows why",
    stored: longer,
    local: shorter,
    state: IN_ARCHIVE_RECOVERY,
    storedFork: forkAt,
    outcome: "already archived",
  },
  {
    what: "a standby has less than is stored, because it has not got more yet",
    stored: longer,
    local: shorter,
    state: IN_ARCHIVE_RECOVERY,
    outcome: "already archived",
  },
  {
    what: "a standby has a damaged copy of what is stored",
    stored: longer,
    local: flipBit(longer, forkAt + 32),
    state: IN_ARCHIVE_RECOVERY,
    outcome: "ConflictError",
  },
  {
    what: "a server that was rewound has less than is stored",
    stored: longer,
    local: shorter,
    state: IN_PRODUCTION,
    localFork: forkAt,
    outcome: "already archived",
  },
  {
    what: "a server that was rewound has more than is stored",
    stored: shorter,
    local: longer,
    state: IN_PRODUCTION,
    localFork: forkAt,
    outcome: "kept aside",
  },
  {
    what: "what is stored differs before the fork",
    stored: flipBit(shorter, forkAt - 64),
    local: longer,
    state: IN_PRODUCTION,
    localFork: forkAt,
    outcome: "ConflictError",
  },
  {
    what: "the timeline was left behind the difference",
    stored: shorter,
    local: longer,
    state: IN_PRODUCTION,
    localFork: endOfRecords,
    outcome: "ConflictError",
  },
  {
    what: "a standby that knows of no fork has more than is stored",
    stored: shorter,
    local: longer,
    state: IN_ARCHIVE_RECOVERY,
    storedFork: forkAt,
    outcome: "ConflictError",
  },
  {
    what: "the timeline's own primary has less than is stored",
    stored: longer,
    local: shorter,
    state: IN_PRODUCTION,
    storedFork: forkAt,
    outcome: "ConflictError",
  },
];
/** A server of timeline 2, which left timeline 1 so many bytes behind the segment's beginning. */
async function pushOfFollower(content: Buffer, localFork: number) {
  await bench.file("b/global/pg_control", wal.control);
  await bench.file("b/pg_wal/00000002.history", history(localFork));
  return bench.push(await bench.file(join("b", "pg_wal", name), content));
}

const [older = ""] = wal.segments;
const recycled = walFile(wal, older);
for (const [what, content] of [
  ["an older segment that was renamed", recycled],
  ["zeros", Buffer.alloc(longer.length)],
] as const) {
  test(`${what} in the place of a segment that was never filled is nothing to archive`, async () => {
    assert.equal(await pushOfFollower(content, forkAt), "nothing to archive");
    assert.deepEqual(bench.memory.keys, []);
  });
}

const refused = [
  { what: "a segment that the timeline has gone past", content: recycled, fork: 2 * longer.length },
  { what: "a beginning that is no WAL", content: Buffer.alloc(longer.length, 7), fork: forkAt },
  { what: "a cut-off file", content: recycled.subarray(0, 100_000), fork: forkAt },
  { what: "another cluster's file", content: flipBit(recycled, 24), fork: forkAt },
];
for (const { what, content, fork } of refused) {
  test(`${what} is refused, though the timeline was left`, async () => {
    await assert.rejects(pushOfFollower(Buffer.from(content), fork), { name: "FormatError" });
  });
}

for (const { what, stored, local, state, localFork, storedFork, outcome } of cases) {
  test(`${what}: ${outcome}`, async () => {
    await bench.file("b/global/pg_control", changeControl(wal.control, { state }));
    const path = await bench.file(join("b", "pg_wal", name), local);
    if (localFork !== undefined) await bench.file("b/pg_wal/00000002.history", history(localFork));
    if (storedFork !== undefined) await bench.put("wal_005/00000002.history", history(storedFork));
    const object = await bench.compress("zstd", stored);
    await bench.put(`wal_005/${name}.zst`, object);

    const push = bench.push(path);
    if (outcome === "ConflictError") await assert.rejects(push, { name: outcome });
    else assert.equal(await push, "already archived");
    assert.deepEqual(bench.memory.bytesOf(`wal_005/${name}.zst`), object);
    const isKept = bench.memory.keys.some((key) => key.startsWith("walnut_005/quarantine/"));
    assert.equal(isKept, outcome !== "already archived");
  });
}
