import { FormatError, TruncatedError } from "../errors.ts";
import { ChangedBlocks } from "../postgres/changed-blocks.ts";
import { Crc32c } from "../postgres/crc32c.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import { formatSegmentName, isSegmentSize, segmentNumberOf } from "../postgres/wal-file.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import { ByteReader, ByteWriter } from "./byte-fields.ts";

/**
 * How the bytes end with which a map's first segment continues an earlier record.
 *
 * - "none": it continues none.
 * - "complete": with the record.
 * - "continues": not within this map.
 * - "voided": what should have followed was lost in a crash; the record never happened.
 */
export type RestEnd = "none" | "complete" | "continues" | "voided";

/** What one or more consecutive segments of one timeline changed. */
export interface ChangeMap {
  readonly systemId: bigint;
  readonly majorVersion: number;
  readonly timeline: number;
  /** Of the first segment. */
  readonly startLsn: Lsn;
  readonly segmentBytes: number;
  readonly segmentCount: number;
  /** Of all records that begin and end here. */
  readonly changes: ChangedBlocks;
  /** Of an earlier record, still to come where this map begins; 0 for none. */
  readonly continuationBytes: number;
  /** Whether the first page says that such a record was lost before it. */
  readonly isOverwrite: boolean;
  readonly restEnd: RestEnd;
  /** The bytes that this map has of that record. */
  readonly rest: Uint8Array;
  /** The record that begins here and goes on behind; with its `kept` bytes. */
  readonly open: OpenRecord | undefined;
}

/** "WNCHANG" and the format's number. */
const MAGIC = 0x31_47_4e_41_48_43_4e_57n;
const REST_ENDS: readonly RestEnd[] = ["none", "complete", "continues", "voided"];
const CRC_BYTES = 4;
const HEAD_BYTES_MAX = 24;
/** More are never put into one map. */
const SEGMENTS_MAX = 64;
/** What a record needs at least to name a block: so many blocks a segment can't exceed. */
const REFERENCE_BYTES = 8;
/** InvalidBlockNumber is 2^32 - 1: no block has it. */
const BLOCK_LIMIT = 2 ** 32 - 1;

/** The name of the first segment. */
export function mapSegment({ timeline, startLsn, segmentBytes }: ChangeMap): string {
  return formatSegmentName(timeline, segmentNumberOf(startLsn, segmentBytes), segmentBytes);
}

export function formatChangeMap(map: ChangeMap): Uint8Array {
  const writer = new ByteWriter();
  writer.u64(MAGIC);
  writer.u64(map.systemId);
  writer.u64(map.startLsn);
  for (const number of [map.majorVersion, map.timeline, map.segmentBytes, map.segmentCount]) {
    writer.u32(number);
  }
  writer.u32(map.continuationBytes);
  writer.u8(map.isOverwrite ? 1 : 0);
  writer.u8(REST_ENDS.indexOf(map.restEnd));
  writer.lengthAndBytes(map.rest);
  writeOpenRecord(writer, map.open);
  writeChanges(writer, map.changes);
  writer.u32(checksum(writer.written()));
  return writer.written();
}

