import { StorageError } from "../errors.ts";
import type { ByteRange, ObjectKey } from "./storage.ts";

/**
 * Names of half-written files of the directory and SFTP stores, WAL-G's and ours: never objects.
 */
const TEMPORARY_NAME = /\.tmp\.\d{8}T\d{6}Z-[0-9a-f]{16}$/;

/** "x.zst.tmp.20261121T064500Z-00c0ffee00c0ffee": a name beside "x.zst" that no list shows. */
export function formatTemporaryName(name: string, atMs: number, random: string): string {
  const time = new Date(atMs).toISOString().replace(/[-:]|\.\d+/g, "");
  return `${name}.tmp.${time}-${random}`;
}

/** Whether a file of this name is a half-written one. */
export function isTemporaryName(name: string): boolean {
  return TEMPORARY_NAME.test(name);
}

/** Takes the name of a half-written file apart; undefined for any other name. */
export function temporaryNameParts(
  name: string,
): { readonly name: string; readonly startedAt: Date } | undefined {
  const match = /^(.+)\.tmp\.(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-[0-9a-f]{16}$/.exec(name);
  if (match === null) return undefined;
  const [, final = "", ...digits] = match;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = digits.map(Number);
  const startedAt = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  return { name: final, startedAt };
}

/** Why a key can't be stored everywhere, or undefined if it can. */
function keyProblem(key: ObjectKey): string | undefined {
  if (key === "") return "it is empty";
  if (key.includes("\0")) return "it holds a NUL";
  if (!key.isWellFormed()) return "it is not valid Unicode";
  for (const segment of key.split("/")) {
    if (segment === "") return "it has an empty segment";
    if (segment === "." || segment === "..") return `it has the segment ${segment}`;
    if (isTemporaryName(segment)) return "it looks like a temporary file";
  }
  return undefined;
}

/** Whether an object may have this key. */
export function isValidKey(key: ObjectKey): boolean {
  return keyProblem(key) === undefined;
}

/** Throws StorageError for a key that no object may be stored under. */
export function requireValidKey(key: ObjectKey): void {
  const problem = keyProblem(key);
  if (problem === undefined) return;
  throw new StorageError(`object key ${JSON.stringify(key)} is refused: ${problem}`, {
    isRetryable: false,
  });
}

/** Throws RangeError: a bad range is a bug of the caller. */
export function requireValidRange(range: ByteRange): void {
  const { start, end = start } = range;
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end < start) {
    throw new RangeError(`not a byte range: [${start}, ${range.end})`);
  }
}

/**
 * Compares keys by their UTF-8 bytes: negative if `left` comes first. JavaScript's own order
 * differs where characters beyond U+FFFF (two UTF-16 units) meet U+E000 to U+FFFF.
 */
export function compareKeys(left: ObjectKey, right: ObjectKey): number {
  const length = Math.min(left.length, right.length);
  for (let index = 0; index < length; index++) {
    const a = left.charCodeAt(index);
    const b = right.charCodeAt(index);
    if (a !== b) return byteRank(a) - byteRank(b);
  }
  return left.length - right.length;
}

/** Moves surrogates (parts of characters beyond U+FFFF) behind all other units. */
function byteRank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}
