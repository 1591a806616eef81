import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { FormatError } from "../../src/errors.ts";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { walkSegment, type WalWalk, WalWalker } from "../../src/postgres/wal-record.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";
import { SWITCH, writeWal, type WrittenWal } from "../support/wal-writer.ts";

const SEGMENT_BYTES = 1024 * 1024;

const offsetOf = (position: string) => Number(parseLsn(position) % BigInt(SEGMENT_BYTES));

function outcome({ endOfRecords, end, reason, recordCount }: WalWalk) {
  return { endOfRecords, end, reason, recordCount };
}

for (const major of MAJORS) {
  const { segments, overwrites, timelines } = postgresFacts(major);
  const walk = (name: string) => walkSegment(postgresBytes(major, name), { name });

  test(`a segment of PostgreSQL ${major} whose last record goes on in the next`, () => {
    const { endOfRecords, end, recordCount } = walk(segments.first);
    assert.deepEqual([endOfRecords, end], [SEGMENT_BYTES, "segment-end"]);
    const { waldump } = segments;
    if (waldump.first !== null) assert.equal(recordCount, waldump.first.records);
  });

  test(`a segment of PostgreSQL ${major} that is the middle of a record`, () => {
    const expected = {
      endOfRecords: SEGMENT_BYTES,
      end: "segment-end",
      reason: "",
      recordCount: 0,
    };
    assert.deepEqual(outcome(walk(segments.middle)), expected);
  });

  test(`a segment of PostgreSQL ${major} that ends with a switch`, () => {
    const last = walk(segments.last);
    assert.deepEqual([last.endOfRecords, last.end], [offsetOf(segments.switchEnd), "switch"]);
    const { waldump, walinspect } = segments;
    if (waldump.last !== null) {
      assert.equal(last.recordCount, waldump.last.records);
      assert.equal(last.endOfRecords, offsetOf(waldump.last.last) + 24);
    }
    if (walinspect.all === null || walinspect.last === null) return;
    assert.equal(last.recordCount, walinspect.last.records + 1);
    // The server counts the long record, which no segment has whole, but not the switch.
    assert.equal(walk(segments.first).recordCount + last.recordCount, walinspect.all.records);
  });

  for (const kind of ["inside", "start"] as const) {
    test(`PostgreSQL ${major} went on where the rest of a record was lost: ${kind}`, () => {
      const { name, switchEnd } = overwrites[kind];
      const { endOfRecords, end } = walk(name);
      assert.deepEqual([endOfRecords, end], [offsetOf(switchEnd), "switch"]);
    });
  }

  test(`a segment of PostgreSQL ${major} in which a timeline began`, () => {
    const { endOfRecords, end, header } = walk(timelines.first);
    assert.deepEqual([endOfRecords, end], [offsetOf(timelines.switchEnd), "switch"]);
    assert.deepEqual([header.firstPageTimeline, header.timeline], [1, 2]);
  });
}

test("chunks of any length give the same walk", () => {
  const { segments, overwrites } = postgresFacts(15);
  for (const name of [segments.first, segments.last, overwrites.inside.name]) {
    const bytes = postgresBytes(15, name);
    const whole = walkSegment(bytes, { name });
    for (const chunkBytes of [1, 7, 40, 4096, 8191, 8192, 8193, 100_000]) {
      assert.deepEqual(walkInChunks(bytes, { name, chunkBytes }), whole, `${chunkBytes} bytes`);
    }
  }
});

function walkInChunks(bytes: Uint8Array, options: { name: string; chunkBytes: number }): WalWalk {
  const walker = new WalWalker(options.name);
  const memory = new Uint8Array(options.chunkBytes);
  for (let at = 0; at < bytes.length; at += memory.length) {
    const chunk = bytes.subarray(at, at + memory.length);
    memory.set(chunk);
    walker.push(memory.subarray(0, chunk.length));
    memory.fill(0xee);
  }
  return walker.finish();
}

test("a primary's and a standby's copy differ behind the last record only (E11)", () => {
  const { segments } = postgresFacts(15);
  const primary = postgresBytes(15, segments.last);
  const standby = postgresBytes(15, segments.last);
  const { endOfRecords } = walkSegment(primary, { name: segments.last });
  standby.set(postgresBytes(15, segments.first).subarray(endOfRecords), endOfRecords);
  assert.notDeepEqual(standby, primary);
  const walks = [primary, standby].map((bytes) => walkSegment(bytes, { name: segments.last }));
  assert.deepEqual(walks[0], walks[1]);
});

