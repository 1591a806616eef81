import { FormatError, TruncatedError } from "../errors.ts";
import { type BackupName, isBackupName } from "./backup-name.ts";
import { Fields } from "./fields.ts";
import { formatJson, parseJson } from "./json.ts";
import { jsonObject } from "./json-value.ts";
import { parseRow } from "./manifest-row.ts";

/** Checksum of each file: hex, 16 digits for xxh64 (seed 0), 64 for sha256. */
export type ManifestHash = "xxh64" | "sha256";

/** First line of our manifest. */
export interface ManifestHeader {
  readonly kind: "header";
  readonly backup: BackupName;
  readonly systemId: bigint;
  readonly hash: ManifestHash;
  readonly startLsn: bigint;
  /** Whether the cluster had data checksums; absent where nobody recorded it. */
  readonly hasChecksums?: boolean | undefined;
  /** Increments only: the backup that what is missing here has to be taken from. */
  readonly base?: BackupName | undefined;
}

/** A tar object of the backup; `name` is the last component of its key. */
export interface ManifestPart {
  readonly kind: "part";
  readonly name: string;
  /** As stored. */
  readonly sizeBytes: number;
  /** Of the tar, before compression. */
  readonly plainBytes: number;
  /** XXH64 of the stored bytes, 16 hex digits. */
  readonly xxh64: string;
}

/** A regular file, by its tar entry's name: "/base/5/1259", and "backup_label" without slash. */
export interface ManifestFile {
  readonly kind: "file";
  readonly name: string;
  readonly sizeBytes: number;
  /** Permission bits. */
  readonly mode: number;
  /** Nanoseconds since 1970; 0 for what we made ourselves. */
  readonly mtimeNs: bigint;
  /** Of the content, in the header's hash. */
  readonly hash: string;
  readonly part: string;
  /** Where the content begins in the uncompressed tar. */
  readonly offsetBytes: number;
  /** Only where the content is an increment: size of the file that it makes of the base's. */
  readonly fullBytes?: number | undefined;
  /** Pages with a wrong checksum in it; absent when there are none or nobody looked. */
  readonly corruptPages?: number | undefined;
}

/** A regular file that is as it was in the base; no part of this backup holds it. */
export interface ManifestUnchanged {
  readonly kind: "unchanged";
  readonly name: string;
  readonly sizeBytes: number;
  /** Permission bits, as they are now. */
  readonly mode: number;
  readonly mtimeNs: bigint;
  /** Of the whole file, in the header's hash; absent where only increments of it were hashed. */
  readonly hash?: string | undefined;
}

/**
 * A database when the backup began. Two databases with equal oid and xmin are one and the same; a
 * file of another one may have the same name and older pages.
 */
export interface ManifestDatabase {
  readonly kind: "database";
  readonly oid: number;
  /** The transaction that wrote its row in pg_database. */
  readonly xmin: number;
}

export interface ManifestDirectory {
  readonly kind: "directory";
  readonly name: string;
  readonly mode: number;
}

/** A symbolic link that is no tablespace's. */
export interface ManifestLink {
  readonly kind: "link";
  readonly name: string;
  readonly target: string;
}

/** Last line; without it the manifest is cut off. */
export interface ManifestEnd {
  readonly kind: "end";
  readonly fileCount: number;
  readonly partCount: number;
  /** Content of all files. */
  readonly sizeBytes: number;
  /** Lines of unchanged files; absent = none. */
  readonly unchangedCount?: number | undefined;
}

/** What may stand between header and end, in any order. */
export type ManifestEntry =
  | ManifestPart
  | ManifestFile
  | ManifestUnchanged
  | ManifestDirectory
  | ManifestLink
  | ManifestDatabase;

export type ManifestLine = ManifestHeader | ManifestEntry | ManifestEnd;

const FORMAT_VERSION = 1;
const HASH_DIGITS = { xxh64: 16, sha256: 64 } as const;
const MAX_LINE_BYTES = 64 * 1024;
const MODE_MASK = 0o7777;
/** What of a wrong line is shown. */
const SHOWN_LENGTH = 200;

/** One line with its line end. */
export function formatManifestLine(line: ManifestLine): string {
  return `${formatLine(line)}\n`;
}

function formatLine(line: ManifestLine): string {
  return line.kind === "header" ? formatHeader(line) : JSON.stringify(bodyOf(line));
}

