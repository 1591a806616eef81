import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { FormatError } from "../../src/errors.ts";
import { lsn, parseLsn } from "../../src/postgres/lsn.ts";
import { parseSegmentName, segmentStart } from "../../src/postgres/wal-file.ts";
import { parseWalPageHeader } from "../../src/postgres/wal-page.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";

const MAGICS = { 13: 0xd106, 14: 0xd10d, 15: 0xd110, 16: 0xd113, 17: 0xd116, 18: 0xd118 };

for (const major of MAJORS) {
  test(`the first page of a segment of PostgreSQL ${major}`, () => {
    const { segments, control } = postgresFacts(major);
    assert.deepEqual(parseWalPageHeader(postgresBytes(major, segments.first)), {
      form: "long",
      magic: MAGICS[major],
      knownFlags: 0x000f,
      majorVersion: major,
      timeline: 1,
      pageStart: segmentStart(parseSegmentName(segments.first, 1024 * 1024).segmentNumber, 1048576),
      continuationBytes: 0,
      isOverwrite: false,
      systemId: BigInt(control.system.system_identifier),
      segmentBytes: 1024 * 1024,
      pageBytes: 8192,
    });
  });

  test(`a page inside a record of PostgreSQL ${major} tells what is still to come`, () => {
    const { segments } = postgresFacts(major);
    const segment = postgresBytes(major, segments.last);
    const first = parseWalPageHeader(segment);
    const second = parseWalPageHeader(segment.subarray(8192));
    assert.equal(second.form, "short");
    assert.equal(second.pageStart, first.pageStart + 8192n);
    assert.equal(second.continuationBytes, first.continuationBytes - (8192 - 40));
    // Headers of the pages between, and the rest of the last one, make up what is to come.
    const pages = Math.ceil((first.continuationBytes - (8192 - 40)) / (8192 - 24));
    const end = first.pageStart + BigInt(first.continuationBytes + 40 + pages * 24);
    assert.equal((end + 7n) & ~7n, parseLsn(segments.messageEnd));
  });

  test(`a page of PostgreSQL ${major} behind a lost record says so`, () => {
    const { overwrites } = postgresFacts(major);
    const { isOverwrite, continuationBytes } = parseWalPageHeader(
      postgresBytes(major, overwrites.start.name),
    );
    assert.deepEqual(
      { isOverwrite, continuationBytes },
      { isOverwrite: true, continuationBytes: 0 },
    );
  });
}

interface Fields {
  readonly magic?: number;
  readonly flags?: number;
  readonly timeline?: number;
  readonly pageStart?: bigint;
  readonly continuationBytes?: number;
  readonly segmentBytes?: number;
  readonly pageBytes?: number;
}

function header(fields: Fields): Uint8Array {
  const view = new DataView(new ArrayBuffer(40));
  view.setUint16(0, fields.magic ?? 0xd110, true);
  view.setUint16(2, fields.flags ?? 2, true);
  view.setUint32(4, fields.timeline ?? 1, true);
  view.setBigUint64(8, fields.pageStart ?? 0x100_0000n, true);
  view.setUint32(16, fields.continuationBytes ?? 0, true);
  view.setBigUint64(24, 1n, true);
  view.setUint32(32, fields.segmentBytes ?? 1 << 24, true);
  view.setUint32(36, fields.pageBytes ?? 8192, true);
  return new Uint8Array(view.buffer);
}

const other = "not a WAL page of PostgreSQL 13 to 18: magic";
const at = "WAL page at 0/1000000 has";
const bad = [
  { name: "nothing", bytes: new Uint8Array(), message: "a WAL page header needs 24 bytes, got 0" },
  {
    name: "cut off",
    bytes: header({}).subarray(0, 23),
    message: "a WAL page header needs 24 bytes, got 23",
  },
  {
    name: "long one cut off",
    bytes: header({}).subarray(0, 39),
    message: "a WAL page header needs 40 bytes, got 39",
  },
  { name: "zeros", bytes: new Uint8Array(40), message: `${other} 0x0` },
  { name: "release 12", bytes: header({ magic: 0xd101 }), message: `${other} 0xd101` },
  { name: "release 19", bytes: header({ magic: 0xd121 }), message: `${other} 0xd121` },
  { name: "big-endian", bytes: header({ magic: 0x10d1 }), message: `${other} 0x10d1` },
  { name: "unknown flag", bytes: header({ flags: 0x12 }), message: `${at} unknown flags 0x12` },
  { name: "timeline 0", bytes: header({ timeline: 0 }), message: `${at} timeline 0` },
  {
    name: "continuation of nothing",
    bytes: header({ flags: 3 }),
    message: `${at} flags 0x3 but 0 bytes of a continued record`,
  },
  {
    name: "no continuation of something",
    bytes: header({ continuationBytes: 9 }),
    message: `${at} flags 0x2 but 9 bytes of a continued record`,
  },
  {
    name: "continuation of a lost record",
    bytes: header({ flags: 0xb, continuationBytes: 9 }),
    message: `${at} flags 0xb but 9 bytes of a continued record`,
  },
  {
    name: "segment size 0",
    bytes: header({ segmentBytes: 0 }),
    message: `${at} segment size 0`,
  },
  {
    name: "segment size 3 MiB",
    bytes: header({ segmentBytes: 3 << 20 }),
    message: `${at} segment size 3145728`,
  },
  { name: "page size 0", bytes: header({ pageBytes: 0 }), message: `${at} page size 0` },
  { name: "page size 512", bytes: header({ pageBytes: 512 }), message: `${at} page size 512` },
  {
    name: "page size 12345",
    bytes: header({ pageBytes: 12345 }),
    message: `${at} page size 12345`,
  },
  {
    name: "page size 128 KiB",
    bytes: header({ pageBytes: 1 << 17 }),
    message: `${at} page size 131072`,
  },
  {
    name: "long header inside a segment",
    bytes: header({ pageStart: 0x100_2000n }),
    message:
      "WAL page at 0/1002000 has a long header but no segment of 16777216 bytes begins there",
  },
];

for (const { name, bytes, message } of bad) {
  test(`refuses a WAL page header: ${name}`, () => {
    assert.throws(
      () => parseWalPageHeader(bytes),
      (error) => {
        assert.ok(error instanceof FormatError);
        assert.equal(error.message, message);
        assert.equal(error.code, message.includes("needs") ? "truncated" : "format");
        return true;
      },
    );
  });
}

test("any 40 bytes are a header or a FormatError", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 48 }), fc.boolean(), (bytes, isWal) => {
      if (isWal && bytes.length > 3) bytes.set([0x10, 0xd1, (bytes[2] ?? 0) & 0x0f, 0]);
      try {
        const page = parseWalPageHeader(bytes);
        assert.equal(page.majorVersion, 15);
        assert.equal(lsn(page.pageStart), page.pageStart);
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
      }
    }),
    { numRuns: 2000 },
  );
});
