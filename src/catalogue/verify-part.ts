import type { BackupDocuments } from "../backup/backup-documents.ts";
import { parseEntryName } from "../backup/extract-path.ts";
import type { ListedFile } from "../backup/manifest-table.ts";
import { PathSet } from "../backup/path-set.ts";
import { PathTable } from "../backup/path-table.ts";
import { partCodec } from "../backup/part-extract.ts";
import type { PlannedPart } from "../backup/restore-plan.ts";
import { FormatError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import { parseBackupLabel } from "../postgres/backup-label.ts";
import { parsePgControl } from "../postgres/pg-control.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { readTar, type TarEntry } from "../tar/read.ts";
import { faultText } from "./finding.ts";
import { tappedStorage } from "./tapped-storage.ts";

export interface PartCheckOptions extends CallOptions {
  readonly codecJobs: number;
  /** Paths that the part has to hold; from `pathsByPart`. */
  readonly wanted: Iterable<string>;
  /** Of the stored bytes (XXH64) and of the content (the manifest's algorithm). */
  readonly stored: Hasher;
  readonly content: Hasher;
  readonly onBytes: (count: number) => void;
}

/** A label or control file is small; a larger one is none. */
const SPECIAL_BYTES_MAX = 1024 * 1024;

/**
 * Reads a tar of a backup to its end and checks all that is known of it: the stored bytes and each
 * entry against our manifest, or the entries against WAL-G's list. Undefined when nothing is wrong.
 */
export async function verifyPart(
  storage: Storage,
  documents: BackupDocuments,
  part: PlannedPart,
  options: PartCheckOptions,
): Promise<string | undefined> {
  return await new PartCheck(storage, documents, part, options).run();
}

/** What an entry leaves to the collector: header, streams, promises; see noteMade. */
const THINGS_PER_ENTRY = 16;

/** Which paths each part holds, by the last component of its key, as far as documents tell. */
export function pathsByPart({
  manifest,
  files,
}: BackupDocuments): ReadonlyMap<string, Iterable<string>> {
  if (manifest === undefined) return files?.parts ?? new Map();
  return manifest.files.byPart();
}

class PartCheck {
  readonly #storage: Storage;
  readonly #documents: BackupDocuments;
  readonly #part: PlannedPart;
  readonly #options: PartCheckOptions;
  readonly #seen: PathSet;

  constructor(
    storage: Storage,
    documents: BackupDocuments,
    part: PlannedPart,
    options: PartCheckOptions,
  ) {
    this.#storage = storage;
    this.#documents = documents;
    this.#part = part;
    this.#options = options;
    this.#seen = new PathSet(documents.manifest?.files.table ?? new PathTable());
  }

  async run(): Promise<string | undefined> {
    const { stored, signal, codecJobs, onBytes } = this.#options;
    const { manifest, sentinel } = this.#documents;
    let sizeBytes = 0;
    const tapped = tappedStorage(this.#storage, (chunk) => {
      sizeBytes += chunk.length;
      stored.update(chunk);
      onBytes(chunk.length);
    });
    let fault: string | undefined;
    try {
      const bytes = tapped.get(this.#part.key, { signal });
      const tar = partCodec(this.#part).decompress(bytes, { jobs: codecJobs, signal });
      const isTrailerOptional = manifest === undefined && (sentinel.dataCatalogBytes ?? 0) === 0;
      for await (const entry of readTar(tar, { isTrailerOptional })) await this.#take(entry);
      this.#requireAll();
    } catch (error) {
      signal.throwIfAborted();
      fault = faultText(error);
    }
    const xxh64 = stored.digest();
    const promised = this.#part.stored;
    if (fault !== undefined || promised === undefined) return fault;
    if (sizeBytes !== promised.sizeBytes) {
      return `it has ${sizeBytes} bytes, the manifest says ${promised.sizeBytes}`;
    }
    return xxh64 === promised.xxh64
      ? undefined
      : `its xxh64 is ${xxh64}, the manifest says ${promised.xxh64}`;
  }

  async #take(entry: TarEntry): Promise<void> {
    this.#seen.table.noteMade(THINGS_PER_ENTRY);
    const path = parseEntryName(entry.name);
    try {
      await this.#check(path, entry);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      throw new FormatError(`${path}: ${error.message}`, { cause: error });
    }
  }

  async #check(path: string, entry: TarEntry): Promise<void> {
    const { manifest } = this.#documents;
    if (this.#seen.has(path)) throw new FormatError("the part holds it twice");
    this.#seen.add(path);
    if (manifest === undefined) {
      if (entry.kind === "file") await this.#checkContent(path, entry, undefined);
      return;
    }
    if (entry.kind === "directory") {
      requireEqual("mode", entry.mode, manifest.directories.get(path));
    } else if (entry.kind === "symlink") {
      requireEqual("target", entry.linkName, manifest.links.get(path));
    } else {
      const listed = manifest.files.get(path);
      requireEqual("part", this.#part.name, listed?.part);
      requireEqual("place", entry.contentStart, listed?.offsetBytes);
      requireEqual("size", entry.sizeBytes, listed?.sizeBytes);
      requireEqual("mode", entry.mode, listed?.mode);
      await this.#checkContent(path, entry, listed);
    }
  }

  async #checkContent(
    path: string,
    entry: TarEntry,
    listed: ListedFile | undefined,
  ): Promise<void> {
    const { content: hasher } = this.#options;
    if (isSpecial(path) && entry.sizeBytes <= SPECIAL_BYTES_MAX) {
      const bytes = await readAll(entry.content());
      this.#checkSpecial(path, bytes);
      if (listed !== undefined) requireEqual("hash", hasher.digestOf(bytes), listed.hash);
      return;
    }
    if (listed === undefined) {
      for await (const _ of entry.content());
      return;
    }
    try {
      for await (const chunk of entry.content()) hasher.update(chunk);
    } catch (error) {
      hasher.digest();
      throw error;
    }
    requireEqual("hash", hasher.digest(), listed.hash);
  }

  #checkSpecial(path: string, bytes: Buffer): void {
    const { sentinel } = this.#documents;
    if (path === "global/pg_control") {
      const { systemId } = parsePgControl(bytes);
      requireEqual("cluster", systemId, sentinel.systemId ?? systemId);
    } else if (path === "backup_label" && bytes.length > 0) {
      const { startLsn } = parseBackupLabel(bytes.toString("utf8"));
      requireEqual("start", BigInt(startLsn), sentinel.startLsn ?? BigInt(startLsn));
    }
  }

  #requireAll(): void {
    let first: string | undefined;
    let count = 0;
    for (const path of this.#options.wanted) {
      if (this.#seen.has(path)) continue;
      first ??= path;
      count += 1;
    }
    if (first === undefined) return;
    throw new FormatError(`it lacks ${count} files, the first is ${first}`);
  }
}

function isSpecial(path: string): boolean {
  return path === "global/pg_control" || path === "backup_label";
}

function requireEqual<T extends string | number | bigint>(
  what: string,
  actual: T,
  promised: T | undefined,
): void {
  if (actual === promised) return;
  throw new FormatError(
    promised === undefined
      ? "the manifest does not list it"
      : `its ${what} is ${actual}, the backup's documents say ${promised}`,
  );
}
