import { FormatError } from "../errors.ts";

/** The records of an extended header that we know; what is absent was not set. */
export interface PaxRecords {
  readonly path?: string;
  readonly linkPath?: string;
  readonly sizeBytes?: number;
  /** Seconds since 1970, with a fraction. */
  readonly modifiedAtSeconds?: number;
}

const LENGTH_DIGITS_MAX = 10;
const BLANK = 0x20;
const LINE_END = 0x0a;

/**
 * Reads the content of an extended header: lines `<length> <key>=<value>\n`, the length counted in
 * bytes with itself. Other keys are passed over, but for sparse files, which are stored
 * differently. `start` is the offset of the header, for messages. Throws FormatError.
 *
 * @source POSIX.1-2024, pax, "pax Extended Header"
 */
export function parsePaxRecords(bytes: Uint8Array, start: number): PaxRecords {
  const records: { -readonly [Key in keyof PaxRecords]: PaxRecords[Key] } = {};
  let at = 0;
  while (at < bytes.length) {
    const length = recordLength(bytes, at);
    const end = at + length;
    if (length === 0 || end > bytes.length || bytes[end - 1] !== LINE_END) {
      throw wrong(start, `a record at ${at} without a right length`);
    }
    const { key, value } = parseRecord(bytes.subarray(at, end - 1), start);
    if (key === "path") records.path = nameOf(value, start);
    else if (key === "linkpath") records.linkPath = nameOf(value, start);
    else if (key === "size") records.sizeBytes = sizeOf(value, start);
    else if (key === "mtime") records.modifiedAtSeconds = timeOf(value, start);
    else if (key.startsWith("GNU.sparse.")) throw wrong(start, "a sparse file");
    at = end;
  }
  return records;
}

/** 0 if there is no number. */
function recordLength(bytes: Uint8Array, at: number): number {
  let length = 0;
  for (let index = at; index < at + LENGTH_DIGITS_MAX; index += 1) {
    const byte = bytes[index] ?? 0;
    if (byte === BLANK) return length;
    if (byte < 0x30 || byte > 0x39) return 0;
    length = length * 10 + (byte - 0x30);
  }
  return 0;
}

function parseRecord(record: Uint8Array, start: number): { key: string; value: string } {
  let line: string;
  try {
    line = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(record);
  } catch (error) {
    throw new FormatError(`extended tar header at ${start} is not UTF-8`, { cause: error });
  }
  const text = line.slice(line.indexOf(" ") + 1);
  const equals = text.indexOf("=");
  if (equals <= 0) throw wrong(start, `the record ${JSON.stringify(text.slice(0, 80))}`);
  return { key: text.slice(0, equals), value: text.slice(equals + 1) };
}

function nameOf(value: string, start: number): string {
  if (value === "" || value.includes("\0")) {
    throw wrong(start, `the name ${JSON.stringify(value.slice(0, 80))}`);
  }
  return value;
}

function sizeOf(value: string, start: number): number {
  const size = /^\d+$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(size)) throw wrong(start, `the size ${JSON.stringify(value)}`);
  return size;
}

function timeOf(value: string, start: number): number {
  if (!/^-?\d+(?:\.\d*)?$/.test(value)) throw wrong(start, `the time ${JSON.stringify(value)}`);
  return Number(value);
}

function wrong(start: number, what: string): FormatError {
  return new FormatError(`extended tar header at ${start} has ${what}`);
}
