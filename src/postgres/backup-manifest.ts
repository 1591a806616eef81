import { FormatError, TruncatedError } from "../errors.ts";
import { formatLsn, type Lsn } from "./lsn.ts";

/** One file of PostgreSQL's backup_manifest. */
export interface BackupManifestFile {
  /** Below the data directory: "base/5/1259", "pg_tblspc/16385/PG_15_202209061/5/16386". */
  readonly path: string;
  readonly sizeBytes: number;
  /** Of the content, lower-case hex; absent where the server was told to make none. */
  readonly checksum?: string | undefined;
}

/** WAL that a backup needs. */
export interface BackupManifestRange {
  readonly timeline: number;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
}

const FIRST_LINE = /^\{ "PostgreSQL-Backup-Manifest-Version": ([12]),$/;
const CHECKSUM_LINE = /^"Manifest-Checksum": "([0-9a-f]{64})"\}$/;
const SYSTEM_LINE = /^"System-Identifier": [0-9]+,$/;
const HASH_START = '"Manifest-Checksum"';

/**
 * Reads PostgreSQL's backup_manifest line by line, as the server writes it. Strict: every other
 * line is refused.
 *
 * @source src/backend/backup/backup_manifest.c
 */
export class BackupManifestReader {
  #state: "start" | "files" | "ranges" | "checksum" | "end" = "start";
  #fileCount = 0;

  /** Files so far. */
  get fileCount(): number {
    return this.#fileCount;
  }

  /** Whether the line is the last one, which the manifest's own checksum does not cover. */
  static isChecksumLine(line: string): boolean {
    return line.startsWith(HASH_START);
  }

  /** Takes one line without its end. Gives the file or the checksum that it holds. */
  takeLine(line: string): BackupManifestFile | { readonly manifestSha256: string } | undefined {
    if (this.#state === "start") {
      if (FIRST_LINE.test(line) || SYSTEM_LINE.test(line)) return undefined;
      if (line === '"Files": [') this.#state = "files";
      else throw wrongLine(line);
      return undefined;
    }
    if (this.#state === "files") {
      if (line === "],") return undefined;
      if (line !== '"WAL-Ranges": [') return this.#takeFile(line);
      this.#state = "ranges";
      return undefined;
    }
    if (this.#state === "ranges") {
      if (line === "],") this.#state = "checksum";
      else if (!line.startsWith('{ "Timeline": ')) throw wrongLine(line);
      return undefined;
    }
    const sha256 = CHECKSUM_LINE.exec(line)?.[1];
    if (this.#state === "end" || sha256 === undefined) throw wrongLine(line);
    this.#state = "end";
    return { manifestSha256: sha256 };
  }

  /** Throws TruncatedError unless all of it was there. */
  finish(): void {
    if (this.#state === "end") return;
    throw new TruncatedError(`backup_manifest ends among its ${this.#state}`);
  }

  #takeFile(line: string): BackupManifestFile {
    const members = parseMembers(line);
    const encoded = members["Encoded-Path"];
    const path =
      typeof encoded === "string" ? Buffer.from(encoded, "hex").toString("utf8") : members["Path"];
    const { Size: sizeBytes, Checksum: checksum } = members;
    const isChecksum = checksum === undefined || typeof checksum === "string";
    if (typeof path !== "string" || typeof sizeBytes !== "number" || !isChecksum) {
      throw wrongLine(line);
    }
    this.#fileCount += 1;
    return { path, sizeBytes, checksum };
  }
}

function parseMembers(line: string): Readonly<Record<string, unknown>> {
  try {
    const value: Readonly<Record<string, unknown>> = JSON.parse(line.replace(/,$/, ""));
    if (typeof value === "object" && value !== null) return value;
  } catch (error) {
    throw wrongLine(line, error);
  }
  throw wrongLine(line);
}

function wrongLine(line: string, cause?: unknown): FormatError {
  return new FormatError(`backup_manifest has the line ${JSON.stringify(line.slice(0, 200))}`, {
    cause,
  });
}

/**
 * The beginning of a backup_manifest of version 2 (from 17 on), or of version 1 without a cluster.
 * Entries follow, then the range, then the checksum.
 */
export function formatManifestHead(systemId: bigint | undefined): string {
  const [version, system] =
    systemId === undefined ? [1, ""] : [2, `"System-Identifier": ${systemId},\n`];
  return `{ "PostgreSQL-Backup-Manifest-Version": ${version},\n${system}"Files": [`;
}

/**
 * One file; `checksum` is its CRC-32C. A server that is told of a base needs names and sizes only.
 */
export function formatManifestEntry(
  { path, sizeBytes, checksum, modifiedMs = 0 }: BackupManifestFile & { modifiedMs?: number },
  isFirst: boolean,
): string {
  const time = new Date(modifiedMs).toISOString().slice(0, 19).replace("T", " ");
  const sum =
    checksum === undefined ? "" : `, "Checksum-Algorithm": "CRC32C", "Checksum": "${checksum}"`;
  const members = `"Path": ${JSON.stringify(path)}, "Size": ${sizeBytes}`;
  return `${isFirst ? "" : ","}\n{ ${members}, "Last-Modified": "${time} GMT"${sum} }`;
}

/** The one range of WAL that the backup needs. */
export function formatManifestRange({ timeline, startLsn, endLsn }: BackupManifestRange): string {
  const positions = `"Start-LSN": "${formatLsn(startLsn)}", "End-LSN": "${formatLsn(endLsn)}"`;
  return `\n],\n"WAL-Ranges": [\n{ "Timeline": ${timeline}, ${positions} }\n],\n`;
}

/** The last line; `sha256` is that of all text before, in lower-case hex. */
export function formatManifestChecksum(sha256: string): string {
  return `${HASH_START}: "${sha256}"}\n`;
}