test("old content behind the last record of an unfinished segment is not taken for records", () => {
  const old = writeWal({ records: Array.from({ length: 9000 }, () => ({ dataBytes: 61 })) });
  const { segments, records } = writeWal({
    firstSegment: 2n,
    records: Array.from({ length: 100 }, () => ({ dataBytes: 61 })),
  });
  const [segment, end] = [segments[0], records.at(-1)?.next ?? 0];
  if (segment === undefined || old.segments[0] === undefined) throw new Error("no segment");
  segment.bytes.set(old.segments[0].bytes.subarray(end), end);
  const walk = walkSegment(segment.bytes, { name: segment.name });
  assert.deepEqual(outcome(walk), {
    endOfRecords: end,
    end: "invalid",
    reason: `record that does not follow the one before it at offset ${end}`,
    recordCount: 100,
  });
});

test("a tail that crash recovery wrote later makes the valid part longer (E12)", () => {
  const recipe = Array.from({ length: 300 }, (_, i) => ({ dataBytes: (i * 37) % 500 }));
  const [short, long] = [recipe.slice(0, 200), recipe].map((records) => writeWal({ records }));
  const ends = [short, long].map((wal) => onlyWalk(wal).endOfRecords);
  assert.deepEqual(
    ends,
    [short, long].map((wal) => wal?.records.at(-1)?.next),
  );
  assert.ok((ends[0] ?? 0) < (ends[1] ?? 0));
});

function onlyWalk(wal: WrittenWal | undefined): WalWalk {
  const segment = wal?.segments[0];
  if (segment === undefined) throw new Error("no segment");
  return walkSegment(segment.bytes, { name: segment.name });
}

const recordSizes = fc.oneof(fc.nat(200), fc.nat(30_000), fc.constant(0));
const recipes = fc.record({
  records: fc.array(
    recordSizes.map((dataBytes) => ({ dataBytes })),
    { maxLength: 60, minLength: 1 },
  ),
  isSwitched: fc.boolean(),
  pageBytes: fc.constantFrom(1024, 8192, 65_536),
  firstSegment: fc.constantFrom(1n, 0xfffn, 0x7_0000_0fffn, (1n << 44n) - 9n),
});

test("the walk ends where the writer ended, whatever the records are", () => {
  fc.assert(
    fc.property(recipes, fc.integer({ min: 1, max: 50_000 }), (recipe, chunkBytes) => {
      const records = recipe.isSwitched ? [...recipe.records, SWITCH] : recipe.records;
      const wal = writeWal({ ...recipe, records });
      for (const [index, { name, bytes }] of wal.segments.entries()) {
        const start = index * SEGMENT_BYTES;
        const here = wal.records.filter(
          (record) => record.start >= start && record.end <= start + SEGMENT_BYTES,
        );
        const last = (wal.records.at(-1)?.next ?? 0) - start;
        const isLast = index === wal.segments.length - 1 && last < SEGMENT_BYTES;
        const walk = walkInChunks(bytes, { name, chunkBytes });
        assert.equal(walk.recordCount, here.length);
        assert.equal(walk.endOfRecords, isLast ? last : SEGMENT_BYTES);
        const expected = recipe.isSwitched ? "switch" : "invalid";
        assert.equal(walk.end, isLast ? expected : "segment-end");
      }
    }),
    { numRuns: 60 },
  );
});

test("a segment's start that is no segment is a FormatError at once", () => {
  const walker = new WalWalker("000000010000000000000001");
  walker.push(new Uint8Array(39));
  assert.throws(() => walker.push(new Uint8Array(1)), FormatError);
  assert.throws(() => new WalWalker("000000010000000000000001").finish(), {
    name: "TruncatedError",
    message: "WAL segment 000000010000000000000001 has 0 bytes, its header alone needs 40",
  });
});

test("the header is known after 40 bytes", () => {
  const { name, bytes } = firstSegment(writeWal({ records: [{ dataBytes: 8 }] }));
  const walker = new WalWalker(name);
  const systemId = () => walker.header?.systemId;
  walker.push(bytes.subarray(0, 39));
  assert.equal(systemId(), undefined);
  walker.push(bytes.subarray(39, 40));
  assert.equal(systemId(), 0x1234_5678_9abc_def0n);
});

function firstSegment(wal: WrittenWal) {
  const [segment] = wal.segments;
  if (segment === undefined) throw new Error("no segment");
  return segment;
}

test("a file that is too short or too long tells its size", () => {
  const wal = writeWal({ records: Array.from({ length: 2000 }, () => ({ dataBytes: 600 })) });
  const { name, bytes } = firstSegment(wal);
  const short = walkSegment(bytes.subarray(0, 100_000), { name });
  assert.equal(short.sizeBytes, 100_000);
  assert.equal(short.end, "invalid");
  assert.equal(short.reason, "the file ends after 100000 bytes");
  assert.ok(short.endOfRecords <= 100_000 && short.endOfRecords > 90_000);
  const long = walkSegment(Buffer.concat([bytes, bytes]), { name });
  assert.deepEqual(long, { ...walkSegment(bytes, { name }), sizeBytes: 2 * SEGMENT_BYTES });
});
