/** Records that cross from one segment into the next, with what the first leaves open. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { type WalWalk, WalWalker } from "../../src/postgres/wal-record.ts";
import { type RecordRecipe, SWITCH, writeWal, type WrittenWal } from "../support/wal-writer.ts";

const SEGMENT_BYTES = 1024 * 1024;
const HUGE: RecordRecipe = { dataBytes: 2 * SEGMENT_BYTES + 300_000 };

/** Walks all segments, each with what the one before left open. */
function walkChain({ segments }: WrittenWal): WalWalk[] {
  const walks: WalWalk[] = [];
  let previous: WalWalker | undefined;
  for (const { name, bytes } of segments) {
    const walker = new WalWalker(name, previous?.openRecord);
    walker.push(bytes);
    walks.push(walker.finish());
    previous = walker;
  }
  return walks;
}

/** Records of any size, so that segments end in the middle of data, of a header, or of none. */
const records = fc.array(fc.record({ dataBytes: fc.integer({ min: 0, max: 60_000 }) }), {
  minLength: 60,
  maxLength: 90,
});

test("a chain that is whole is valid to its switch, wherever the segments end", () => {
  fc.assert(
    fc.property(records, fc.nat(7), (some, shift) => {
      const wal = writeWal({ records: [{ dataBytes: shift * 8 }, ...some, SWITCH] });
      const walks = walkChain(wal);
      assert.deepEqual(
        walks.map(({ end }) => end),
        [...Array.from({ length: walks.length - 1 }, () => "segment-end"), "switch"],
      );
      const [last] = wal.records.slice(-1);
      assert.equal(walks.at(-1)?.endOfRecords, (last?.next ?? 0) % SEGMENT_BYTES);
    }),
    { numRuns: 10 },
  );
});

test("each changed bit of a record that crosses segments is seen in the segment where it ends", () => {
  const wal = writeWal({ records: [{ dataBytes: 900_000 }, HUGE, { dataBytes: 500 }, SWITCH] });
  const [, huge] = wal.records;
  assert.ok(huge !== undefined && wal.segments.length === 4);
  assert.deepEqual(
    walkChain(wal).map(({ end, recordCount }) => [end, recordCount]),
    [
      ["segment-end", 1],
      ["segment-end", 0],
      ["segment-end", 0],
      ["switch", 2],
    ],
  );
  fc.assert(
    fc.property(fc.integer({ min: huge.start, max: huge.end - 1 }), fc.nat(7), (position, bit) => {
      const bytes = wal.segments[Math.floor(position / SEGMENT_BYTES)]?.bytes;
      assert.ok(bytes !== undefined);
      const at = position % SEGMENT_BYTES;
      const before = bytes[at] ?? 0;
      bytes[at] = before ^ (1 << bit);
      const ends = walkChain(wal).map(({ end }) => end);
      bytes[at] = before;
      assert.ok(ends.includes("invalid"), ends.join());
    }),
    { numRuns: 40 },
  );
});

test("the reason names the record of the previous segment", () => {
  const wal = writeWal({ records: [{ dataBytes: SEGMENT_BYTES }, SWITCH] });
  wal.segments[0]?.bytes.fill(7, 500_000, 500_001);
  const [, last] = walkChain(wal);
  assert.deepEqual(
    [last?.end, last?.endOfRecords, last?.reason],
    ["invalid", 0, "end of a record of the previous segment with a wrong CRC at offset 0"],
  );
});

test("a segment must continue what the one before left open, as recovery demands", () => {
  const wal = writeWal({ records: [{ dataBytes: SEGMENT_BYTES }, SWITCH] });
  const other = writeWal({ records: [{ dataBytes: SEGMENT_BYTES + 80 }, SWITCH] });
  const first = new WalWalker(other.segments[0]?.name ?? "");
  first.push(other.segments[0]?.bytes ?? new Uint8Array());
  first.finish();
  assert.ok(first.openRecord !== undefined);
  const walker = new WalWalker(wal.segments[1]?.name ?? "", first.openRecord);
  walker.push(wal.segments[1]?.bytes ?? new Uint8Array());
  const { end, endOfRecords, reason } = walker.finish();
  assert.deepEqual([end, endOfRecords], ["invalid", 0]);
  assert.match(reason, /^page that continues a record by \d+ bytes instead of \d+ at offset 0$/);
});

test("nothing is open after a switch, in a cut-off segment, and where the begin is not known", () => {
  const wal = writeWal({ records: [{ dataBytes: 900_000 }, HUGE, SWITCH] });
  const openRecord = (index: number, length?: number) => {
    const walker = new WalWalker(wal.segments[index]?.name ?? "");
    walker.push(wal.segments[index]?.bytes.subarray(0, length) ?? new Uint8Array());
    walker.finish();
    return walker.openRecord;
  };
  assert.ok(openRecord(0) !== undefined);
  assert.equal(openRecord(0, SEGMENT_BYTES - 8192), undefined);
  assert.equal(openRecord(1), undefined);
  assert.equal(openRecord(3), undefined);
});
