import { FormatError } from "../errors.ts";

declare const lsnBrand: unique symbol;

/**
 * A log sequence number: the byte position in the WAL stream, counted from the start of the
 * cluster. 0 is PostgreSQL's "no position" (InvalidXLogRecPtr); no record stands there.
 *
 * @source XLogRecPtr, src/include/access/xlogdefs.h
 */
export type Lsn = bigint & { readonly [lsnBrand]: true };

const LSN_LIMIT = 1n << 64n;
const LSN_TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

function isLsn(position: bigint): position is Lsn {
  return position >= 0n && position < LSN_LIMIT;
}

/** Takes a position as an Lsn. Throws RangeError when it does not fit in 64 unsigned bits. */
export function lsn(position: bigint): Lsn {
  if (!isLsn(position)) throw new RangeError(`LSN ${position} does not fit in 64 bits`);
  return position;
}

/**
 * Reads "16/B374D848", with or without leading zeros (PostgreSQL 19 writes them), in either case.
 *
 * @source pg_lsn_in_internal, src/backend/utils/adt/pg_lsn.c
 */
export function parseLsn(text: string): Lsn {
  const match = LSN_TEXT.exec(text);
  if (match === null) throw new FormatError(`not an LSN: ${JSON.stringify(text)}`);
  return lsn((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`));
}

/**
 * Writes "16/B374D848", as PostgreSQL up to 18 does: upper case, no leading zeros.
 *
 * @source LSN_FORMAT_ARGS, src/include/access/xlogdefs.h
 */
export function formatLsn(position: Lsn): string {
  const high = (position >> 32n).toString(16);
  const low = (position & 0xffff_ffffn).toString(16);
  return `${high}/${low}`.toUpperCase();
}
