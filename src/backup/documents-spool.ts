import type { ByteStream } from "../io/bytes.ts";
import {
  type CorruptBlocks,
  formatFileDescription,
  formatFilesMetadata,
} from "../layout/files-metadata.ts";
import {
  formatManifestLine,
  type ManifestDatabase,
  type ManifestFile,
  type ManifestHeader,
  type ManifestPart,
} from "../layout/manifest.ts";
import { timeMsOf } from "../layout/time.ts";
import type { FileState } from "./backup-documents.ts";
import { GroupedSpool, Spool } from "./spool.ts";
import type { Walked, WalkedFile } from "./walk.ts";

/** What was stored of a regular file. */
export type StoredFile = Omit<ManifestFile, "kind" | "name" | "mode" | "mtimeNs">;

export interface DocumentsSpoolOptions {
  readonly directory: string;
  /** Whether files_metadata.json will be written. */
  readonly hasFilesMetadata: boolean;
}

/** Cuts time into pieces in which the local zone's offset does not change. */
const OFFSET_PIECE_MS = 15 * 60 * 1000;

/**
 * Collects what the manifest and files_metadata.json will say, on disk: millions of files need no
 * more memory than a few.
 */
export class DocumentsSpool implements Disposable {
  readonly #manifest: Spool;
  readonly #files: Spool;
  readonly #partNames: GroupedSpool;
  readonly #databases: Spool;
  readonly #hasFilesMetadata: boolean;
  readonly #zone = new ZoneOffset();
  #isFirstFile = true;
  #isFirstDatabase = true;
  #fileCount = 0;
  #unchangedCount = 0;
  #partCount = 0;
  #contentBytes = 0;

  constructor({ directory, hasFilesMetadata }: DocumentsSpoolOptions) {
    using spools = new DisposableStack();
    this.#manifest = spools.use(new Spool(directory));
    this.#files = spools.use(new Spool(directory));
    this.#partNames = spools.use(new GroupedSpool(directory));
    this.#databases = spools.use(new Spool(directory));
    this.#hasFilesMetadata = hasFilesMetadata;
    spools.move();
  }

  /** Content of all files so far. */
  get contentBytes(): number {
    return this.#contentBytes;
  }

  /** Files that are in parts. */
  get fileCount(): number {
    return this.#fileCount;
  }

  /** Files that are as they were in the base. */
  get unchangedCount(): number {
    return this.#unchangedCount;
  }

  /** A file of the data directory that is in a part now. */
  addFile(entry: Walked, stored: StoredFile, corrupt?: CorruptBlocks): void {
    const { name, mode, mtimeNs } = entry;
    this.addOwnFile({ name, mode, mtimeNs, ...stored, corruptPages: corrupt?.count });
    this.#describe(entry, stored.fullBytes === undefined ? "here" : "incremented", corrupt);
    this.addPartName(stored.part, entry.name);
  }

  /** A file that is as it was in the base; `hash` of its content where that is known. */
  addUnchanged(entry: WalkedFile, hash: string | undefined, corrupt?: CorruptBlocks): void {
    const { name, sizeBytes, mode, mtimeNs } = entry;
    this.#unchangedCount += 1;
    this.#manifest.append(
      formatManifestLine({ kind: "unchanged", name, sizeBytes, mode, mtimeNs, hash }),
    );
    this.#describe(entry, "skipped", corrupt);
  }

  /** A database as it was when the backup began. */
  addDatabase(database: Omit<ManifestDatabase, "kind">): void {
    this.#manifest.append(formatManifestLine({ kind: "database", ...database }));
  }

  /** A file that files_metadata.json does not describe: pg_control and those that we make. */
  addOwnFile(file: Omit<ManifestFile, "kind">): void {
    this.#fileCount += 1;
    this.#contentBytes += file.sizeBytes;
    this.#manifest.append(formatManifestLine({ kind: "file", ...file }));
  }

  /** A directory or symbolic link that is in a part now. */
  addOther(entry: Exclude<Walked, { readonly kind: "file" }>, part: string): void {
    const { name } = entry;
    this.#manifest.append(
      formatManifestLine(
        entry.kind === "directory"
          ? { kind: "directory", name, mode: entry.mode }
          : { kind: "link", name, target: entry.target },
      ),
    );
    this.#describe(entry, "here");
    this.addPartName(part, entry.name);
  }

  /** A name in `TarFileSets`, for entries that are not in `Files`. */
  addPartName(part: string, name: string): void {
    if (this.#hasFilesMetadata) this.#partNames.append(part, JSON.stringify(name));
  }

  addPart(part: Omit<ManifestPart, "kind">): void {
    this.#partCount += 1;
    this.#manifest.append(formatManifestLine({ kind: "part", ...part }));
  }

  /** Pieces of one member of `DatabasesByNames`; `isFirst` begins a new one. */
  addDatabaseText(text: string, isFirst: boolean): void {
    if (isFirst && !this.#isFirstDatabase) this.#databases.append(",");
    this.#isFirstDatabase = false;
    this.#databases.append(text);
  }

  /** Bytes of our manifest, before compression. */
  async *manifest(header: Omit<ManifestHeader, "kind">): ByteStream {
    yield Buffer.from(formatManifestLine({ kind: "header", ...header }));
    yield* this.#manifest.read();
    const end = {
      kind: "end" as const,
      fileCount: this.#fileCount,
      partCount: this.#partCount,
      sizeBytes: this.#contentBytes,
      unchangedCount: this.#unchangedCount === 0 ? undefined : this.#unchangedCount,
    };
    yield Buffer.from(formatManifestLine(end));
  }

  /** Bytes of files_metadata.json. */
  filesMetadata(): ByteStream {
    return formatFilesMetadata({
      files: this.#files.read(),
      parts: this.#partSets(),
      databases: this.#databases.read(),
    });
  }

  [Symbol.dispose](): void {
    for (const spool of [this.#manifest, this.#files, this.#partNames, this.#databases]) {
      spool[Symbol.dispose]();
    }
  }

  #describe(entry: Walked, state: FileState, corruptBlocks?: CorruptBlocks): void {
    if (!this.#hasFilesMetadata) return;
    const description = {
      name: entry.name,
      isIncremented: state === "incremented",
      isSkipped: state === "skipped",
      mtimeNs: entry.mtimeNs,
      corruptBlocks,
      updatesCount: (entry.kind === "file" ? entry.updatesCount : undefined) ?? 0n,
    };
    const text = formatFileDescription(description, this.#zone.minutesAt(entry.mtimeNs));
    this.#files.append(this.#isFirstFile ? text : `,${text}`);
    this.#isFirstFile = false;
  }

  async *#partSets(): ByteStream {
    let separator = "";
    for (const part of this.#partNames.names().toSorted()) {
      yield Buffer.from(`${separator}${JSON.stringify(part)}:[`);
      yield* this.#partNames.read(part);
      yield Buffer.from("]");
      separator = ",";
    }
  }
}

/**
 * The local zone's offset from UTC; most files of a cluster were changed at about the same time.
 */
class ZoneOffset {
  #piece = Number.NaN;
  #minutes = 0;

  minutesAt(timeNs: bigint): number {
    const timeMs = timeMsOf(timeNs);
    const piece = Math.floor(timeMs / OFFSET_PIECE_MS);
    if (piece !== this.#piece) {
      this.#piece = piece;
      this.#minutes = -new Date(timeMs).getTimezoneOffset();
    }
    return this.#minutes;
  }
}
