import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChangedBlocks } from "../../src/postgres/changed-blocks.ts";
import { formatLsn, type Lsn, lsn } from "../../src/postgres/lsn.ts";
import { type BlockReference, RecordDecoder } from "../../src/postgres/record-decoder.ts";
import { relationKey } from "../../src/postgres/relation-file.ts";
import { ChangeSink } from "../../src/postgres/wal-changes.ts";
import { WalWalker } from "../../src/postgres/wal-record.ts";
import type { OpenRecord, RecordSink } from "../../src/postgres/wal-record-scan.ts";
import { leaveOut } from "../support/left-out.ts";
import { type Major, MAJORS } from "../support/postgres-programs.ts";
import { type RealWal, recordWorkload, walFile } from "../support/real-wal.ts";
import { dumpedChanges, dumpWal, waldumpProgram } from "../support/wal-dump.ts";

const TESTED: readonly Major[] = process.env["WALNUT_LONG"] === "1" ? MAJORS : [15, 18];

/** By number, as pg_waldump calls them. @source src/include/access/rmgrlist.h */
const RMGR_NAMES = [
  ..."XLOG Transaction Storage CLOG Database Tablespace MultiXact RelMap Standby".split(" "),
  ..."Heap2 Heap Btree Hash Gin Gist Sequence SPGist BRIN CommitTs".split(" "),
  ..."ReplicationOrigin Generic LogicalMessage".split(" "),
];

/** As pg_waldump writes it behind "blkref ". */
function formatReference(reference: BlockReference): string {
  const { blockId, tablespaceOid, databaseOid, relfilenode, fork, block, image } = reference;
  const place = `rel ${tablespaceOid}/${databaseOid}/${relfilenode} fork ${fork} blk ${block}`;
  if (image === undefined) return `#${blockId}: ${place}`;
  const { holeOffset, holeBytes, sizeBytes, compression } = image;
  const purpose = image.isApplied ? "" : " for WAL verification";
  const saved = 8192 - holeBytes - sizeBytes;
  const method =
    compression === "none" ? "" : `, compression saved: ${saved}, method: ${compression}`;
  return (
    `#${blockId}: ${place} (FPW${purpose}); ` +
    `hole: offset: ${holeOffset}, length: ${holeBytes}${method}`
  );
}

/** Decodes every record, those across pages and segments, too. */
class Listing implements RecordSink {
  readonly lines: string[] = [];
  readonly #decoder: RecordDecoder;
  segmentStart = 0n;
  firstStart: Lsn | undefined;

  constructor(majorVersion: number) {
    this.#decoder = new RecordDecoder({ majorVersion });
  }

  record(view: DataView, at: number, start: number): void {
    const decoder = this.#decoder;
    decoder.decode(view, at);
    assert.equal(decoder.mainData.byteLength, decoder.mainDataBytes);
    const place = lsn(this.segmentStart + BigInt(Math.max(start, 0)));
    if (start >= 0) this.firstStart ??= place;
    const position = start < 0 ? "(before)" : formatLsn(place);
    const { lengthBytes, xid, rmgr, blockCount } = decoder;
    this.lines.push(`${position} ${RMGR_NAMES[rmgr]} ${lengthBytes} ${xid}`);
    for (const reference of decoder.blocks.slice(0, blockCount)) {
      this.lines.push(formatReference(reference));
    }
  }

  keptBytes(head: DataView): number {
    return head.getUint32(0, true);
  }

  rest(): void {}
}

function walk(wal: RealWal, sink: RecordSink, begin: (start: bigint) => void = () => {}): void {
  let open: OpenRecord | undefined;
  for (const name of wal.segments) {
    const walker = new WalWalker(name, open, sink);
    const content = walFile(wal, name);
    begin(content.readBigUInt64LE(8));
    walker.push(content);
    assert.notEqual(walker.finish().end, "invalid");
    open = walker.openRecord;
  }
}

for (const major of TESTED) {
  test(`records of all kinds of PostgreSQL ${major}`, async (context) => {
    const wal = await recordWorkload(major);
    const sink = new ChangeSink(major);
    walk(wal, sink);
    assert.equal(sink.holeReason, "");

    const listing = new Listing(major);
    walk(wal, listing, (start) => {
      listing.segmentStart = start;
    });

    await context.test("name every page that they wrote", () => {
      const { firstStart } = listing;
      assert.ok(firstStart !== undefined);
      let count = 0;
      for (const page of wal.pages) {
        if (page.lsn <= firstStart) continue;
        const change = sink.changes.inFile(page.file, 131_072);
        const isIn =
          change.kind === "all" ||
          (change.kind === "blocks" &&
            change.ranges.some((range) => page.block >= range.start && page.block < range.end));
        assert.ok(isIn, `${relationKey(page.file)} block ${page.block} at ${formatLsn(page.lsn)}`);
        count += 1;
      }
      assert.ok(count > 100, `${count} pages`);
    });

    const program = waldumpProgram(major);
    if (program === undefined) {
      if (major !== 13 && major !== 14 && major !== 16) {
        leaveOut(`WAL records of ${major}`, `no pg_waldump of ${major}`);
      }
      return;
    }
    const dumped = dumpWal(program, wal);
    await context.test("are what pg_waldump tells of them", () => {
      const expected = dumped.flatMap(({ rmgr, lengthBytes, xid, lsn: text, references }) => [
        `${shortLsn(text)} ${rmgr} ${lengthBytes} ${xid}`,
        ...references,
      ]);
      assert.ok(expected.length > 20_000);
      for (const [index, line] of listing.lines.entries()) {
        const wanted = expected[index]?.replace(/^\S+/, (place) =>
          line.startsWith("(before)") && !place.startsWith("#") ? "(before)" : place,
        );
        if (line !== wanted) assert.deepEqual([index, line], [index, wanted]);
      }
      assert.equal(listing.lines.length, expected.length);
    });

    await context.test("change what pg_waldump tells of them", () => {
      const told = dumpedChanges(dumped);
      assert.deepEqual(describe(sink.changes), describe(told));
      assert.ok(
        describe(told).some(({ changedFrom }) => (changedFrom ?? 0) > 0),
        "a truncation",
      );
      assert.ok(
        describe(told).some(({ relfilenode }) => relfilenode === 0),
        "a database",
      );
    });
  });
}

/** pg_waldump fills up with zeros, as no other program does. */
function shortLsn(text: string): string {
  return text.replace(/\/0+(?=.)/, "/");
}

function describe(changes: ChangedBlocks) {
  return [...changes.entries()].map(({ blocks, ...noted }) => ({
    ...noted,
    ranges: [...blocks.ranges()],
  }));
}
