import type { Codec } from "../codec/codec.ts";
import { FormatError, OperationError } from "../errors.ts";
import { bytesSource, type ByteStream, readAll } from "../io/bytes.ts";
import { createHasher, type Hasher } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { partRecordKey } from "../layout/keys.ts";
import {
  formatManifestLine,
  type ManifestDirectory,
  type ManifestFile,
  type ManifestLink,
  type ManifestPart,
  parseManifest,
} from "../layout/manifest.ts";
import type { Storage } from "../storage/storage.ts";
import type { StoredFile } from "./documents-spool.ts";
import { Spool } from "./spool.ts";
import type { Walked, WalkedFile } from "./walk.ts";

/** Whom a data directory and all in it belong to. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export interface PartRecordsOptions {
  readonly storage: Pick<Storage, "put">;
  readonly backup: BackupName;
  readonly systemId: bigint;
  readonly startLsn: bigint;
  readonly zstd: Codec;
  /** For temporary files. */
  readonly spoolDirectory: string;
  /** Parts with files of others are not recorded. */
  readonly owner: Owner;
  readonly log: Log;
}

/** Notes what the parts of a backup hold, so that it can be resumed. See RESUME.md. */
export class PartRecords {
  readonly #options: PartRecordsOptions;

  constructor(options: PartRecordsOptions) {
    this.#options = options;
  }

  /** For one part. */
  async begin(): Promise<PartRecord> {
    return new PartRecord(await createHasher("sha256"), this.#options);
  }
}

/** What one part holds: a manifest of its own, with hashes that nobody can forge. */
export class PartRecord implements Disposable {
  readonly #options: PartRecordsOptions;
  readonly #hasher: Hasher;
  readonly #lines: Spool;
  #fileCount = 0;
  #contentBytes = 0;
  #isForeign = false;

  constructor(hasher: Hasher, options: PartRecordsOptions) {
    this.#options = options;
    this.#hasher = hasher;
    this.#lines = new Spool(options.spoolDirectory);
  }

  /** Content of the file that `addFile` will name. */
  update(content: Uint8Array): void {
    this.#hasher.update(content);
  }

  addFile(entry: WalkedFile, stored: StoredFile): void {
    const { name, mode, mtimeNs } = entry;
    const hash = this.#hasher.digest();
    this.#fileCount += 1;
    this.#contentBytes += stored.sizeBytes;
    this.#add(entry, formatManifestLine({ kind: "file", name, mode, mtimeNs, ...stored, hash }));
  }

  addOther(entry: Exclude<Walked, { readonly kind: "file" }>): void {
    const { name, mode } = entry;
    const line =
      entry.kind === "link"
        ? { kind: "link" as const, name, target: entry.target }
        : { kind: "directory" as const, name, mode };
    this.#add(entry, formatManifestLine(line));
  }

  /**
   * Stores it; a part of which the record can't be stored is one that is packed again when the
   * backup is resumed, and no worse.
   */
  async put(part: ManifestPart, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    if (this.#isForeign) return;
    const { storage, backup, zstd, log } = this.#options;
    const open = () => zstd.compress(this.#read(part), { jobs: 1, signal });
    try {
      const key = partRecordKey(backup, part.name);
      await storage.put(key, { isReopenable: true, open }, { signal });
    } catch (error) {
      if (signal.aborted || !(error instanceof OperationError)) throw error;
      log.warning("a part is not noted: a resumed backup would store it again", {
        part: part.name,
        reason: error.message,
      });
    }
  }

  [Symbol.dispose](): void {
    this.#lines[Symbol.dispose]();
  }

  #add({ uid, gid }: Owner, line: string): void {
    const { owner } = this.#options;
    if (uid !== owner.uid || gid !== owner.gid) this.#isForeign = true;
    this.#lines.append(line);
  }

  async *#read(part: ManifestPart): ByteStream {
    const { backup, systemId, startLsn } = this.#options;
    const header = { kind: "header", backup, systemId, startLsn, hash: "sha256" } as const;
    yield Buffer.from(formatManifestLine(header));
    yield* this.#lines.read();
    const counts = { fileCount: this.#fileCount, partCount: 1, sizeBytes: this.#contentBytes };
    yield Buffer.from(formatManifestLine(part) + formatManifestLine({ kind: "end", ...counts }));
  }
}

/** An entry of a part. */
export type PartMember = ManifestFile | ManifestDirectory | ManifestLink;

/** A record in memory, still compressed. */
export interface ReadRecord {
  readonly part: ManifestPart;
  /** In the order of the tar; can be read again. */
  members(): AsyncGenerator<PartMember>;
}

/** Compressed it is about 60 bytes a file. */
const MAX_RECORD_BYTES = 256 * 1024 * 1024;

interface ReadOptions {
  readonly storage: Pick<Storage, "get">;
  readonly systemId: bigint;
  readonly zstd: Codec;
  readonly signal: AbortSignal;
}

/**
 * Reads the record of a part to its end; rejects with FormatError for what is no record of this
 * part, and with what the store and the keys reject.
 */
export async function readPartRecord(
  backup: BackupName,
  part: string,
  { storage, systemId, zstd, signal }: ReadOptions,
): Promise<ReadRecord> {
  const stored = storage.get(partRecordKey(backup, part), { signal });
  const bytes = await readAll(stored, MAX_RECORD_BYTES);
  const lines = () =>
    parseManifest(zstd.decompress(bytesSource(bytes).open(), { jobs: 1, signal }));
  let found: ManifestPart | undefined;
  for await (const line of lines()) {
    const isOurs =
      line.kind === "header"
        ? line.backup === backup && line.systemId === systemId && line.hash === "sha256"
        : line.kind === "file"
          ? line.part === part && line.fullBytes === undefined && isInside(line.name)
          : line.kind === "part"
            ? line.name === part && found === undefined
            : line.kind === "end" || (isOther(line) && isInside(line.name));
    if (!isOurs) throw new FormatError(`the record of ${part} in ${backup} holds something else`);
    if (line.kind === "part") found = line;
  }
  if (found === undefined) throw new FormatError(`the record of ${part} in ${backup} has no part`);
  return {
    part: found,
    async *members() {
      for await (const line of lines()) if (line.kind === "file" || isOther(line)) yield line;
    },
  };
}

function isOther(line: { readonly kind: string }): line is ManifestDirectory | ManifestLink {
  return line.kind === "directory" || line.kind === "link";
}

/** Names that stay below the data directory. */
function isInside(name: string): boolean {
  const [empty, ...parts] = name.split("/");
  if (empty !== "") return false;
  return name === "/" || parts.every((part) => part !== "" && part !== "." && part !== "..");
}
