import { TruncatedError } from "../errors.ts";
import { type Lsn, lsn } from "./lsn.ts";

/** SizeOfPageHeaderData, src/include/storage/bufpage.h */
export const DATA_PAGE_HEADER_BYTES = 24;
/** BLCKSZ unless compiled otherwise; pg_control tells. */
export const DEFAULT_BLOCK_BYTES = 8192;

const CHECKSUM_OFFSET = 8;
const UPPER_OFFSET = 14;
/** PD_VALID_FLAG_BITS, src/include/storage/bufpage.h */
const VALID_FLAGS = 0x0007;
/** PG_PAGE_LAYOUT_VERSION since 8.3. */
const LAYOUT_VERSION = 4;

/** The first 24 bytes of a data page. @source PageHeaderData, src/include/storage/bufpage.h */
export interface DataPageHeader {
  /** Behind the last WAL record that changed the page; 0 when none did. */
  readonly lsn: Lsn;
  /** 0 when the cluster has no data checksums; never 0 when it has. */
  readonly checksum: number;
  readonly flags: number;
  /** Free space is [lower, upper), the access method's own part [special, pageBytes). */
  readonly lower: number;
  readonly upper: number;
  readonly special: number;
  readonly pageBytes: number;
  readonly layoutVersion: number;
  /** Oldest transaction whose removal might free space here; 0 for none. */
  readonly pruneXid: number;
}

/** Reads the header of the page that begins at `page[0]`; judges nothing. */
export function parseDataPageHeader(page: Uint8Array): DataPageHeader {
  if (page.length < DATA_PAGE_HEADER_BYTES) {
    throw new TruncatedError(
      `a data page header needs ${DATA_PAGE_HEADER_BYTES} bytes, got ${page.length}`,
    );
  }
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const sizeAndVersion = view.getUint16(18, true);
  return {
    lsn: lsn((BigInt(view.getUint32(0, true)) << 32n) | BigInt(view.getUint32(4, true))),
    checksum: view.getUint16(CHECKSUM_OFFSET, true),
    flags: view.getUint16(10, true),
    lower: view.getUint16(12, true),
    upper: view.getUint16(UPPER_OFFSET, true),
    special: view.getUint16(16, true),
    pageBytes: sizeAndVersion & 0xff00,
    layoutVersion: sizeAndVersion & 0x00ff,
    pruneXid: view.getUint32(20, true),
  };
}

/**
 * Whether the page at `view[at]` was never written to: a file grows by such pages, which are zeros
 * and have neither LSN nor checksum. @source PageIsNew, src/include/storage/bufpage.h
 */
export function isNewDataPage(view: DataView, at: number): boolean {
  return view.getUint16(at + UPPER_OFFSET, true) === 0;
}

/**
 * Whether the header at `view[at]` is one that the server would accept, for a page that is not new.
 *
 * @source PageIsVerified, src/backend/storage/page/bufpage.c
 */
export function isPlausibleDataPage(view: DataView, at: number, pageBytes: number): boolean {
  const flags = view.getUint16(at + 10, true);
  const lower = view.getUint16(at + 12, true);
  const upper = view.getUint16(at + UPPER_OFFSET, true);
  const special = view.getUint16(at + 16, true);
  return (
    (flags & ~VALID_FLAGS) === 0 &&
    lower >= DATA_PAGE_HEADER_BYTES &&
    lower <= upper &&
    upper <= special &&
    special <= pageBytes &&
    special % 8 === 0 &&
    view.getUint16(at + 18, true) === (pageBytes | LAYOUT_VERSION)
  );
}

const LANES = 32;
const LANE_ROW_BYTES = LANES * 4;
/** FNV_PRIME, src/include/storage/checksum_impl.h */
export const FNV_PRIME = 16_777_619;

/** checksumBaseOffsets, src/include/storage/checksum_impl.h: one for each of the 32 lanes. */
export const CHECKSUM_BASE_OFFSETS = [
  0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c,
  0xf8d4474f, 0xe39eb970, 0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb,
  0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de, 0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4,
  0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e, 0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756,
] as const;

/** Computes data checksums, of any number of pages. @source src/include/storage/checksum_impl.h */
export class DataPageChecksum {
  readonly #pageBytes: number;
  readonly #base = Int32Array.from(CHECKSUM_BASE_OFFSETS);
  readonly #sums = new Int32Array(LANES);

  constructor(pageBytes = DEFAULT_BLOCK_BYTES) {
    this.#pageBytes = pageBytes;
  }

  /**
   * The checksum that the page at `view[at]` should hold as block `blockNumber` of its relation's
   * fork, counted over all relation segments: 1 to 65535.
   *
   * @source pg_checksum_page, src/include/storage/checksum_impl.h
   */
  compute(view: DataView, at: number, blockNumber: number): number {
    const sums = this.#sums;
    sums.set(this.#base);
    const end = at + this.#pageBytes;
    // The checksum's own two bytes count as zeros.
    mix(sums, 0, view.getInt32(at, true));
    mix(sums, 1, view.getInt32(at + 4, true));
    mix(sums, 2, view.getInt32(at + CHECKSUM_OFFSET, true) & ~0xffff);
    for (let lane = 3; lane < LANES; lane += 1) mix(sums, lane, view.getInt32(at + lane * 4, true));
    for (let row = at + LANE_ROW_BYTES; row < end; row += LANE_ROW_BYTES) {
      for (let lane = 0; lane < LANES; lane += 1) {
        mix(sums, lane, view.getInt32(row + lane * 4, true));
      }
    }
    let folded = blockNumber;
    for (let lane = 0; lane < LANES; lane += 1) {
      mix(sums, lane, 0);
      mix(sums, lane, 0);
      folded ^= sums[lane] ?? 0;
    }
    return ((folded >>> 0) % 65_535) + 1;
  }

  /** Whether the page holds the checksum that it should; a checksum of 0 never matches. */
  matches(view: DataView, at: number, blockNumber: number): boolean {
    return view.getUint16(at + CHECKSUM_OFFSET, true) === this.compute(view, at, blockNumber);
  }
}

/** The checksum of one page that is all of `page`; who checks many keeps a DataPageChecksum. */
export function pageChecksum(page: Uint8Array, blockNumber: number): number {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  return new DataPageChecksum(page.length).compute(view, 0, blockNumber);
}

/** CHECKSUM_COMP, checksum_impl.h */
function mix(sums: Int32Array, lane: number, value: number): void {
  const mixed = (sums[lane] ?? 0) ^ value;
  sums[lane] = Math.imul(mixed, FNV_PRIME) ^ (mixed >>> 17);
}