function bodyOf(line: ManifestEntry | ManifestEnd): object {
  if (line.kind === "file") {
    return {
      file: line.name,
      size: line.sizeBytes,
      mode: line.mode,
      mtime: line.mtimeNs.toString(),
      hash: line.hash,
      part: line.part,
      at: line.offsetBytes,
      full: line.fullBytes,
      bad: line.corruptPages,
    };
  }
  if (line.kind === "unchanged") {
    return {
      same: line.name,
      size: line.sizeBytes,
      mode: line.mode,
      mtime: line.mtimeNs.toString(),
      hash: line.hash,
    };
  }
  if (line.kind === "database") return { database: line.oid, xmin: line.xmin };
  if (line.kind === "part") {
    return { part: line.name, size: line.sizeBytes, plain: line.plainBytes, xxh64: line.xxh64 };
  }
  if (line.kind === "directory") return { dir: line.name, mode: line.mode };
  if (line.kind === "link") return { link: line.name, to: line.target };
  return {
    end: true,
    files: line.fileCount,
    parts: line.partCount,
    bytes: line.sizeBytes,
    same: line.unchangedCount,
  };
}

function formatHeader(header: ManifestHeader): string {
  return formatJson(
    jsonObject([
      ["walnut", BigInt(FORMAT_VERSION)],
      ["backup", header.backup],
      ["system_identifier", header.systemId],
      ["hash", header.hash],
      ["start_lsn", header.startLsn],
      ["checksums", header.hasChecksums],
      ["base", header.base],
    ]),
  );
}

/**
 * Reads a manifest from its plain bytes: first the header, then the entries, last the end. Throws
 * TruncatedError when the end is missing and FormatError, with the line's number, for every line
 * that we would not have written, and for counts that do not agree.
 */
export async function* parseManifest(
  bytes: AsyncIterable<Uint8Array>,
): AsyncGenerator<ManifestLine> {
  const counts = { fileCount: 0, partCount: 0, sizeBytes: 0, unchangedCount: 0 };
  let number = 0;
  let hash: ManifestHash | undefined;
  let isEnded = false;
  for await (const text of readLines(bytes)) {
    number += 1;
    if (isEnded) throw new FormatError(`manifest line ${number} stands behind the end`);
    const line = parseLine(number, text, hash);
    if (line.kind === "header") hash = line.hash;
    if (line.kind === "part") counts.partCount += 1;
    if (line.kind === "unchanged") counts.unchangedCount += 1;
    if (line.kind === "file") {
      counts.fileCount += 1;
      counts.sizeBytes += line.sizeBytes;
    }
    if (line.kind === "end") {
      isEnded = true;
      requireCounts(line, counts);
    }
    yield line;
  }
  if (!isEnded) throw new TruncatedError(`manifest ends after line ${number} without its end`);
}

function requireCounts(end: ManifestEnd, counts: Required<Omit<ManifestEnd, "kind">>): void {
  for (const name of ["fileCount", "partCount", "sizeBytes", "unchangedCount"] as const) {
    const promised = end[name] ?? 0;
    if (promised === counts[name]) continue;
    throw new FormatError(`manifest promises ${name} ${promised} but holds ${counts[name]}`);
  }
}

async function* readLines(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rest = "";
  for await (const chunk of bytes) {
    const text = rest + decode(decoder, chunk);
    let start = 0;
    for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n", start)) {
      yield text.slice(start, end);
      start = end + 1;
    }
    rest = text.slice(start);
    if (rest.length > MAX_LINE_BYTES) {
      throw new FormatError(`manifest has a line of more than ${MAX_LINE_BYTES} bytes`);
    }
  }
  if (rest + decode(decoder) !== "") throw new TruncatedError("manifest ends within a line");
}

function decode(decoder: TextDecoder, chunk?: Uint8Array): string {
  try {
    return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
  } catch (error) {
    throw new FormatError("manifest is not UTF-8", { cause: error });
  }
}

function parseLine(number: number, text: string, hash: ManifestHash | undefined): ManifestLine {
  const row = hash === undefined ? undefined : parseRow(text, HASH_DIGITS[hash]);
  if (row !== undefined) return row;
  const what = `manifest line ${number}`;
  const line = hash === undefined ? parseHeader(what, text) : parseBody(what, text, hash);
  // Finds superfluous and repeated members, other orders, other spellings of a number.
  if (formatLine(line) !== text) throw wrong(what, `is not written as we write it: ${text}`);
  return line;
}

