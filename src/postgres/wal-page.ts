import { FormatError, TruncatedError } from "../errors.ts";
import { formatLsn, type Lsn, lsn } from "./lsn.ts";
import { isSegmentSize } from "./wal-file.ts";

/** Both sizes include the padding to 8 bytes (MAXALIGN) that the C compiler adds. */
export const SHORT_HEADER_BYTES = 24;
export const LONG_HEADER_BYTES = 40;

/** XLP_FIRST_IS_CONTRECORD: the page begins with the rest of a record. */
export const FLAG_CONTINUATION = 0x0001;
/** XLP_LONG_HEADER: first page of a segment. */
export const FLAG_LONG_HEADER = 0x0002;
/**
 * XLP_FIRST_IS_OVERWRITE_CONTRECORD: the rest of the record before this page was lost in a crash.
 */
export const FLAG_OVERWRITE = 0x0008;

/**
 * What each release writes, by XLOG_PAGE_MAGIC, with the flags it defines (XLP_ALL_FLAGS). A page
 * of zeros has magic 0: not here.
 *
 * @source src/include/access/xlog_internal.h of each release; 0x0008 came to 13 with 13.5
 */
const WAL_FORMATS: ReadonlyMap<number, { majorVersion: number; knownFlags: number }> = new Map([
  [0xd106, { majorVersion: 13, knownFlags: 0x000f }],
  [0xd10d, { majorVersion: 14, knownFlags: 0x000f }],
  [0xd110, { majorVersion: 15, knownFlags: 0x000f }],
  [0xd113, { majorVersion: 16, knownFlags: 0x000f }],
  [0xd116, { majorVersion: 17, knownFlags: 0x000f }],
  [0xd118, { majorVersion: 18, knownFlags: 0x000f }],
]);

interface WalPageHeaderFields {
  /** XLOG_PAGE_MAGIC: the same on all pages that one release writes. */
  readonly magic: number;
  /** XLP_ALL_FLAGS of the release: bits outside it are on none of its pages. */
  readonly knownFlags: number;
  readonly majorVersion: number;
  /** The timeline on which the page was begun; at most that of the file it stands in. */
  readonly timeline: number;
  readonly pageStart: Lsn;
  /** Bytes of a record begun on an earlier page that are still to come; 0 when there is none. */
  readonly continuationBytes: number;
  /** The record begun on the page before was lost in a crash and is not continued here. */
  readonly isOverwrite: boolean;
}

/** @source XLogPageHeaderData, src/include/access/xlog_internal.h */
export interface ShortWalPageHeader extends WalPageHeaderFields {
  readonly form: "short";
}

/** The first page of a segment. @source XLogLongPageHeaderData, xlog_internal.h */
export interface LongWalPageHeader extends WalPageHeaderFields {
  readonly form: "long";
  readonly systemId: bigint;
  /** wal_segment_size: a power of two from 1 MiB to 1 GiB. */
  readonly segmentBytes: number;
  /**
   * Size of each WAL page, a power of two from 1 KiB to 64 KiB; 8 KiB unless compiled otherwise.
   */
  readonly pageBytes: number;
}

export type WalPageHeader = ShortWalPageHeader | LongWalPageHeader;

/**
 * Reads the header of the page that begins at `page[0]`. Throws FormatError for everything that a
 * PostgreSQL of 13 to 18 does not write, TruncatedError when the header is not complete.
 *
 * PostgreSQL writes in the byte order of its machine; all supported servers are little-endian.
 */
export function parseWalPageHeader(page: Uint8Array): WalPageHeader {
  requireBytes(page, SHORT_HEADER_BYTES);
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);

  const magic = view.getUint16(0, true);
  const format = WAL_FORMATS.get(magic);
  if (format === undefined) {
    throw new FormatError(`not a WAL page of PostgreSQL 13 to 18: magic 0x${magic.toString(16)}`);
  }

  const flags = view.getUint16(2, true);
  const common = {
    magic,
    ...format,
    timeline: view.getUint32(4, true),
    pageStart: lsn(view.getBigUint64(8, true)),
    continuationBytes: view.getUint32(16, true),
    isOverwrite: (flags & FLAG_OVERWRITE) !== 0,
  };
  requirePlausible(common, flags);
  if ((flags & FLAG_LONG_HEADER) === 0) return { form: "short", ...common };

  requireBytes(page, LONG_HEADER_BYTES);
  const header = {
    form: "long",
    ...common,
    systemId: view.getBigUint64(24, true),
    segmentBytes: view.getUint32(32, true),
    pageBytes: view.getUint32(36, true),
  } as const;
  requireSizes(header);
  return header;
}

function requirePlausible(header: WalPageHeaderFields, flags: number): void {
  const at = formatLsn(header.pageStart);
  if ((flags & ~header.knownFlags) !== 0) {
    throw new FormatError(`WAL page at ${at} has unknown flags 0x${flags.toString(16)}`);
  }
  if (header.timeline === 0) throw new FormatError(`WAL page at ${at} has timeline 0`);

  const isContinuation = (flags & FLAG_CONTINUATION) !== 0;
  if (isContinuation !== header.continuationBytes > 0 || (isContinuation && header.isOverwrite)) {
    throw new FormatError(
      `WAL page at ${at} has flags 0x${flags.toString(16)} ` +
        `but ${header.continuationBytes} bytes of a continued record`,
    );
  }
}

function requireSizes({ pageStart, segmentBytes, pageBytes }: LongWalPageHeader): void {
  const at = formatLsn(pageStart);
  if (!isSegmentSize(segmentBytes)) {
    throw new FormatError(`WAL page at ${at} has segment size ${segmentBytes}`);
  }
  if (pageBytes < 1024 || pageBytes > 65_536 || (pageBytes & (pageBytes - 1)) !== 0) {
    throw new FormatError(`WAL page at ${at} has page size ${pageBytes}`);
  }
  if (pageStart % BigInt(segmentBytes) !== 0n) {
    throw new FormatError(
      `WAL page at ${at} has a long header but no segment of ${segmentBytes} bytes begins there`,
    );
  }
}

function requireBytes(page: Uint8Array, needed: number): void {
  if (page.length < needed) {
    throw new TruncatedError(`a WAL page header needs ${needed} bytes, got ${page.length}`);
  }
}
