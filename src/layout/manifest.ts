import { FormatError, TruncatedError } from "../errors.ts";
import { type BackupName, isBackupName } from "./backup-name.ts";
import { Fields } from "./fields.ts";
import { formatJson, parseJson } from "./json.ts";
import { jsonObject, type JsonValue } from "./json-value.ts";

/** Checksum of each file: hex, 16 digits for xxh64 (seed 0), 64 for sha256. */
export type ManifestHash = "xxh64" | "sha256";

/** First line of our manifest. */
export interface ManifestHeader {
  readonly kind: "header";
  readonly backup: BackupName;
  readonly systemId: bigint;
  readonly hash: ManifestHash;
  readonly startLsn: bigint;
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
}

/** What may stand between header and end, in any order. */
export type ManifestEntry = ManifestPart | ManifestFile | ManifestDirectory | ManifestLink;

export type ManifestLine = ManifestHeader | ManifestEntry | ManifestEnd;

const FORMAT_VERSION = 1;
const HASH_DIGITS = { xxh64: 16, sha256: 64 } as const;
const MAX_LINE_BYTES = 64 * 1024;

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
    };
  }
  if (line.kind === "part") {
    return { part: line.name, size: line.sizeBytes, plain: line.plainBytes, xxh64: line.xxh64 };
  }
  if (line.kind === "directory") return { dir: line.name, mode: line.mode };
  if (line.kind === "link") return { link: line.name, to: line.target };
  return { end: true, files: line.fileCount, parts: line.partCount, bytes: line.sizeBytes };
}

function formatHeader(header: ManifestHeader): string {
  return formatJson(
    jsonObject([
      ["walnut", BigInt(FORMAT_VERSION)],
      ["backup", header.backup],
      ["system_identifier", header.systemId],
      ["hash", header.hash],
      ["start_lsn", header.startLsn],
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
  const counts = { fileCount: 0, partCount: 0, sizeBytes: 0 };
  let number = 0;
  let hash: ManifestHash | undefined;
  let isEnded = false;
  for await (const text of readLines(bytes)) {
    number += 1;
    if (isEnded) throw new FormatError(`manifest line ${number} stands behind the end`);
    const line = parseLine(number, text, hash);
    if (line.kind === "header") hash = line.hash;
    if (line.kind === "part") counts.partCount += 1;
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

function requireCounts(end: ManifestEnd, counts: Omit<ManifestEnd, "kind">): void {
  for (const name of ["fileCount", "partCount", "sizeBytes"] as const) {
    if (end[name] === counts[name]) continue;
    throw new FormatError(`manifest promises ${name} ${end[name]} but holds ${counts[name]}`);
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
  const what = `manifest line ${number}`;
  const value = parseJson(text);
  const fields = new LineFields(what, value);
  const line = hash === undefined ? fields.header() : fields.line(hash);
  if (formatLine(line) !== text) {
    throw new FormatError(`${what} is not written as we write it: ${text.slice(0, 200)}`);
  }
  return line;
}

/** Reads one line; what is superfluous or spelt differently is found by formatting it again. */
class LineFields {
  readonly #what: string;
  readonly #fields: Fields;

  constructor(what: string, value: JsonValue) {
    this.#what = what;
    this.#fields = new Fields(what, value);
  }

  header(): ManifestHeader {
    const version = this.#count("walnut");
    if (version !== FORMAT_VERSION) {
      throw new FormatError(`manifest has version ${version}, we read ${FORMAT_VERSION}`);
    }
    const backup = this.#text("backup");
    if (!isBackupName(backup)) throw new FormatError(`${this.#what} names no backup: ${backup}`);
    const hash = this.#text("hash");
    if (hash !== "xxh64" && hash !== "sha256") {
      throw new FormatError(`manifest has the unknown hash ${hash}`);
    }
    return {
      kind: "header",
      backup,
      systemId: this.#uint64("system_identifier"),
      hash,
      startLsn: this.#uint64("start_lsn"),
    };
  }

  line(hash: ManifestHash): ManifestEntry | ManifestEnd {
    if (this.#fields.has("file")) return this.#file(hash);
    if (this.#fields.has("part")) return this.#part();
    if (this.#fields.has("dir")) {
      return { kind: "directory", name: this.#text("dir"), mode: this.#mode() };
    }
    if (this.#fields.has("link")) {
      return { kind: "link", name: this.#text("link"), target: this.#text("to") };
    }
    if (this.#fields.boolean("end") === true) return this.#end();
    throw new FormatError(`${this.#what} is of no known kind`);
  }

  #part(): ManifestPart {
    return {
      kind: "part",
      name: this.#text("part"),
      sizeBytes: this.#count("size"),
      plainBytes: this.#count("plain"),
      xxh64: this.#hash("xxh64", "xxh64"),
    };
  }

  #file(hash: ManifestHash): ManifestFile {
    return {
      kind: "file",
      name: this.#text("file"),
      sizeBytes: this.#count("size"),
      mode: this.#mode(),
      mtimeNs: this.#time(),
      hash: this.#hash("hash", hash),
      part: this.#text("part"),
      offsetBytes: this.#count("at"),
    };
  }

  #end(): ManifestEnd {
    return {
      kind: "end",
      fileCount: this.#count("files"),
      partCount: this.#count("parts"),
      sizeBytes: this.#count("bytes"),
    };
  }

  #text(name: string): string {
    const text = this.#fields.required(name, this.#fields.string(name));
    if (text === "") throw new FormatError(`${this.#what} has an empty ${name}`);
    return text;
  }

  #count(name: string): number {
    const count = this.#fields.required(name, this.#fields.integer(name));
    if (count < 0) throw new FormatError(`${this.#what} has a negative ${name}: ${count}`);
    return count;
  }

  #uint64(name: string): bigint {
    return this.#fields.required(name, this.#fields.uint64(name));
  }

  #mode(): number {
    const mode = this.#count("mode");
    if (mode > 0o7777) throw new FormatError(`${this.#what} has no permission bits: ${mode}`);
    return mode;
  }

  #time(): bigint {
    const text = this.#text("mtime");
    if (!/^(0|-?[1-9]\d{0,19})$/.test(text)) {
      throw new FormatError(`${this.#what} has no time in nanoseconds: ${text}`);
    }
    return BigInt(text);
  }

  #hash(name: string, hash: ManifestHash): string {
    const text = this.#text(name);
    if (text.length !== HASH_DIGITS[hash] || !/^[0-9a-f]*$/.test(text)) {
      throw new FormatError(`${this.#what} has no ${hash} in ${name}: ${text.slice(0, 80)}`);
    }
    return text;
  }
}
