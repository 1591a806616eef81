import { FormatError } from "../errors.ts";

/** Headers are one block, contents whole blocks, the end of an archive two blocks of zeros. */
export const BLOCK_BYTES = 512;

/** Kinds of entries, and of headers that only extend the next one ("pax" and after). */
const KINDS = new Map<string, TarHeaderKind>([
  ["0", "file"],
  ["\0", "file"],
  ["7", "file"],
  ["1", "hardlink"],
  ["2", "symlink"],
  ["3", "character-device"],
  ["4", "block-device"],
  ["5", "directory"],
  ["6", "fifo"],
  ["x", "pax"],
  ["g", "pax-global"],
  ["L", "long-name"],
  ["K", "long-link"],
]);

export type TarHeaderKind =
  | "file"
  | "hardlink"
  | "symlink"
  | "character-device"
  | "block-device"
  | "directory"
  | "fifo"
  | "pax"
  | "pax-global"
  | "long-name"
  | "long-link";

/** What one header block says by itself. */
export interface TarHeader {
  readonly kind: TarHeaderKind;
  readonly name: string;
  readonly linkName: string;
  readonly mode: number;
  readonly sizeBytes: number;
  readonly modifiedAtSeconds: number;
}

const MODE_MASK = 0o7777;

/** Magic and version: POSIX, and GNU tar's own older form, which has no name prefix. */
const POSIX_MAGIC = "ustar\u000000";
const GNU_MAGIC = "ustar  \0";

const CHECKSUM_START = 148;
const CHECKSUM_END = 156;

export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/**
 * Reads a header block. `start` is its offset in the archive, for messages. Throws FormatError for
 * a wrong checksum, an unknown format or kind, and numbers that are none or too large.
 *
 * @source POSIX.1-2024, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"
 */
export function parseHeader(block: Uint8Array, start: number): TarHeader {
  requireChecksum(block, start);
  const magic = latin1(block.subarray(257, 265));
  if (magic !== POSIX_MAGIC && magic !== GNU_MAGIC) {
    throw new FormatError(`tar header at ${start} has the magic ${JSON.stringify(magic)}`);
  }
  const typeflag = latin1(block.subarray(156, 157));
  const kind = KINDS.get(typeflag);
  if (kind === undefined) {
    throw new FormatError(
      `tar header at ${start} has the unknown type ${JSON.stringify(typeflag)}`,
    );
  }
  const prefix = magic === POSIX_MAGIC ? text(block.subarray(345, 500), start) : "";
  const name = text(block.subarray(0, 100), start);
  return {
    kind,
    name: prefix === "" ? name : `${prefix}/${name}`,
    linkName: text(block.subarray(157, 257), start),
    mode: number(block.subarray(100, 108), { what: "mode", start }) & MODE_MASK,
    sizeBytes: number(block.subarray(124, 136), { what: "size", start }),
    modifiedAtSeconds: number(block.subarray(136, 148), {
      what: "time",
      start,
      isNegativeAllowed: true,
    }),
  };
}

/** Sum of all bytes of a header, its checksum field counted as blanks. */
export function headerChecksum(block: Uint8Array): number {
  let sum = 0x20 * (CHECKSUM_END - CHECKSUM_START);
  for (let index = 0; index < BLOCK_BYTES; index += 1) {
    if (index < CHECKSUM_START || index >= CHECKSUM_END) sum += block[index] ?? 0;
  }
  return sum;
}

function requireChecksum(block: Uint8Array, start: number): void {
  const field = block.subarray(CHECKSUM_START, CHECKSUM_END);
  const stored = number(field, { what: "checksum", start });
  const actual = headerChecksum(block);
  if (stored !== actual) {
    throw new FormatError(`tar header at ${start} has the checksum ${stored}, its bytes ${actual}`);
  }
}

interface NumberField {
  readonly what: string;
  readonly start: number;
  readonly isNegativeAllowed?: boolean;
}

/** Octal digits, blanks and NULs around them; or binary, marked by the highest bit. */
function number(field: Uint8Array, { what, start, isNegativeAllowed }: NumberField): number {
  const first = field[0] ?? 0;
  const value = (first & 0x80) === 0 ? octal(field) : binary(field);
  if (value === undefined || (value < 0 && isNegativeAllowed !== true)) {
    const shown = JSON.stringify(latin1(field));
    throw new FormatError(`tar header at ${start} has the ${what} ${shown}`);
  }
  return value;
}

function octal(field: Uint8Array): number | undefined {
  const match = /^ *([0-7]*)[ \0]*$/.exec(latin1(field));
  return match === null ? undefined : Number.parseInt(`0${match[1] ?? ""}`, 8);
}

/** Two's complement, big end first; the marker bit is the sign's. Undefined past 2^53. */
function binary(field: Uint8Array): number | undefined {
  const isNegative = field[0] === 0xff;
  if (!isNegative && field[0] !== 0x80) return undefined;
  let value = 0n;
  for (const byte of field.subarray(1)) value = value * 256n + BigInt(byte);
  if (isNegative) value -= 1n << BigInt(8 * (field.length - 1));
  const result = Number(value);
  return Number.isSafeInteger(result) ? result : undefined;
}

function text(field: Uint8Array, start: number): string {
  const end = field.indexOf(0);
  const bytes = end === -1 ? field : field.subarray(0, end);
  for (const byte of bytes) {
    if (byte >= 0x80) return decodeName(bytes, start);
  }
  return latin1(bytes);
}

/** Text of a name; `start` is the offset of its header, for the message. Throws FormatError. */
export function decodeName(bytes: Uint8Array, start: number): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new FormatError(`tar header at ${start} has a name that is not UTF-8`, { cause: error });
  }
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}
