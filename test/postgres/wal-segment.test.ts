import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationError } from "../../src/errors.ts";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { LONG_HEADER_BYTES } from "../../src/postgres/wal-page.ts";
import {
  beginsAnew,
  checkSegmentStart,
  SEGMENT_HEADER_BYTES,
} from "../../src/postgres/wal-segment.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";
import { writeWal } from "../support/wal-writer.ts";

for (const major of MAJORS) {
  const { segments, control, timelines } = postgresFacts(major);

  test(`40 bytes of a segment of PostgreSQL ${major} tell what it is`, () => {
    const start = postgresBytes(major, segments.first).subarray(0, SEGMENT_HEADER_BYTES);
    const header = checkSegmentStart(start, segments.first);
    assert.equal(header.majorVersion, major);
    assert.equal(header.systemId, BigInt(control.system.system_identifier));
    assert.equal(header.segmentBytes, 1024 * 1024);
    assert.equal(header.pageBytes, 8192);
    assert.equal(header.timeline, 1);
    assert.equal(header.firstPageTimeline, 1);
    assert.equal(header.startLsn, parseLsn(segments.start) & ~0xf_ffffn);
    assert.deepEqual(checkSegmentStart(start, `${segments.first}.partial`), header);
  });

  test(`the segment in which timeline 2 began holds pages of timeline 1 (${major})`, () => {
    const header = checkSegmentStart(postgresBytes(major, timelines.first), timelines.first);
    assert.deepEqual([header.timeline, header.firstPageTimeline], [2, 1]);
  });
}

test("the WAL begins anew where the first record follows none, but not in segment 1", () => {
  const begins = (firstSegment: bigint, previous?: bigint) => {
    const first = { dataBytes: 10, ...(previous === undefined ? {} : { previous }) };
    const [{ name, bytes: start } = { name: "", bytes }] = writeWal({
      firstSegment,
      records: [first],
    }).segments;
    return beginsAnew(start, checkSegmentStart(start, name));
  };
  assert.deepEqual([begins(1n), begins(2n), begins(2n, 0n)], [false, false, true]);
  // Nothing was written there yet.
  const empty = changed(LONG_HEADER_BYTES, new Uint8Array(24).fill(0));
  assert.equal(beginsAnew(empty, checkSegmentStart(bytes, "000000020000000000000001")), false);
});

for (const major of MAJORS) {
  test(`no segment of a running PostgreSQL ${major} begins it anew`, () => {
    const { segments } = postgresFacts(major);
    const start = postgresBytes(major, segments.first);
    assert.equal(beginsAnew(start, checkSegmentStart(start, segments.first)), false);
  });
}

const [written] = writeWal({ timeline: 2, records: [{ dataBytes: 10 }] }).segments;
if (written === undefined) throw new Error("no segment");
const { bytes } = written;

function changed(at: number, values: ArrayLike<number>): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy.set(values, at);
  return copy;
}

const bad = [
  {
    what: "another address",
    name: "000000020000000000000002",
    page: bytes,
    message:
      "WAL segment 000000020000000000000002 holds WAL from 0/100000 on, " +
      "its name stands for 0/200000",
  },
  {
    what: "a later timeline",
    name: "000000010000000000000001",
    page: bytes,
    message:
      "WAL segment 000000010000000000000001 was written on timeline 2, " +
      "its name stands for timeline 1",
  },
  {
    what: "a name that its segment size does not allow",
    name: "000000020000000000001000",
    page: bytes,
    message:
      "no WAL segment of 1048576 bytes is named 000000020000000000001000: " +
      "its last 8 digits can be at most 00000FFF",
  },
  {
    what: "zeros",
    name: written.name,
    page: new Uint8Array(8192),
    message: `${written.name} is no WAL segment: not a WAL page of PostgreSQL 13 to 18: magic 0x0`,
  },
  {
    what: "a short header",
    name: written.name,
    page: changed(2, [0]),
    message: `${written.name} is no WAL segment: its first page has a short header`,
  },
  {
    what: "an empty file",
    name: written.name,
    page: new Uint8Array(),
    message: `WAL segment ${written.name} has 0 bytes, its header alone needs 40`,
  },
  {
    what: "a cut-off header",
    name: written.name,
    page: bytes.subarray(0, 39),
    message: `WAL segment ${written.name} has 39 bytes, its header alone needs 40`,
  },
  {
    what: "no segment's name",
    name: "00000002.history",
    page: bytes,
    message: 'not the name of a WAL segment: "00000002.history"',
  },
  {
    what: "a .backup file's name",
    name: `${written.name}.00000028.backup`,
    page: bytes,
    message: `not the name of a WAL segment: "${written.name}.00000028.backup"`,
  },
  {
    what: "timeline 0",
    name: "000000000000000000000001",
    page: bytes,
    message: 'not the name of a WAL segment: "000000000000000000000001"',
  },
];

for (const { what, name, page, message } of bad) {
  test(`refuses a segment: ${what}`, () => {
    assert.throws(
      () => checkSegmentStart(page, name),
      (error) => {
        assert.ok(error instanceof OperationError);
        assert.equal(error.message, message);
        assert.equal(error.code, page.length < 40 ? "truncated" : "format");
        return true;
      },
    );
  });
}

test("a recycled segment under its future name comes with a way out (E09)", () => {
  assert.throws(
    () => checkSegmentStart(bytes, "000000020000000000000002"),
    (error) => {
      assert.ok(error instanceof OperationError);
      assert.match(error.hint ?? "", /renames old segments to reuse them/);
      return true;
    },
  );
});
