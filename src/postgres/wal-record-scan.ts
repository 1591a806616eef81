import { Crc32c, type LongCrc32c } from "./crc32c.ts";
import {
  FLAG_CONTINUATION,
  FLAG_LONG_HEADER,
  FLAG_OVERWRITE,
  LONG_HEADER_BYTES,
  SHORT_HEADER_BYTES,
} from "./wal-page.ts";
import type { SegmentHeader } from "./wal-segment.ts";

/** SizeOfXLogRecord, src/include/access/xlogrecord.h */
const HEADER_BYTES = 24;
/** The CRC stands here; it covers the bytes behind the header, then the header up to here. */
const HEADER_CRC = 20;
/** MaxAllocSize: no release can replay a longer record. */
const RECORD_BYTES_MAX = 0x3fff_ffff;
/** Two pages: most records that cross a page's border need no more. */
const FIRST_KEPT_BYTES = 16_384;
/** MAXIMUM_ALIGNOF: each record begins at a multiple of it. */
const ALIGN = 8;
/** RM_XLOG_ID with XLOG_SWITCH, which stands under XLR_RMGR_INFO_MASK. */
const RMGR_XLOG = 0;
const INFO_SWITCH = 0x40;
const INFO_MASK = 0xf0;
/** RM_MAX_BUILTIN_ID, the same in 13 to 18. @source src/include/access/rmgrlist.h */
const RMGR_BUILTIN_MAX = 21;
/** RM_MIN_CUSTOM_ID: from 15 on extensions have their own. @source src/include/access/rmgr.h */
const RMGR_CUSTOM_MIN = 128;
const RMGR_CUSTOM_SINCE = 15;

/**
 * Why and where the records of a segment end.
 *
 * - "switch": the last record is a segment switch; what follows has no meaning.
 * - "segment-end": records reach to the end of the segment. One that continues in the next segment
 *   counts: its header was checked as far as it is here, its CRC can't be.
 * - "invalid": something else follows: nothing was written there yet, or it is damaged.
 */
export type WalEnd = "switch" | "segment-end" | "invalid";

/** A record that begins in one segment and continues in the next, as far as it was read. */
export interface OpenRecord {
  /** Bytes that are still to come, at least 1. */
  readonly pendingBytes: number;
  /** Running CRC-32C over what was read behind the header. */
  readonly crc: number;
  /** The first bytes of the record: its header, or what there is of that. */
  readonly head: Uint8Array;
  /** With a sink: the record's first bytes, as many as the sink wants of it, `head` included. */
  readonly kept?: Uint8Array;
}

/** Takes the records that a scan finds. Whatever it is given is overwritten after the call. */
export interface RecordSink {
  /**
   * A whole record with a correct CRC, from `view[at]` on. `start` is its offset in the segment,
   * -1 if it began in an earlier one. A record on one page is always there to its end, any other
   * as far as `keptBytes` asked for.
   */
  record(view: DataView, at: number, start: number): void;
  /** How much is wanted of a record that is on several pages, by its header at `head[0]`. */
  keptBytes(head: DataView): number;
  /** Bytes of a record whose beginning, in an earlier segment, is not known. */
  rest(view: DataView, from: number, to: number): void;
}

/**
 * Reads the pages of one segment in order and follows the records through them, with the checks of
 * PostgreSQL's crash recovery: page headers that fit their place, each record linked to the one
 * before, CRC-32C. All positions are byte offsets into the segment.
 *
 * @source XLogReadRecord and its callees, src/backend/access/transam/xlogreader.c
 */
export class WalRecordScan {
  /** See `WalWalk`, which takes over these. */
  endOfRecords = 0;
  recordCount = 0;
  end: WalEnd = "invalid";
  reason = "";
  isDone = false;

  readonly #segment: SegmentHeader;
  readonly #startHigh: number;
  readonly #startLow: number;
  readonly #crc: Crc32c;

  #pageOffset = 0;
  #pageTimeline: number;
  /** Start of the last complete record; -1 before the first that begins here. */
  #lastStart = -1;

