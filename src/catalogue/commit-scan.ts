import { FormatError } from "../errors.ts";
import { formatLsn, type Lsn, lsn } from "../postgres/lsn.ts";
import { RecordDecoder } from "../postgres/record-decoder.ts";
import {
  parseTransactionEnd,
  RMGR_TRANSACTION,
  timestampNs,
  type TransactionEnd,
} from "../postgres/transaction-end.ts";
import { LONG_HEADER_BYTES, SHORT_HEADER_BYTES } from "../postgres/wal-page.ts";
import type { RecordSink } from "../postgres/wal-record-scan.ts";
import type { SegmentHeader } from "../postgres/wal-segment.ts";

/** One commit or abort, and where it stands. */
export interface PlacedEnd extends TransactionEnd {
  /** Where its record begins: recovery_target_lsn with recovery_target_inclusive. */
  readonly lsn: Lsn;
  /** When it ended, by the server's clock; nanoseconds since 1970. */
  readonly timeNs: bigint;
}

/** Where a commit stands. */
export interface CommitPoint {
  readonly lsn: Lsn;
  readonly timeNs: bigint;
  readonly xid: number;
}

/** What was found of the commits whose records end in one segment. */
export interface CommitSummary {
  readonly count: number;
  readonly first: CommitPoint | undefined;
  readonly last: CommitPoint | undefined;
  /** Latest time of any: clocks may go back. */
  readonly latestNs: bigint | undefined;
  /** How many of them remove files of relations. */
  readonly removingCount: number;
}

/**
 * Sees every commit and abort of a segment on its way through a WalWalker. The record that the
 * segment before began counts here, if the walker knows its beginning.
 */
export class CommitScan implements RecordSink {
  readonly #onEnd: (end: PlacedEnd) => void;
  #header: SegmentHeader | undefined;
  #decoder: RecordDecoder | undefined;
  #count = 0;
  #first: CommitPoint | undefined;
  #last: CommitPoint | undefined;
  #latestNs: bigint | undefined;
  #removingCount = 0;

  /** `header` is asked when the first record comes: a walker knows it by then. */
  constructor(onEnd: (end: PlacedEnd) => void = () => {}) {
    this.#onEnd = onEnd;
  }

  /** To be told before the first record is. */
  begin(header: SegmentHeader): void {
    this.#header = header;
    this.#decoder = new RecordDecoder({ majorVersion: header.majorVersion });
  }

  get summary(): CommitSummary {
    return {
      count: this.#count,
      first: this.#first,
      last: this.#last,
      latestNs: this.#latestNs,
      removingCount: this.#removingCount,
    };
  }

  keptBytes(head: DataView): number {
    return head.getUint8(17) === RMGR_TRANSACTION ? head.getUint32(0, true) : 0;
  }

  rest(): void {}

  record(view: DataView, at: number, start: number): void {
    if (view.byteLength - at < SHORT_HEADER_BYTES) return;
    if (view.getUint8(at + 17) !== RMGR_TRANSACTION) return;
    const header = this.#header;
    const decoder = this.#decoder;
    if (header === undefined || decoder === undefined) return;
    const end = decodeEnd(decoder, { view, at, majorVersion: header.majorVersion });
    if (end === undefined) return;
    const offset = start >= 0 ? start : startBefore(header, view.getUint32(at, true));
    const placed = {
      ...end,
      lsn: lsn(header.startLsn + BigInt(offset)),
      timeNs: timestampNs(end.atUs),
    };
    if (end.kind === "commit") this.#note(placed);
    this.#onEnd(placed);
  }

  #note({ lsn: at, timeNs, xid, removedFiles }: PlacedEnd): void {
    const point = { lsn: at, timeNs, xid };
    this.#count += 1;
    if (removedFiles.length > 0) this.#removingCount += 1;
    this.#first ??= point;
    this.#last = point;
    if (this.#latestNs === undefined || timeNs > this.#latestNs) this.#latestNs = timeNs;
  }
}

function decodeEnd(
  decoder: RecordDecoder,
  { view, at, majorVersion }: { view: DataView; at: number; majorVersion: number },
): TransactionEnd | undefined {
  try {
    decoder.decode(view, at);
    const { info, xid, mainData } = decoder;
    return parseTransactionEnd({ info, xid, mainData, majorVersion });
  } catch (error) {
    // Its CRC was right: it is a record that we do not know, and none that is damaged.
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** Offset, below 0, at which a record began that this segment continues. */
function startBefore(header: SegmentHeader, lengthBytes: number): number {
  const { pageBytes, segmentBytes } = header;
  let left = lengthBytes - header.continuationBytes;
  for (let pageEnd = 0; pageEnd > -segmentBytes; pageEnd -= pageBytes) {
    const isFirst = pageEnd - pageBytes === -segmentBytes;
    const room = pageBytes - (isFirst ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES);
    if (left <= room) return pageEnd - left;
    left -= room;
  }
  throw new FormatError(
    `record of ${lengthBytes} bytes before ${formatLsn(header.startLsn)} is longer than a segment`,
  );
}