/** Throws FormatError for everything that `formatChangeMap` does not write. */
export function parseChangeMap(bytes: Uint8Array): ChangeMap {
  if (bytes.length < CRC_BYTES) throw new TruncatedError(`change map of ${bytes.length} bytes`);
  const covered = bytes.subarray(0, bytes.length - CRC_BYTES);
  const stored = new ByteReader(bytes.subarray(covered.length), "change map").u32();
  if (checksum(covered) !== stored) throw new FormatError("change map with a wrong CRC");
  const reader = new ByteReader(covered, "change map");
  const magic = reader.u64();
  if (magic !== MAGIC) throw new FormatError(`change map of format ${magic.toString(16)}`);
  const systemId = reader.u64();
  const startLsn = lsn(reader.u64());
  const [majorVersion, timeline, segmentBytes, segmentCount] = [
    reader.u32(),
    reader.u32(),
    reader.u32(),
    reader.u32(),
  ];
  const continuationBytes = reader.u32();
  const isOverwrite = reader.u8() !== 0;
  const restEnd = REST_ENDS[reader.u8()];
  if (restEnd === undefined) throw new FormatError("change map with an unknown end of a record");
  const rest = reader.lengthAndBytes();
  const open = readOpenRecord(reader);
  if (!isSegmentSize(segmentBytes) || segmentCount > SEGMENTS_MAX) {
    throw new FormatError(`change map of ${segmentCount} segments of ${segmentBytes} bytes`);
  }
  const changes = readChanges(reader, (segmentBytes * segmentCount) / REFERENCE_BYTES);
  if (reader.leftBytes > 0) throw new FormatError(`change map with ${reader.leftBytes} bytes more`);
  return {
    systemId,
    majorVersion,
    timeline,
    startLsn,
    segmentBytes,
    segmentCount,
    changes,
    continuationBytes,
    isOverwrite,
    restEnd,
    rest,
    open,
  };
}

function checksum(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Crc32c.finish(new Crc32c().update(Crc32c.start, view, 0, bytes.length));
}

function writeOpenRecord(writer: ByteWriter, open: OpenRecord | undefined): void {
  writer.u32(open?.pendingBytes ?? 0);
  if (open === undefined) return;
  writer.u32(open.crc >>> 0);
  writer.lengthAndBytes(open.head);
  writer.lengthAndBytes(open.kept ?? open.head);
}

function readOpenRecord(reader: ByteReader): OpenRecord | undefined {
  const pendingBytes = reader.u32();
  if (pendingBytes === 0) return undefined;
  const crc = reader.u32() | 0;
  const head = reader.lengthAndBytes();
  if (head.length > HEAD_BYTES_MAX)
    throw new FormatError(`change map with ${head.length} bytes of a header`);
  return { pendingBytes, crc, head, kept: reader.lengthAndBytes() };
}

/**
 * Each relation: tablespace, database, relfilenode, first block from which on all may have changed
 * plus 1 (0: none), number of ranges; each range: gap to the one before, length. LEB128.
 */
function writeChanges(writer: ByteWriter, changes: ChangedBlocks): void {
  const entries = [...changes.entries()];
  writer.varint(entries.length);
  for (const { tablespaceOid, databaseOid, relfilenode, changedFrom, blocks } of entries) {
    for (const oid of [tablespaceOid, databaseOid, relfilenode]) writer.varint(oid);
    writer.varint(changedFrom === undefined ? 0 : changedFrom + 1);
    const ranges = [...blocks.ranges()];
    writer.varint(ranges.length);
    let end = 0;
    for (const range of ranges) {
      writer.varint(range.start - end);
      writer.varint(range.end - range.start);
      end = range.end;
    }
  }
}

function readChanges(reader: ByteReader, blocksMax: number): ChangedBlocks {
  let blockCount = 0;
  const changes = new ChangedBlocks();
  for (let left = reader.varint(); left > 0; left -= 1) {
    const place = {
      tablespaceOid: reader.varint(),
      databaseOid: reader.varint(),
      relfilenode: reader.varint(),
      fork: "main",
    } as const;
    const limit = reader.varint();
    if (place.relfilenode === 0) changes.replaceDatabase(place.tablespaceOid, place.databaseOid);
    else if (limit > 0) changes.cutFork(place, limit - 1);
    let end = 0;
    for (let ranges = reader.varint(); ranges > 0; ranges -= 1) {
      const start = end + reader.varint();
      end = start + reader.varint();
      if (end <= start || end > BLOCK_LIMIT) {
        throw new FormatError(`change map with blocks ${start} to ${end}`);
      }
      blockCount += end - start;
      if (blockCount > blocksMax) throw new FormatError(`change map with ${blockCount} blocks`);
      changes.addRange(place, { start, end });
    }
  }
  return changes;
}
