import { FormatError } from "../errors.ts";
import { type Lsn, lsn } from "./lsn.ts";

/**
 * A file that PostgreSQL hands to archive_command or asks restore_command for, by its name alone.
 * `high` and `low` are the two numbers of a segment's name; which segment number they make depends
 * on the segment size: see `parseSegmentName`.
 */
export type WalFile =
  | {
      readonly kind: "segment";
      readonly name: string;
      readonly timeline: number;
      readonly high: number;
      readonly low: number;
    }
  | {
      /** The unfinished last segment of a timeline that ended; its first 24 digits as `segment`. */
      readonly kind: "partial";
      readonly name: string;
      readonly segment: string;
      readonly timeline: number;
      readonly high: number;
      readonly low: number;
    }
  | { readonly kind: "history"; readonly name: string; readonly timeline: number }
  | {
      /** Written at the end of a backup that began `startOffset` bytes into `segment`. */
      readonly kind: "backup-label";
      readonly name: string;
      readonly segment: string;
      readonly timeline: number;
      readonly startOffset: number;
    };

/** A segment of one timeline: segment `n` holds the bytes from n * segmentBytes on. */
export interface WalSegment {
  readonly timeline: number;
  readonly segmentNumber: bigint;
}

/** Smallest and largest wal_segment_size. @source WalSegMinSize, WalSegMaxSize, xlog_internal.h */
const SEGMENT_BYTES_MIN = 1024 * 1024;
const SEGMENT_BYTES_MAX = 1024 * 1024 * 1024;

const WAL_FILE_NAME =
  /^([0-9A-F]{8})(?:\.history|([0-9A-F]{8})([0-9A-F]{8})(\.partial|\.([0-9A-F]{8})\.backup)?)$/;

/**
 * Recognises the name of a WAL file as PostgreSQL does: upper case, nothing around it. Undefined
 * for every other name.
 *
 * @source IsXLogFileName and its neighbours, src/include/access/xlog_internal.h
 */
export function parseWalFileName(name: string): WalFile | undefined {
  const match = WAL_FILE_NAME.exec(name);
  if (match === null) return undefined;
  const [, timelineText = "", highText, lowText, suffix, offsetText] = match;
  const timeline = hex(timelineText);
  if (highText === undefined || lowText === undefined) return { kind: "history", name, timeline };

  const high = hex(highText);
  const low = hex(lowText);
  const segment = name.slice(0, 24);
  if (offsetText !== undefined) {
    return { kind: "backup-label", name, segment, timeline, startOffset: hex(offsetText) };
  }
  if (suffix !== undefined) return { kind: "partial", name, segment, timeline, high, low };
  return { kind: "segment", name, timeline, high, low };
}

/** "0000000A.history". @source TLHistoryFileName, src/include/access/xlog_internal.h */
export function formatHistoryName(timeline: number): string {
  return `${hex8(timeline)}.history`;
}

/** Whether PostgreSQL allows this wal_segment_size: a power of two from 1 MiB to 1 GiB. */
export function isSegmentSize(segmentBytes: number): boolean {
  return (
    segmentBytes >= SEGMENT_BYTES_MIN &&
    segmentBytes <= SEGMENT_BYTES_MAX &&
    Number.isInteger(Math.log2(segmentBytes))
  );
}

/**
 * The 24 digits of a segment.
 *
 * @source XLogFileName, src/include/access/xlog_internal.h
 */
export function formatSegmentName(
  timeline: number,
  segmentNumber: bigint,
  segmentBytes: number,
): string {
  const perHigh = segmentsPerHigh(segmentBytes);
  const high = segmentNumber / perHigh;
  if (segmentNumber < 0n || high > 0xffff_ffffn) {
    throw new RangeError(`no WAL segment of ${segmentBytes} bytes has number ${segmentNumber}`);
  }
  return hex8(timeline) + hex8(Number(high)) + hex8(Number(segmentNumber % perHigh));
}

/**
 * Reads the 24 digits of a segment. Throws FormatError for other names, for timeline 0, and for a
 * name that can't exist with this segment size (64 MiB: 0000000100000000 may be followed by
 * 00000000 to 0000003F only).
 *
 * @source XLogFromFileName, src/include/access/xlog_internal.h
 */
export function parseSegmentName(name: string, segmentBytes: number): WalSegment {
  const file = parseWalFileName(name);
  if (file?.kind !== "segment" || file.timeline === 0) {
    throw new FormatError(`not the name of a WAL segment: ${JSON.stringify(name)}`);
  }
  const perHigh = segmentsPerHigh(segmentBytes);
  const low = BigInt(file.low);
  if (low >= perHigh) {
    throw new FormatError(
      `no WAL segment of ${segmentBytes} bytes is named ${name}: ` +
        `its last 8 digits can be at most ${hex8(Number(perHigh) - 1)}`,
    );
  }
  return { timeline: file.timeline, segmentNumber: BigInt(file.high) * perHigh + low };
}

/** The segment that holds the byte at `position`. @source XLByteToSeg, xlog_internal.h */
export function segmentNumberOf(position: Lsn, segmentBytes: number): bigint {
  return position / BigInt(requireSegmentSize(segmentBytes));
}

/**
 * The segment that holds the last byte before `end`: what must be archived to have all up to `end`.
 * Throws RangeError for 0, which has nothing before it.
 *
 * @source XLByteToPrevSeg, src/include/access/xlog_internal.h
 */
export function segmentOfEnd(end: Lsn, segmentBytes: number): bigint {
  return segmentNumberOf(lsn(end - 1n), segmentBytes);
}

/** The position of the first byte of a segment. */
export function segmentStart(segmentNumber: bigint, segmentBytes: number): Lsn {
  return lsn(segmentNumber * BigInt(requireSegmentSize(segmentBytes)));
}

/** The name of the segment that follows on the same timeline. Throws like `parseSegmentName`. */
export function nextSegmentName(name: string, segmentBytes: number): string {
  const { timeline, segmentNumber } = parseSegmentName(name, segmentBytes);
  return formatSegmentName(timeline, segmentNumber + 1n, segmentBytes);
}

function segmentsPerHigh(segmentBytes: number): bigint {
  return (1n << 32n) / BigInt(requireSegmentSize(segmentBytes));
}

function requireSegmentSize(segmentBytes: number): number {
  if (!isSegmentSize(segmentBytes)) {
    throw new RangeError(`WAL segment size ${segmentBytes} is no power of two from 1 MiB to 1 GiB`);
  }
  return segmentBytes;
}

function hex(digits: string): number {
  return Number.parseInt(digits, 16);
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, "0");
}
