import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { FormatError } from "../../src/errors.ts";
import { walkSegment, type WalWalk } from "../../src/postgres/wal-record.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";
import { SWITCH, writeWal } from "../support/wal-writer.ts";

const PAGE_BYTES = 8192;
/** Every bit of 24 KiB takes half a minute for all releases. */
const STRIDE = process.env["WALNUT_LONG"] === undefined ? 13 : 1;

/** Offsets that belong to a record which lies completely in `bytes`, found without the walker. */
function recordOffsets(bytes: Uint8Array): Set<number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const offsets = new Set<number>();
  let position = 40;
  while (position < bytes.length) {
    const record: number[] = [];
    const lengthBytes = view.getUint32(position, true);
    if (lengthBytes === 0) break;
    while (record.length < lengthBytes && position < bytes.length) {
      if (position % PAGE_BYTES === 0) position += 24;
      record.push(position);
      position += 1;
    }
    if (record.length === lengthBytes) for (const offset of record) offsets.add(offset);
    position = Math.ceil(position / 8) * 8;
    if (position % PAGE_BYTES === 0) position += 24;
  }
  return offsets;
}

for (const major of MAJORS) {
  test(`each flipped bit in a record of PostgreSQL ${major} ends the walk before it`, () => {
    const { segments } = postgresFacts(major);
    const options = { name: segments.first };
    const bytes = postgresBytes(major, segments.first).subarray(0, 3 * PAGE_BYTES);
    const good = walkSegment(bytes, options);
    const offsets = recordOffsets(bytes);
    assert.ok(offsets.size > 20_000 && good.recordCount > 50);
    for (const offset of [...offsets].filter((_, index) => index % STRIDE === 0)) {
      const before = bytes[offset] ?? 0;
      bytes[offset] = before ^ (1 << ((offset * 5) % 8));
      const { end, endOfRecords, recordCount } = walkSegment(bytes, options);
      bytes[offset] = before;
      assert.ok(
        end === "invalid" && endOfRecords <= offset && recordCount < good.recordCount,
        `the flip at ${offset} gave ${end} at ${endOfRecords}`,
      );
    }
    assert.deepEqual(walkSegment(bytes, options), good);
  });
}

const lost = writeWal({
  records: [
    ...Array.from({ length: 50 }, (_, i) => ({ dataBytes: i * 40 })),
    { dataBytes: 20_000 },
    { dataBytes: 100 },
    SWITCH,
  ],
});
const [segment] = lost.segments;
if (segment === undefined) throw new Error("no segment");
const { name } = segment;

/** The walk over the segment with `values` at `offset`. */
function walkChanged(offset: number, values: readonly number[]): WalWalk {
  const bytes = Uint8Array.from(segment?.bytes ?? []);
  bytes.set(values, offset);
  return walkSegment(bytes, { name });
}

/** The 20,000 bytes begin on one page and end on a later one. */
const long = lost.records[50] ?? { start: 0, end: 0, next: 0 };
const longPage = (Math.trunc(long.start / PAGE_BYTES) + 1) * PAGE_BYTES;
const restBytes = 24 + 20_000 - (longPage - long.start);

const damages = [
  {
    what: "an empty page",
    offset: longPage,
    values: [...new Uint8Array(PAGE_BYTES)],
    reason: "empty page",
  },
  { what: "another release", offset: longPage, values: [0x13], reason: "page with magic 0xd113" },
  { what: "an unknown flag", offset: longPage + 2, values: [0x11], reason: "page with flags 0x11" },
  {
    what: "a long header inside",
    offset: longPage + 2,
    values: [3],
    reason: "page with flags 0x3",
  },
  { what: "another timeline", offset: longPage + 4, values: [2], reason: "page of timeline 2" },
  { what: "timeline 0", offset: longPage + 4, values: [0], reason: "page of timeline 0" },
  {
    what: "another address",
    offset: longPage + 8,
    values: [1],
    reason: "page with another address",
  },
  {
    what: "an address 4 GiB later",
    offset: longPage + 12,
    values: [1],
    reason: "page with another address",
  },
  {
    what: "another rest",
    offset: longPage + 16,
    values: [1, 0],
    reason: `page that continues a record by 1 bytes instead of ${restBytes}`,
  },
  {
    what: "no continuation",
    offset: longPage + 2,
    values: [0],
    reason: `page that continues a record by ${restBytes} bytes instead of ${restBytes}`,
  },
].map((row) => ({ ...row, at: row.offset - (row.offset % PAGE_BYTES) }));

for (const { what, offset, values, reason, at } of damages) {
  test(`the walk ends before a record that runs into ${what}`, () => {
    const walk = walkChanged(offset, values);
    assert.equal(walk.end, "invalid");
    assert.equal(walk.reason, `${reason} at offset ${at}`);
    assert.equal(walk.endOfRecords, lost.records[49]?.next);
    assert.equal(walk.recordCount, 50);
  });
}