function parseHeader(what: string, text: string): ManifestHeader {
  const fields = new Fields(what, parseJson(text));
  const version = fields.required("walnut", fields.integer("walnut"));
  if (version !== FORMAT_VERSION) {
    throw new FormatError(`manifest has version ${version}, we read ${FORMAT_VERSION}`);
  }
  const backup = fields.required("backup", fields.string("backup"));
  if (!isBackupName(backup)) throw wrong(what, `names no backup: ${backup}`);
  const hash = fields.required("hash", fields.string("hash"));
  if (hash !== "xxh64" && hash !== "sha256") throw wrong(what, `has the unknown hash ${hash}`);
  const base = fields.string("base");
  if (base !== undefined && !isBackupName(base)) throw wrong(what, `has the base ${base}`);
  const hasChecksums = fields.boolean("checksums");
  return {
    kind: "header",
    backup,
    systemId: fields.required("system_identifier", fields.uint64("system_identifier")),
    hash,
    startLsn: fields.required("start_lsn", fields.uint64("start_lsn")),
    ...(hasChecksums === undefined ? {} : { hasChecksums }),
    ...(base === undefined ? {} : { base }),
  };
}

/** JSON.parse is several times as fast as our own reader, and no number here needs more digits. */
function parseBody(
  what: string,
  text: string,
  hash: ManifestHash,
): Exclude<ManifestLine, ManifestHeader> {
  const members = parseMembers(what, text);
  const body = { what, members };
  if ("file" in members) return fileOf(body, hash);
  if ("same" in members && !("end" in members)) return unchangedOf(body, hash);
  if ("database" in members) {
    return { kind: "database", oid: countOf(body, "database"), xmin: countOf(body, "xmin") };
  }
  if ("part" in members) {
    return {
      kind: "part",
      name: textOf(body, "part"),
      sizeBytes: countOf(body, "size"),
      plainBytes: countOf(body, "plain"),
      xxh64: hashOf(body, "xxh64", "xxh64"),
    };
  }
  if ("dir" in members) {
    return { kind: "directory", name: textOf(body, "dir"), mode: modeOf(body) };
  }
  if ("link" in members) {
    return { kind: "link", name: textOf(body, "link"), target: textOf(body, "to") };
  }
  if (members["end"] !== true) throw wrong(what, `is of no known kind: ${text}`);
  return {
    kind: "end",
    fileCount: countOf(body, "files"),
    partCount: countOf(body, "parts"),
    sizeBytes: countOf(body, "bytes"),
    ...("same" in members ? { unchangedCount: countOf(body, "same") } : {}),
  };
}

function fileOf(body: Body, hash: ManifestHash): ManifestFile {
  const { members } = body;
  return {
    kind: "file",
    name: textOf(body, "file"),
    sizeBytes: countOf(body, "size"),
    mode: modeOf(body),
    mtimeNs: timeOf(body),
    hash: hashOf(body, "hash", hash),
    part: textOf(body, "part"),
    offsetBytes: countOf(body, "at"),
    ...("full" in members ? { fullBytes: countOf(body, "full") } : {}),
    ...("bad" in members ? { corruptPages: countOf(body, "bad") } : {}),
  };
}

function unchangedOf(body: Body, hash: ManifestHash): ManifestUnchanged {
  return {
    kind: "unchanged",
    name: textOf(body, "same"),
    sizeBytes: countOf(body, "size"),
    mode: modeOf(body),
    mtimeNs: timeOf(body),
    ...("hash" in body.members ? { hash: hashOf(body, "hash", hash) } : {}),
  };
}

interface Body {
  readonly what: string;
  readonly members: Readonly<Record<string, unknown>>;
}

function parseMembers(what: string, text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FormatError(`${what} is no JSON: ${text.slice(0, SHOWN_LENGTH)}`, { cause: error });
  }
  if (!isRecord(value)) throw wrong(what, `is not a JSON object: ${text}`);
  return value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function textOf({ what, members }: Body, name: string): string {
  const value = members[name];
  if (typeof value === "string" && value !== "") return value;
  throw wrong(what, `has no text in ${name}: ${JSON.stringify(value)}`);
}

function countOf({ what, members }: Body, name: string): number {
  const value = members[name];
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw wrong(what, `has no count in ${name}: ${JSON.stringify(value)}`);
}

function modeOf(body: Body): number {
  const mode = countOf(body, "mode");
  if (mode > MODE_MASK) throw wrong(body.what, `has no permission bits in mode: ${mode}`);
  return mode;
}

function timeOf(body: Body): bigint {
  const text = textOf(body, "mtime");
  if (/^-?\d{1,20}$/.test(text)) return BigInt(text);
  throw wrong(body.what, `has no nanoseconds in mtime: ${text}`);
}

function hashOf(body: Body, name: string, hash: ManifestHash): string {
  const text = textOf(body, name);
  if (text.length === HASH_DIGITS[hash] && /^[0-9a-f]*$/.test(text)) return text;
  throw wrong(body.what, `has no ${hash} in ${name}: ${text}`);
}

function wrong(what: string, text: string): FormatError {
  return new FormatError(`${what} ${text.slice(0, SHOWN_LENGTH)}`);
}
