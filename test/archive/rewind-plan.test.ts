import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hasCheckpoint } from "../../src/archive/rewind-checkpoint.ts";
import { findFork, missingSegments } from "../../src/archive/rewind-plan.ts";
import { type Lsn, lsn } from "../../src/postgres/lsn.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";
import { writeWal } from "../support/wal-writer.ts";

const { signal } = new AbortController();

const segmentBytes = 1024 * 1024;
const at = (segments: number, bytes = 0) => lsn(BigInt(segments * segmentBytes + bytes));
const segment = (timeline: number, number: number) =>
  formatSegmentName(timeline, BigInt(number), segmentBytes);

/** `[[1, a], [2, b]], 3`: left 1 at a, 2 at b. */
function history(timeline: number, ...ends: readonly (readonly [number, bigint])[]) {
  const ancestors = ends.map(([older, end]) => ({ timeline: older, endLsn: lsn(end), reason: "" }));
  return { timeline, ancestors };
}

const forks = [
  { name: "old primary stayed", one: history(1), other: history(2, [1, at(5)]), fork: at(5) },
  {
    name: "two left at different places",
    one: history(2, [1, at(5)]),
    other: history(3, [1, at(7)]),
    fork: at(5),
  },
  {
    name: "a common ancestor in between",
    one: history(2, [1, at(5)]),
    other: history(4, [1, at(5)], [2, at(9, 8)]),
    fork: at(9, 8),
  },
  {
    name: "both left 2, at different places",
    one: history(3, [1, at(5)], [2, at(8)]),
    other: history(4, [1, at(5)], [2, at(9)]),
    fork: at(8),
  },
];
for (const { name, one, other, fork } of forks) {
  test(`where two histories part: ${name}`, () => {
    assert.equal(findFork(one, other), fork);
    assert.equal(findFork(other, one), fork);
  });
}

const parallel = [
  { one: history(1), other: history(1) },
  { one: history(2, [1, at(5)]), other: history(2, [1, at(5)]) },
];
for (const { one, other } of parallel) {
  test(`timelines ${one.timeline} and ${other.timeline} do not part`, () => {
    assert.throws(() => findFork(one, other), { name: "RefusedError" });
  });
}

test("what is missing between the fork and the newest segment is wanted, under its own name", () => {
  const own = history(3, [1, at(5, 100)], [2, at(7)]);
  const local = [segment(3, 9), segment(2, 6), segment(1, 4), segment(1, 8), "x"];
  const state = { history: own, fork: at(4, 1), segmentBytes, local };
  const upTo9 = [segment(2, 5), segment(3, 7), segment(3, 8)];
  assert.deepEqual(missingSegments({ ...state, checkpointLsn: at(6) }), upTo9);
  const upTo10 = [...upTo9, segment(3, 10)];
  assert.deepEqual(missingSegments({ ...state, checkpointLsn: at(10, 40) }), upTo10);
});

test("a server that wrote nothing behind the fork wants nothing", () => {
  const own = history(2, [1, at(5, 100)]);
  const state = { history: own, segmentBytes, local: [], checkpointLsn: at(6) };
  assert.equal(missingSegments({ ...state, fork: at(6, 1) }), undefined);
  assert.deepEqual(missingSegments({ ...state, fork: at(6) }), [segment(2, 6)]);
});

test("pg_rewind begins with a checkpoint's record before the fork", async () => {
  const other = { dataBytes: 30_000 };
  const checkpoint = { resourceManager: 0, info: 0x10, dataBytes: 88 };
  const { segments, records } = writeWal({ records: [other, checkpoint, other] });
  const [written] = segments;
  const start = records[1]?.start ?? 0;
  assert.ok(written !== undefined);
  const directory = await mkdtemp(join(tmpdir(), "walnut-rewind-"));
  try {
    const wal = { name: written.name, path: join(directory, written.name) };
    await writeFile(wal.path, written.bytes);
    const found = (endLsn: Lsn) => hasCheckpoint(wal, endLsn, { signal });
    assert.equal(await found(at(1, start)), false);
    assert.equal(await found(at(1, start + 1)), true);
    assert.equal(await found(at(2)), true);
  } finally {
    await rm(directory, { recursive: true });
  }
});