const third = lost.records[2] ?? { start: 0, end: 0, next: 0 };
const headers = [
  { what: "no length", offset: 0, values: [0, 0, 0, 0], reason: "no record" },
  { what: "length 23", offset: 0, values: [23, 0, 0, 0], reason: "record of 23 bytes" },
  { what: "1 GiB", offset: 0, values: [0, 0, 0, 0x40], reason: "record of 1073741824 bytes" },
  {
    what: "4 GiB",
    offset: 0,
    values: [0xff, 0xff, 0xff, 0xff],
    reason: "record of 4294967295 bytes",
  },
  { what: "a longer length", offset: 0, values: [0xff], reason: "record with a wrong CRC" },
  {
    what: "another predecessor",
    offset: 8,
    values: [0],
    reason: "record that does not follow the one before it",
  },
  {
    what: "a predecessor 4 GiB later",
    offset: 12,
    values: [1],
    reason: "record that does not follow the one before it",
  },
  { what: "another transaction", offset: 4, values: [1], reason: "record with a wrong CRC" },
  { what: "another kind", offset: 16, values: [0x10], reason: "record with a wrong CRC" },
  {
    what: "no resource manager",
    offset: 17,
    values: [22],
    reason: "record of resource manager 22",
  },
  {
    what: "a resource manager below the custom ones",
    offset: 17,
    values: [127],
    reason: "record of resource manager 127",
  },
  {
    what: "a custom resource manager, but its CRC",
    offset: 17,
    values: [128],
    reason: "record with a wrong CRC",
  },
  { what: "another CRC", offset: 20, values: [0, 0, 0, 0], reason: "record with a wrong CRC" },
];

for (const { what, offset, values, reason } of headers) {
  test(`the walk ends before a record with ${what}`, () => {
    const walk = walkChanged(third.start + offset, values);
    assert.deepEqual(
      { end: walk.end, endOfRecords: walk.endOfRecords, recordCount: walk.recordCount },
      { end: "invalid", endOfRecords: third.start, recordCount: 2 },
    );
    assert.equal(walk.reason, `${reason} at offset ${third.start}`);
  });
}

/** Sizes of a first record behind which 8, 16 and 24 bytes of the page are left. */
for (const left of [8, 16, 24]) {
  const dataBytes = PAGE_BYTES - 40 - 24 - left;
  const start = PAGE_BYTES - left;

  test(`a record with ${left} bytes of its header on one page is checked like others`, () => {
    const outcomes = [{}, { previous: 1n }, { resourceManager: 22 }].map((change) => {
      const records = [{ dataBytes }, { dataBytes: 50, ...change }, SWITCH];
      const wal = writeWal({ records });
      assert.equal(wal.records[1]?.start, start);
      const [written] = wal.segments;
      if (written === undefined) throw new Error("no segment");
      const { end, endOfRecords, reason } = walkSegment(written.bytes, written);
      return { end, reason, isBefore: endOfRecords === start };
    });
    assert.deepEqual(outcomes, [
      { end: "switch", reason: "", isBefore: false },
      {
        end: "invalid",
        reason: `record that does not follow the one before it at offset ${start}`,
        isBefore: true,
      },
      {
        end: "invalid",
        reason: `record of resource manager 22 at offset ${start}`,
        isBefore: true,
      },
    ]);
  });
}

test("the first record must follow one of an earlier segment", () => {
  const walk = walkChanged(48, [0, 0, 0x10]);
  assert.equal(walk.reason, "record that does not follow the one before it at offset 40");
  assert.equal(walk.endOfRecords, 0);
});

test("custom resource managers are known from 15 on", () => {
  const records = [{ dataBytes: 5, resourceManager: 200 }, SWITCH];
  for (const { magic, end } of [
    { magic: 0xd10d, end: "invalid" },
    { magic: 0xd110, end: "switch" },
    { magic: 0xd118, end: "switch" },
  ]) {
    const [written] = writeWal({ magic, records }).segments;
    if (written === undefined) throw new Error("no segment");
    assert.equal(walkSegment(written.bytes, written).end, end);
  }
});

test("a switch of another resource manager is a record like others", () => {
  const [written] = writeWal({ records: [{ ...SWITCH, resourceManager: 1 }] }).segments;
  if (written === undefined) throw new Error("no segment");
  assert.equal(walkSegment(written.bytes, written).end, "invalid");
});

test("whatever is written over a real segment, the walk ends before it or refuses", () => {
  const { segments } = postgresFacts(15);
  const options = { name: segments.last };
  const original = postgresBytes(15, segments.last);
  const good = walkSegment(original, options);
  fc.assert(
    fc.property(
      fc.nat(original.length - 1),
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      fc.boolean(),
      (offset, values, isAtPage) => {
        const bytes = Uint8Array.from(original);
        const at = isAtPage ? offset - (offset % PAGE_BYTES) : offset;
        bytes.set(values.subarray(0, bytes.length - at), at);
        try {
          const walk = walkSegment(bytes, options);
          assert.ok(walk.endOfRecords <= good.endOfRecords);
          assert.ok(walk.recordCount <= good.recordCount);
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
          assert.ok(at < 40);
        }
      },
    ),
    { numRuns: 300 },
  );
});
