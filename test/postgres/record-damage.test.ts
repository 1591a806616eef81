import assert from "node:assert/strict";
import { test } from "node:test";
import { FormatError } from "../../src/errors.ts";
import { ChangedBlocks } from "../../src/postgres/changed-blocks.ts";
import { noteRecord } from "../../src/postgres/record-changes.ts";
import { RecordDecoder } from "../../src/postgres/record-decoder.ts";
import { ChangeSink } from "../../src/postgres/wal-changes.ts";
import { WalWalker } from "../../src/postgres/wal-record.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { type Major, MAJORS } from "../support/postgres-programs.ts";
import { type Random, seededRandom } from "../support/random.ts";
import {
  commitRecord,
  createRecord,
  dropDatabaseRecord,
  heapRecord,
  parameterRecord,
  truncateRecord,
} from "../support/wal-records.ts";
import { SWITCH, writeWal } from "../support/wal-writer.ts";

/** Bytes that are changed in all. */
const MUTATED_BYTES = process.env["WALNUT_LONG"] === "1" ? 10_000_000 : 300_000;
/** What makes a change of the record's end cheap to try out. */
const RECORD_BYTES_MAX = 2000;

/** Whole records, as the server wrote them, and one of each kind that is treated by itself. */
function realRecords(major: Major, names: readonly string[]): readonly Uint8Array[] {
  const records: Uint8Array[] = [];
  const sink = {
    record(view: DataView, at: number): void {
      const lengthBytes = view.getUint32(at, true);
      if (lengthBytes > RECORD_BYTES_MAX) return;
      records.push(new Uint8Array(view.buffer, view.byteOffset + at, lengthBytes).slice());
    },
    keptBytes: (): number => RECORD_BYTES_MAX,
    rest(): void {},
  };
  const made = [
    heapRecord([{ relfilenode: 1, block: 2 }]),
    createRecord(3),
    truncateRecord(3, 4),
    commitRecord([1, 2, 3]),
    dropDatabaseRecord(9),
    parameterRecord(1),
    SWITCH,
  ];
  const [synthetic] = writeWal({ records: made }).segments;
  if (synthetic === undefined) throw new Error("no segment");
  const segments = names.map((name) => ({ name, bytes: postgresBytes(major, name) }));
  for (const { name, bytes } of [...segments, synthetic]) {
    const walker = new WalWalker(name, undefined, sink);
    walker.push(bytes);
  }
  return records;
}

/** One to four bytes are another, the lengths among them more often than chance would have it. */
function mutate(record: Uint8Array, random: Random): { bytes: Uint8Array; count: number } {
  const bytes = record.slice();
  const count = 1 + Math.floor(random.next() * 4);
  for (let done = 0; done < count; done += 1) {
    const reach = random.next() < 0.7 ? Math.min(bytes.length, 80) : bytes.length;
    bytes[Math.floor(random.next() * reach)] = Math.floor(random.next() * 256);
  }
  const isCut = random.next() < 0.1;
  return { bytes: isCut ? bytes.slice(0, Math.floor(random.next() * bytes.length)) : bytes, count };
}

test("a record with bytes that are changed is taken apart or refused", () => {
  const random = seededRandom();
  const share = MUTATED_BYTES / MAJORS.length;
  let refusedCount = 0;
  for (const major of MAJORS) {
    const { first, last } = postgresFacts(major).segments;
    const records = realRecords(major, [first, last]);
    assert.ok(records.length > 50, `${records.length} records`);
    const decoder = new RecordDecoder({ majorVersion: major });
    let changes = new ChangedBlocks();
    for (let done = 0; done < share;) {
      const record = records[Math.floor(random.next() * records.length)];
      if (record === undefined) throw new Error("no record");
      const { bytes, count } = mutate(record, random);
      done += count;
      try {
        decoder.decode(new DataView(bytes.buffer), 0);
        assert.ok(decoder.blockCount <= 33);
        noteRecord(decoder, major, changes);
      } catch (error) {
        if (!(error instanceof FormatError)) {
          const hex = Buffer.from(bytes).toString("hex");
          throw new Error(`seed ${random.seed}, PostgreSQL ${major}: ${hex}`, { cause: error });
        }
        refusedCount += 1;
      }
      // Blocks far apart take a chunk each.
      if (done % 1000 < 4) changes = new ChangedBlocks();
    }
  }
  assert.ok(refusedCount > MUTATED_BYTES / 20, `${refusedCount} refused`);
});

test("a record that is whole by its CRC and not by its content is a hole", () => {
  const bad = { resourceManager: 10, info: 0, data: Uint8Array.of(7, 0x0f), dataBytes: 2 };
  const [segment] = writeWal({ records: [bad, SWITCH] }).segments;
  if (segment === undefined) throw new Error("no segment");
  const sink = new ChangeSink(15);
  const walker = new WalWalker(segment.name, undefined, sink);
  walker.push(segment.bytes);
  assert.equal(walker.finish().end, "switch");
  assert.equal(sink.holeReason, "WAL record of resource manager 10, 26 bytes, has fork 15");
});
