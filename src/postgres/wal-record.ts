import type { LongCrc32c } from "./crc32c.ts";
import { type OpenRecord, type RecordSink, type WalEnd, WalRecordScan } from "./wal-record-scan.ts";
import { checkSegmentStart, SEGMENT_HEADER_BYTES, type SegmentHeader } from "./wal-segment.ts";

/** What a walk over a segment found. */
export interface WalWalk {
  readonly header: SegmentHeader;
  /**
   * Offset behind the last valid record, rounded up to 8 bytes as PostgreSQL does: the next record
   * would begin there. The segment's size when the last record continues in the next segment. 0
   * when nothing valid was found, not even the rest of the previous segment's record.
   */
  readonly endOfRecords: number;
  readonly end: WalEnd;
  /** Why the walk ended there ("record with a wrong CRC at offset 1024"); "" unless "invalid". */
  readonly reason: string;
  /** Records that lie completely in this segment; the CRC of each was correct. */
  readonly recordCount: number;
  /** Bytes pushed, the whole file; a complete segment has `header.segmentBytes`. */
  readonly sizeBytes: number;
}

/** Walks a segment that is in memory; see WalWalker. */
export function walkSegment(bytes: Uint8Array, options: { readonly name: string }): WalWalk {
  const walker = new WalWalker(options.name);
  walker.push(bytes);
  return walker.finish();
}

/**
 * Finds where the valid records of a segment end, from chunks of any length. Holds one page.
 *
 * Two things can't be checked with one segment alone: the CRC of the record that the previous
 * segment began, and the CRC of the one that continues in the next.
 */
export class WalWalker {
  readonly #name: string;
  readonly #previous: OpenRecord | undefined;
  readonly #sink: RecordSink | undefined;
  readonly #longCrc: LongCrc32c | undefined;
  /** The beginning of a page of which the rest has not been pushed yet. */
  #page = new Uint8Array(SEGMENT_HEADER_BYTES);
  #filled = 0;
  #sizeBytes = 0;
  #segment: { readonly header: SegmentHeader; readonly scan: WalRecordScan } | undefined;

  /**
   * `name` is "X" or "X.partial"; the segment must be that one. `previous` is the `openRecord` of
   * the segment before: with it, the CRC of the record that this one continues is checked as well.
   * `sink` is given every record on the way. `longCrc` makes the sums of long records faster.
   */
  constructor(name: string, previous?: OpenRecord, sink?: RecordSink, longCrc?: LongCrc32c) {
    this.#name = name;
    this.#previous = previous;
    this.#sink = sink;
    this.#longCrc = longCrc;
  }

  /** After `finish`: the record that the next segment continues, if there is one. */
  get openRecord(): OpenRecord | undefined {
    return this.#segment?.scan.openRecord;
  }

  /** The segment's header, once its first 40 bytes have been pushed. */
  get header(): SegmentHeader | undefined {
    return this.#segment?.header;
  }

  /**
   * Whether the records have ended in what was pushed: nothing behind it can change what was found.
   */
  get isDone(): boolean {
    return this.#segment?.scan.isDone === true;
  }

  /**
   * Throws FormatError when the segment's start does not fit its name. Keeps no part of `chunk`.
   */
  push(chunk: Uint8Array): void {
    this.#sizeBytes += chunk.length;
    let at = 0;
    while (at < chunk.length && this.#segment?.scan.isDone !== true) {
      const taken = this.#filled === 0 ? this.#readWholePages(chunk, at) : 0;
      at += taken > 0 ? taken : this.#fillPage(chunk, at);
    }
  }

  /** Call once, after the last chunk. Throws FormatError when there was no segment header. */
  finish(): WalWalk {
    const { header, scan } = this.#segment ?? this.#start();
    scan.endOfInput(this.#sizeBytes);
    return {
      header,
      endOfRecords: scan.endOfRecords,
      end: scan.end,
      reason: scan.reason,
      recordCount: scan.recordCount,
      sizeBytes: this.#sizeBytes,
    };
  }

  #start() {
    const header = checkSegmentStart(this.#page.subarray(0, this.#filled), this.#name);
    const scan = new WalRecordScan(header, this.#previous, this.#sink, this.#longCrc);
    this.#segment = { header, scan };
    const page = new Uint8Array(header.pageBytes);
    page.set(this.#page);
    this.#page = page;
    return this.#segment;
  }

  /** Returns how many bytes of `chunk` it took. */
  #readWholePages(chunk: Uint8Array, from: number): number {
    if (this.#segment === undefined) return 0;
    const { header, scan } = this.#segment;
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let at = from;
    while (chunk.length - at >= header.pageBytes && !scan.isDone) {
      scan.readPage(view, at);
      at += header.pageBytes;
    }
    return at - from;
  }

  /** Returns how many bytes of `chunk` it took. */
  #fillPage(chunk: Uint8Array, from: number): number {
    const taken = Math.min(this.#page.length - this.#filled, chunk.length - from);
    this.#page.set(chunk.subarray(from, from + taken), this.#filled);
    this.#filled += taken;
    if (this.#filled === this.#page.length) {
      if (this.#segment === undefined) this.#start();
      else this.#readPage(this.#segment.scan);
    }
    return taken;
  }

  #readPage(scan: WalRecordScan): void {
    this.#filled = 0;
    scan.readPage(new DataView(this.#page.buffer), 0);
  }
}
