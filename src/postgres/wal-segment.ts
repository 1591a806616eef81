import { FormatError, TruncatedError } from "../errors.ts";
import { formatLsn, type Lsn } from "./lsn.ts";
import { parseSegmentName, parseWalFileName, segmentStart } from "./wal-file.ts";
import { LONG_HEADER_BYTES, parseWalPageHeader } from "./wal-page.ts";

/** How many bytes of a segment `checkSegmentStart` needs. */
export const SEGMENT_HEADER_BYTES = LONG_HEADER_BYTES;

/** How many bytes of a segment `beginsAnew` needs: up to the header of its first record. */
export const SEGMENT_START_BYTES = LONG_HEADER_BYTES + 24;

/** xl_prev, src/include/access/xlogrecord.h */
const RECORD_PREVIOUS = 8;

/** What the first bytes of a segment tell about it and its cluster. */
export interface SegmentHeader {
  /** As in WalPageHeader; what all pages of this segment must agree with. */
  readonly magic: number;
  readonly knownFlags: number;
  readonly majorVersion: number;
  readonly systemId: bigint;
  readonly segmentBytes: number;
  readonly pageBytes: number;
  /** The timeline in the segment's name. */
  readonly timeline: number;
  /**
   * The timeline on which the first page was written. Lower than `timeline` when the new timeline
   * began inside this segment: PostgreSQL copies what came before into the new file unchanged.
   */
  readonly firstPageTimeline: number;
  readonly startLsn: Lsn;
  /** Bytes of the previous segment's last record with which this segment begins. */
  readonly continuationBytes: number;
}

/**
 * Checks that a file that begins with `firstPage` is the segment `name` ("X" or "X.partial").
 * `firstPage` needs the first 40 bytes only. Throws FormatError that tells what does not fit.
 */
export function checkSegmentStart(firstPage: Uint8Array, name: string): SegmentHeader {
  const file = parseWalFileName(name);
  if (file?.kind !== "segment" && file?.kind !== "partial") {
    throw new FormatError(`not the name of a WAL segment: ${JSON.stringify(name)}`);
  }
  if (firstPage.length < SEGMENT_HEADER_BYTES) {
    throw new TruncatedError(
      `WAL segment ${name} has ${firstPage.length} bytes, ` +
        `its header alone needs ${SEGMENT_HEADER_BYTES}`,
    );
  }
  const header = parseFirstPage(firstPage, name);

  const { timeline, segmentNumber } = parseSegmentName(name.slice(0, 24), header.segmentBytes);
  const startLsn = segmentStart(segmentNumber, header.segmentBytes);
  if (header.pageStart !== startLsn) {
    throw new FormatError(
      `WAL segment ${name} holds WAL from ${formatLsn(header.pageStart)} on, ` +
        `its name stands for ${formatLsn(startLsn)}`,
      {
        hint:
          "PostgreSQL renames old segments to reuse them: a segment that it has not filled yet " +
          "still holds what it held under its old name. Do not archive such a file.",
      },
    );
  }
  if (header.timeline > timeline) {
    throw new FormatError(
      `WAL segment ${name} was written on timeline ${header.timeline}, ` +
        `its name stands for timeline ${timeline}`,
    );
  }
  return {
    magic: header.magic,
    knownFlags: header.knownFlags,
    majorVersion: header.majorVersion,
    systemId: header.systemId,
    segmentBytes: header.segmentBytes,
    pageBytes: header.pageBytes,
    timeline,
    firstPageTimeline: header.timeline,
    startLsn,
    continuationBytes: header.continuationBytes,
  };
}

function parseFirstPage(firstPage: Uint8Array, name: string) {
  try {
    const header = parseWalPageHeader(firstPage);
    if (header.form === "long") return header;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new FormatError(`${name} is no WAL segment: ${error.message}`, { cause: error });
  }
  throw new FormatError(`${name} is no WAL segment: its first page has a short header`);
}

/**
 * Whether the WAL begins anew with this segment: its first record follows none. So it does behind
 * pg_resetwal; the segment with which initdb begins, number 1, counts as no such one.
 *
 * @source WriteEmptyXLOG, src/bin/pg_resetwal/pg_resetwal.c; BootStrapXLOG, xlog.c
 */
export function beginsAnew(
  start: Uint8Array,
  { startLsn, segmentBytes, continuationBytes }: SegmentHeader,
): boolean {
  if (start.length < SEGMENT_START_BYTES || continuationBytes > 0) return false;
  if (startLsn === BigInt(segmentBytes)) return false;
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const isRecord = view.getUint32(LONG_HEADER_BYTES, true) > 0;
  return isRecord && view.getBigUint64(LONG_HEADER_BYTES + RECORD_PREVIOUS, true) === 0n;
}
