import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import {
  formatHistoryName,
  formatSegmentName,
  isSegmentSize,
  nextSegmentName,
  parseSegmentName,
  parseWalFileName,
  segmentNumberOf,
  segmentOfEnd,
  segmentStart,
} from "../../src/postgres/wal-file.ts";

const MIB = 1024 * 1024;

test("each kind of WAL file is recognised by its name", () => {
  assert.deepEqual(parseWalFileName("0000000A0000011300000040"), {
    kind: "segment",
    name: "0000000A0000011300000040",
    timeline: 10,
    high: 0x113,
    low: 0x40,
  });
  assert.deepEqual(parseWalFileName("0000000A0000011300000040.partial"), {
    kind: "partial",
    name: "0000000A0000011300000040.partial",
    segment: "0000000A0000011300000040",
    timeline: 10,
    high: 0x113,
    low: 0x40,
  });
  assert.deepEqual(parseWalFileName("FFFFFFFF.history"), {
    kind: "history",
    name: "FFFFFFFF.history",
    timeline: 0xffff_ffff,
  });
  assert.deepEqual(parseWalFileName("000000010000000000000002.00000028.backup"), {
    kind: "backup-label",
    name: "000000010000000000000002.00000028.backup",
    segment: "000000010000000000000002",
    timeline: 1,
    startOffset: 0x28,
  });
});

const noWalNames = [
  "",
  "00000001000000000000001",
  "0000000100000000000000011",
  "00000001000000000000000a",
  "00000001000000000000000G",
  " 000000010000000000000001",
  "000000010000000000000001\n",
  "000000010000000000000001.gz",
  "000000010000000000000001.PARTIAL",
  "000000010000000000000001.partial.gz",
  "000000010000000000000001.28.backup",
  "000000010000000000000001.00000028",
  "000000010000000000000001.00000028.backup.zst",
  "00000002.history.gz",
  "00000002.history.partial",
  "0000002.history",
  "dir/000000010000000000000001",
  "RECOVERYXLOG",
];

for (const name of noWalNames) {
  test(`${JSON.stringify(name)} is no WAL file`, () => {
    assert.equal(parseWalFileName(name), undefined);
  });
}

test("the last segment of 64 MiB below a multiple of 4 GiB is followed by 00000000 (E08)", () => {
  assert.equal(nextSegmentName("00000001000001130000003F", 64 * MIB), "000000010000011400000000");
  assert.equal(nextSegmentName("0000000100000113000000FF", 16 * MIB), "000000010000011400000000");
  assert.equal(nextSegmentName("000000010000011300000FFF", MIB), "000000010000011400000000");
  assert.equal(nextSegmentName("000000010000011300000003", 1024 * MIB), "000000010000011400000000");
  assert.equal(nextSegmentName("00000001000001130000003F", 16 * MIB), "000000010000011300000040");
});

const badSegments = [
  {
    name: "000000010000000000000040",
    bytes: 64 * MIB,
    message:
      "no WAL segment of 67108864 bytes is named 000000010000000000000040: " +
      "its last 8 digits can be at most 0000003F",
  },
  {
    name: "000000010000000000000004",
    bytes: 1024 * MIB,
    message:
      "no WAL segment of 1073741824 bytes is named 000000010000000000000004: " +
      "its last 8 digits can be at most 00000003",
  },
  {
    name: "000000000000000000000001",
    bytes: MIB,
    message: 'not the name of a WAL segment: "000000000000000000000001"',
  },
  {
    name: "00000002.history",
    bytes: MIB,
    message: 'not the name of a WAL segment: "00000002.history"',
  },
  { name: "nonsense", bytes: MIB, message: 'not the name of a WAL segment: "nonsense"' },
];

for (const { name, bytes, message } of badSegments) {
  test(`${name} can't be a segment of ${bytes} bytes`, () => {
    assert.throws(() => parseSegmentName(name, bytes), { name: "FormatError", message });
    assert.throws(() => nextSegmentName(name, bytes), { name: "FormatError", message });
  });
}

test("there is no segment behind the last", () => {
  assert.throws(() => nextSegmentName("00000001FFFFFFFF000000FF", 16 * MIB), {
    name: "RangeError",
    message: "no WAL segment of 16777216 bytes has number 1099511627776",
  });
});

test("a segment holds its first byte and not the first of the next", () => {
  const border = lsn(0x1_0000_0000n);
  assert.equal(segmentNumberOf(border, 16 * MIB), 256n);
  assert.equal(segmentOfEnd(border, 16 * MIB), 255n);
  assert.equal(segmentNumberOf(lsn(border - 1n), 16 * MIB), 255n);
  assert.equal(segmentOfEnd(lsn(border + 1n), 16 * MIB), 256n);
  assert.equal(segmentStart(256n, 16 * MIB), border);
  assert.throws(() => segmentOfEnd(lsn(0n), 16 * MIB), { name: "RangeError" });
});

test("a segment size is a power of two from 1 MiB to 1 GiB", () => {
  const sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].map((size) => size * MIB);
  assert.ok(sizes.every(isSegmentSize));
  for (const size of [0, -MIB, MIB / 2, MIB + 1, 3 * MIB, 2048 * MIB, Number.NaN]) {
    assert.ok(!isSegmentSize(size), String(size));
    assert.throws(() => formatSegmentName(1, 1n, size), { name: "RangeError" });
  }
});

test("timeline 10 has 0000000A.history", () => {
  assert.equal(formatHistoryName(10), "0000000A.history");
});

const segmentSizes = fc.integer({ min: 0, max: 10 }).map((power) => MIB * 2 ** power);
const timelines = fc.integer({ min: 1, max: 0xffff_ffff });
const positions = fc.bigInt(0n, (1n << 64n) - 1n).map(lsn);

test("names, numbers and positions of segments agree for every size", () => {
  fc.assert(
    fc.property(segmentSizes, timelines, positions, (segmentBytes, timeline, position) => {
      const segmentNumber = segmentNumberOf(position, segmentBytes);
      const name = formatSegmentName(timeline, segmentNumber, segmentBytes);
      assert.deepEqual(parseSegmentName(name, segmentBytes), { timeline, segmentNumber });
      const start = segmentStart(segmentNumber, segmentBytes);
      assert.ok(start <= position && position - start < BigInt(segmentBytes));
      assert.equal(segmentOfEnd(lsn(start + 1n), segmentBytes), segmentNumber);
    }),
  );
});

test("names sort as their positions do", () => {
  fc.assert(
    fc.property(segmentSizes, positions, positions, (segmentBytes, one, other) => {
      const [first, second] = [one, other].map((position) =>
        formatSegmentName(1, segmentNumberOf(position, segmentBytes), segmentBytes),
      );
      if (first === undefined || second === undefined) throw new Error("two names");
      if (first < second) assert.ok(one < other);
      if (first > second) assert.ok(one > other);
    }),
  );
});