  /** Bytes of the record in progress that later pages hold; 0 when none is in progress. */
  #pendingBytes: number;
  /** Where the record in progress began; -1 in an earlier segment. */
  #pendingStart = -1;
  /** Whether `#pendingCrc` covers the record in progress from its beginning. */
  #isCrcKnown = false;
  #pendingCrc = Crc32c.start;
  readonly #head = new DataView(new ArrayBuffer(HEADER_BYTES));
  #headFilled = 0;
  readonly #sink: RecordSink | undefined;
  readonly #kept = new KeptBytes();

  /** `previous` is what the segment before left open: this one must continue it, or void it. */
  constructor(
    segment: SegmentHeader,
    previous?: OpenRecord,
    sink?: RecordSink,
    longCrc?: LongCrc32c,
  ) {
    this.#segment = segment;
    this.#crc = new Crc32c(longCrc);
    this.#sink = sink;
    // A segment never crosses a multiple of 4 GiB, so that its high half is the same everywhere.
    this.#startHigh = Number(segment.startLsn >> 32n);
    this.#startLow = Number(segment.startLsn & 0xffff_ffffn);
    this.#pageTimeline = segment.firstPageTimeline;
    this.#pendingBytes = previous?.pendingBytes ?? segment.continuationBytes;
    if (previous !== undefined) {
      new Uint8Array(this.#head.buffer).set(previous.head);
      this.#headFilled = previous.head.length;
      this.#pendingCrc = previous.crc;
      this.#isCrcKnown = true;
      if (sink !== undefined) this.#kept.restore(requireKept(previous));
    }
  }

  /**
   * The record that the next segment continues; undefined if none, or if its begin is not known.
   */
  get openRecord(): OpenRecord | undefined {
    if (this.end !== "segment-end" || this.#pendingBytes === 0 || !this.#isCrcKnown) {
      return undefined;
    }
    const head = new Uint8Array(this.#head.buffer).slice(0, this.#headFilled);
    const kept = this.#sink === undefined ? {} : { kept: this.#kept.copy() };
    return { pendingBytes: this.#pendingBytes, crc: this.#pendingCrc, head, ...kept };
  }

  /**
   * Takes the next page, which is all of [at, at + pageBytes) of `view`. Only while not `isDone`.
   */
  readPage(view: DataView, at: number): void {
    const flags = view.getUint16(at + 2, true);
    const pageEnd = at + this.#segment.pageBytes;
    if (!this.#checkPageHeader(view, at, flags)) return;
    if ((flags & FLAG_OVERWRITE) !== 0) this.#pendingBytes = 0;

    let position = at + (this.#pageOffset === 0 ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES);
    if (this.#pendingBytes > 0) position = this.#continueRecord(view, position, pageEnd);
    if (!this.isDone) this.#readRecords(view, position, pageEnd);

    this.#pageOffset += this.#segment.pageBytes;
    if (!this.isDone && this.#pageOffset === this.#segment.segmentBytes) {
      this.endOfRecords = this.#pageOffset;
      this.#stop("segment-end", "");
    }
  }

  /** Tells that there are no more pages. */
  endOfInput(sizeBytes: number): void {
    if (!this.isDone) this.#stop("invalid", `the file ends after ${sizeBytes} bytes`);
  }

  #stop(end: WalEnd, reason: string): void {
    this.end = end;
    this.reason = reason;
    this.isDone = true;
  }

  #fail(what: string, offset: number): false {
    this.#stop("invalid", `${what} at offset ${offset}`);
    return false;
  }

  #checkPageHeader(view: DataView, at: number, flags: number): boolean {
    const offset = this.#pageOffset;
    const magic = view.getUint16(at, true);
    if (magic !== this.#segment.magic) {
      return this.#fail(
        magic === 0 ? "empty page" : `page with magic 0x${magic.toString(16)}`,
        offset,
      );
    }

    const isLong = (flags & FLAG_LONG_HEADER) !== 0;
    if ((flags & ~this.#segment.knownFlags) !== 0 || isLong !== (offset === 0)) {
      return this.#fail(`page with flags 0x${flags.toString(16)}`, offset);
    }
    const low = view.getUint32(at + 8, true);
    const high = view.getUint32(at + 12, true);
    if (low !== this.#startLow + offset || high !== this.#startHigh) {
      return this.#fail("page with another address", offset);
    }
    const timeline = view.getUint32(at + 4, true);
    if (timeline < this.#pageTimeline || timeline > this.#segment.timeline) {
      return this.#fail(`page of timeline ${timeline}`, offset);
    }
    this.#pageTimeline = timeline;

    const isContinuation = (flags & FLAG_CONTINUATION) !== 0;
    const isOverwrite = (flags & FLAG_OVERWRITE) !== 0;
    const expectedBytes = isOverwrite ? 0 : this.#pendingBytes;
    const continuationBytes = view.getUint32(at + 16, true);
    if (continuationBytes !== expectedBytes || isContinuation !== expectedBytes > 0) {
      return this.#fail(
        `page that continues a record by ${continuationBytes} bytes instead of ${expectedBytes}`,
        offset,
      );
    }
    return true;
  }

  /** Reads on in the record in progress; returns where the next one begins. */
  #continueRecord(view: DataView, position: number, pageEnd: number): number {
    const taken = Math.min(this.#pendingBytes, pageEnd - position);
    const end = position + taken;
    this.#pendingBytes -= taken;
    if (!this.#isCrcKnown) this.#sink?.rest(view, position, end);
    if (this.#isCrcKnown) {
      const wasFilled = this.#headFilled;
      const data = this.#fillHead(view, position, end);
      if (wasFilled < HEADER_BYTES && this.#headFilled === HEADER_BYTES) {
        if (!this.#checkRecordHeader(this.#head, 0, this.#pendingStart)) return end;
      }
      this.#keep(view, position, end);
      this.#pendingCrc = this.#crc.update(this.#pendingCrc, view, data, end);
    }
    if (this.#pendingBytes > 0) return end;

    const next = this.#aligned(end, pageEnd);
    const nextOffset = this.#pageOffset + this.#segment.pageBytes - (pageEnd - next);
    if (!this.#isCrcKnown) {
      this.endOfRecords = nextOffset;
      return next;
    }
    const start = this.#pendingStart;
    if (this.#checkCrc(this.#head, 0, this.#pendingCrc, start)) {
      this.#completeRecord(this.#head, 0, start, nextOffset);
      this.#sink?.record(this.#kept.view(), 0, start);
    }
    return next;
  }

  #readRecords(view: DataView, from: number, pageEnd: number): void {
    const toOffset = this.#pageOffset + this.#segment.pageBytes - pageEnd;
    let position = from;
    while (position < pageEnd && !this.isDone) {
      const start = position + toOffset;
      const lengthBytes = view.getUint32(position, true);
      if (lengthBytes < HEADER_BYTES || lengthBytes > RECORD_BYTES_MAX) {
        this.#fail(lengthBytes === 0 ? "no record" : `record of ${lengthBytes} bytes`, start);
        return;
      }
      const available = pageEnd - position;
      if (available >= HEADER_BYTES && !this.#checkRecordHeader(view, position, start)) return;
      if (lengthBytes > available) {
        this.#beginRecord(view, position, pageEnd);
        this.#pendingStart = start;
        this.#isCrcKnown = true;
        this.#pendingBytes = lengthBytes - available;
        return;
      }
      const end = position + lengthBytes;
      const crc = this.#crc.update(Crc32c.start, view, position + HEADER_BYTES, end);
      const next = this.#aligned(end, pageEnd);
      if (!this.#checkCrc(view, position, crc, start)) return;
      this.#completeRecord(view, position, start, next + toOffset);
      this.#sink?.record(view, position, start);
      position = next;
    }
  }

  #beginRecord(view: DataView, position: number, pageEnd: number): void {
    this.#headFilled = 0;
    const data = this.#fillHead(view, position, pageEnd);
    this.#pendingCrc = this.#crc.update(Crc32c.start, view, data, pageEnd);
    this.#kept.clear();
    this.#keep(view, position, pageEnd);
  }

  /** Keeps what the sink wants of bytes that stand behind those kept before. */
  #keep(view: DataView, from: number, to: number): void {
    if (this.#sink === undefined) return;
    // Until the header is whole, its own bytes are all there is to keep.
    if (this.#headFilled === HEADER_BYTES) this.#kept.limit = this.#sink.keptBytes(this.#head);
    this.#kept.add(view, from, to);
  }

  /** Collects the record's header, which may be split too; returns where its data goes on. */
  #fillHead(view: DataView, from: number, end: number): number {
    let position = from;
    for (; position < end && this.#headFilled < HEADER_BYTES; position += 1) {
      this.#head.setUint8(this.#headFilled, view.getUint8(position));
      this.#headFilled += 1;
    }
    return position;
  }

  /** @source ValidXLogRecordHeader, xlogreader.c */
  #checkRecordHeader(view: DataView, at: number, start: number): boolean {
    const rmgr = view.getUint8(at + 17);
    const isCustom = rmgr >= RMGR_CUSTOM_MIN && this.#segment.majorVersion >= RMGR_CUSTOM_SINCE;
    if (rmgr > RMGR_BUILTIN_MAX && !isCustom) {
      return this.#fail(`record of resource manager ${rmgr}`, start);
    }
    const low = view.getUint32(at + 8, true);
    const high = view.getUint32(at + 12, true);
    const isLinked =
      this.#lastStart >= 0
        ? high === this.#startHigh && low === this.#startLow + this.#lastStart
        : high < this.#startHigh || (high === this.#startHigh && low < this.#startLow);
    return isLinked || this.#fail("record that does not follow the one before it", start);
  }

  /** Adds the header's part to the CRC of the data, and compares. */
  #checkCrc(head: DataView, at: number, dataCrc: number, start: number): boolean {
    const crc = Crc32c.finish(this.#crc.update(dataCrc, head, at, at + HEADER_CRC));
    if (crc === head.getUint32(at + HEADER_CRC, true)) return true;
    if (start >= 0) return this.#fail("record with a wrong CRC", start);
    return this.#fail("end of a record of the previous segment with a wrong CRC", 0);
  }

  /** `next`: where the record behind it would start. */
  #completeRecord(head: DataView, at: number, start: number, next: number): void {
    this.#lastStart = start;
    this.endOfRecords = next;
    if (start >= 0) this.recordCount += 1;
    const isSwitch = (head.getUint8(at + 16) & INFO_MASK) === INFO_SWITCH;
    if (isSwitch && head.getUint8(at + 17) === RMGR_XLOG) this.#stop("switch", "");
  }

  /** Pages end at multiples of ALIGN in the segment, wherever they stand in the view. */
  #aligned(position: number, pageEnd: number): number {
    return position + ((pageEnd - position) % ALIGN);
  }
}

function requireKept({ kept }: OpenRecord): Uint8Array {
  if (kept === undefined) throw new RangeError("an open record of a walk without a sink");
  return kept;
}

/** The first bytes of a record that is on several pages. */
class KeptBytes {
  /** No more than so many. */
  limit = RECORD_BYTES_MAX;
  #bytes = new Uint8Array(FIRST_KEPT_BYTES);
  #length = 0;

  clear(): void {
    this.limit = RECORD_BYTES_MAX;
    this.#length = 0;
  }

  restore(bytes: Uint8Array): void {
    this.clear();
    this.add(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, bytes.length);
  }

  add(view: DataView, from: number, to: number): void {
    const taken = Math.min(to - from, this.limit - this.#length);
    if (taken <= 0) return;
    const needed = this.#length + taken;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(new Uint8Array(view.buffer, view.byteOffset + from, taken), this.#length);
    this.#length = needed;
  }

  view(): DataView {
    return new DataView(this.#bytes.buffer, 0, this.#length);
  }

  copy(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}
