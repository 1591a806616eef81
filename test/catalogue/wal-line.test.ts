import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { firstSegment, ownSegments } from "../../src/catalogue/wal-line.ts";

const MIB = 1024 * 1024;
const at = (segment: number, offsetBytes: number) => BigInt(segment * MIB + offsetBytes);

/** Backups named after segment 5. */
const spans = [
  {
    name: "the name is that of its start",
    startLsn: at(5, 40),
    finishLsn: at(7, 300),
    first: 5,
    own: { first: 5, last: 7 },
  },
  {
    name: "its end is the border of two segments",
    startLsn: at(5, 40),
    finishLsn: at(7, 0),
    first: 5,
    own: { first: 5, last: 6 },
  },
  {
    name: "resumed: the name is that of the first try",
    startLsn: at(9, 40),
    finishLsn: at(9, 300),
    first: 9,
    own: { first: 9, last: 9 },
  },
  {
    name: "resumed in the segment behind that of the first try",
    startLsn: at(6, 40),
    finishLsn: at(6, 300),
    first: 6,
    own: { first: 6, last: 6 },
  },
  {
    name: "its start is the border of two segments, and named after the first",
    startLsn: at(6, 0),
    finishLsn: at(6, 300),
    first: 6,
    own: { first: 6, last: 6 },
  },
  {
    name: "only its end is recorded",
    startLsn: undefined,
    finishLsn: at(7, 300),
    first: 5,
    own: { first: 5, last: 7 },
  },
  { name: "nothing is recorded", startLsn: undefined, finishLsn: undefined, first: 5 },
  { name: "no end is recorded", startLsn: at(5, 40), finishLsn: undefined, first: 5 },
  { name: "its end is 0", startLsn: at(5, 40), finishLsn: 0n, first: 5 },
  { name: "it ends where it starts", startLsn: at(5, 40), finishLsn: at(5, 40), first: 5 },
  { name: "it ends before its start", startLsn: at(5, 40), finishLsn: at(4, 300), first: 5 },
  { name: "it ends before its name", startLsn: undefined, finishLsn: at(4, 300), first: 5 },
];

describe("a backup's own WAL", () => {
  for (const { name, startLsn, finishLsn, first, own } of spans) {
    test(name, () => {
      const backup = { high: 0, low: 5, startLsn, finishLsn };
      assert.equal(firstSegment({ segmentBytes: MIB }, backup), first);
      assert.deepEqual(ownSegments({ segmentBytes: MIB }, backup), own);
    });
  }

  test("names count on from one high half to the next", () => {
    const backup = { high: 2, low: 3, startLsn: undefined };
    assert.equal(firstSegment({ segmentBytes: 16 * MIB }, backup), 2 * 256 + 3);
  });
});
