import assert from "node:assert/strict";
import { test } from "node:test";
import { findFork, missingSegments } from "../../src/archive/rewind-plan.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";

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
  assert.deepEqual(missingSegments({ history: own, fork: at(4, 1), segmentBytes, local }), [
    segment(2, 5),
    segment(3, 7),
    segment(3, 8),
  ]);
});

test("a server without segments of its timeline wants nothing", () => {
  const own = history(2, [1, at(5, 100)]);
  assert.deepEqual(missingSegments({ history: own, fork: at(5), segmentBytes, local: [] }), []);
});
