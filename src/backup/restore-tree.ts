import { closeSync, constants, fchmodSync, ftruncateSync, mkdirSync, openSync } from "node:fs";
import { dirname, join } from "node:path";
import { FormatError, OperationError, systemErrorCode } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import { BACKGROUND_FLUSH_BYTES, type BackgroundFlush } from "./background-flush.ts";
import { comparedWrite, writeAll } from "./compared-write.ts";
import {
  beginWithIncrement,
  type EntryContent,
  fillFromFile,
  fillFromIncrement,
  type PageWriting,
} from "./increment.ts";
import type { PageGaps } from "./page-gaps.ts";
import type { ExtractTarget } from "./part-extract.ts";
import { PathSet } from "./path-set.ts";
import { PathTable } from "./path-table.ts";
import type { TablespacePlan } from "./tablespace-plan.ts";

/** Only we may look into the directories until all is there and they get their own modes. */
const NEW_DIRECTORY_MODE = 0o700;
const MODE_MASK = 0o777;
const OWNER_READ = 0o400;
/** What opening, fsyncing and closing a file leaves to the collector; see noteMade. */
const THINGS_PER_FLUSH = 8;

/** A path is used by an entry of another kind, or has a name that no file system takes. */
const ENTRY_FAULTS: ReadonlySet<string> = new Set([
  "EEXIST",
  "ENOTDIR",
  "EISDIR",
  "ELOOP",
  "ENAMETOOLONG",
]);

export interface RestoreTreeOptions {
  /** Absent: nothing is made durable. */
  readonly flush: BackgroundFlush | undefined;
  /** Whether files may be there already: then only what differs in them is written. */
  readonly isCompared?: boolean;
  /** Whether increments are put over the files that are there. */
  readonly isOnTop?: boolean;
  /** What the chain's paths are numbered by; absent = a table of its own. */
  readonly paths?: PathTable;
}

/**
 * The files and directories that a restore makes: where each goes, and what has to be made durable
 * at its end. Writes plain files and directories only, so that no path leads through a link.
 */
export class RestoreTree implements ExtractTarget {
  readonly destination: string;
  readonly tablespaces: readonly TablespacePlan[];
  readonly #locations: ReadonlyMap<string, string>;
  /** Paths below the data directory. */
  readonly #files: PathSet;
  readonly #directories = new Set<string>();
  readonly #modes = new Map<string, number>();
  readonly #flush: BackgroundFlush | undefined;
  readonly #writing: PageWriting;
  #changedBytes = 0;

  constructor(
    destination: string,
    tablespaces: readonly TablespacePlan[],
    { flush, isCompared, isOnTop = false, paths = new PathTable() }: RestoreTreeOptions,
  ) {
    this.#files = new PathSet(paths);
    this.destination = destination;
    const writeAt = isCompared === true ? comparedWrite() : writeAll;
    this.#writing = {
      isCompared: isCompared === true,
      isOnTop,
      writeAt: (file, bytes, position) => {
        const written = writeAt(file, bytes, position);
        this.#changedBytes += written;
        return written;
      },
    };
    this.tablespaces = tablespaces;
    this.#flush = flush;
    this.#locations = new Map(tablespaces.map(({ oid, location }) => [oid, location]));
  }

  /**
   * Absolute path of what is at `path` below the data directory ("" or "." for itself), in its
   * tablespace's location.
   */
  locate(path: string): string {
    const [first, oid = "", ...rest] = path.split("/");
    const location = first === "pg_tblspc" ? this.#locations.get(oid) : undefined;
    return location === undefined ? join(this.destination, path) : join(location, ...rest);
  }

  /** Whether `path` is a tablespace's place in pg_tblspc, where we make the link ourselves. */
  isTablespaceRoot(path: string): boolean {
    const [first, oid = "", ...rest] = path.split("/");
    return first === "pg_tblspc" && rest.length === 0 && this.#locations.has(oid);
  }

  /** Absolute paths of the files written or kept that nobody has flushed yet. */
  *unflushedFiles(): Generator<string, void, undefined> {
    for (const path of this.#files) {
      this.#files.table.noteMade(THINGS_PER_FLUSH);
      yield this.locate(path);
    }
  }

  /** Content that had to be written. */
  get changedBytes(): number {
    return this.#changedBytes;
  }

  /** Absolute paths of all directories made or used. */
  get directories(): Iterable<string> {
    return this.#directories;
  }

  /** Permission bits that directories get at the end, by absolute path. */
  get modes(): ReadonlyMap<string, number> {
    return this.#modes;
  }

  /** A file that is there from an earlier run and right. */
  keep(path: string): void {
    this.#files.add(path);
    this.#makeDirectory(dirname(this.locate(path)));
  }

  /** Makes a directory and those above it; it gets `mode` at the end. */
  addDirectory(path: string, mode?: number): void {
    const absolute = this.locate(path);
    this.#makeDirectory(absolute);
    if (mode !== undefined) this.#modes.set(absolute, mode & MODE_MASK);
  }

  /** Writes a file anew, or over what is there. `onChunk` sees all bytes, piece by piece. */
  async writeFile(
    path: string,
    mode: number,
    { content }: Pick<EntryContent, "content">,
    onChunk: (chunk: Uint8Array) => void,
  ): Promise<void> {
    const absolute = this.locate(path);
    await this.#onEntry("write", absolute, async () => {
      const file = this.#openNew(absolute);
      let isOpen = true;
      try {
        let sizeBytes = 0;
        for await (const chunk of content) {
          for (const piece of piecesOf(chunk)) {
            onChunk(piece);
            this.#writing.writeAt(file, piece, sizeBytes);
            sizeBytes += piece.length;
          }
        }
        if (this.#writing.isCompared) ftruncateSync(file, sizeBytes);
        fchmodSync(file, mode & MODE_MASK);
        // Without the right to read it can't be opened again later.
        const isFlushed = sizeBytes >= BACKGROUND_FLUSH_BYTES || (mode & OWNER_READ) === 0;
        if (isFlushed && this.#flush !== undefined) {
          isOpen = false;
          await this.#flush.add(file, absolute);
        } else {
          this.#files.add(path);
        }
      } finally {
        if (isOpen) closeSync(file);
      }
    });
  }

  /**
   * Makes a file of an increment, or adds to one of which pages are missing. Gives those that still
   * are; the file is whole when there are none.
   */
  async addPages(
    path: string,
    mode: number,
    entry: EntryContent,
    missing: PageGaps | undefined,
  ): Promise<PageGaps> {
    const absolute = this.locate(path);
    this.#makeDirectory(dirname(absolute));
    const work = (): Promise<PageGaps> =>
      missing === undefined
        ? beginWithIncrement(absolute, mode & MODE_MASK, entry, this.#writing)
        : fillFromIncrement(absolute, entry, missing, this.#writing);
    const gaps = await this.#onEntry("write", absolute, work);
    this.#files.add(path);
    return gaps;
  }

  /** Takes the missing pages from a whole older file, of which `onChunk` sees all bytes. */
  async fillFile(
    path: string,
    entry: EntryContent,
    missing: PageGaps,
    onChunk: (chunk: Uint8Array) => void,
  ): Promise<PageGaps> {
    const absolute = this.locate(path);
    const options = { onChunk, writing: this.#writing };
    const work = () => fillFromFile(absolute, entry, missing, options);
    return await this.#onEntry("write", absolute, work);
  }

  /** Runs what works on one entry's path; says it as a fault of the entry where it is one. */
  async #onEntry<T>(action: string, absolute: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw entryError(action, absolute, error);
    }
  }

  #openNew(absolute: string): number {
    const { isCompared } = this.#writing;
    const access = isCompared ? constants.O_RDWR : constants.O_WRONLY | constants.O_TRUNC;
    this.#makeDirectory(dirname(absolute));
    return openSync(absolute, access | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  }

  #makeDirectory(absolute: string): void {
    if (this.#directories.has(absolute)) return;
    try {
      mkdirSync(absolute, { recursive: true, mode: NEW_DIRECTORY_MODE });
    } catch (error) {
      throw entryError("make directory", absolute, error);
    }
    for (let path = absolute; !this.#directories.has(path); path = dirname(path)) {
      this.#directories.add(path);
      if (path === this.destination || this.#isLocation(path)) return;
    }
  }

  #isLocation(absolute: string): boolean {
    return this.tablespaces.some(({ location }) => location === absolute);
  }
}

/** FormatError where the entry itself is wrong, else what the file system says. */
export function entryError(action: string, absolute: string, error: unknown): unknown {
  const code = systemErrorCode(error);
  if (code === undefined || error instanceof OperationError) return error;
  if (!ENTRY_FAULTS.has(code)) return localFileError(action, absolute, error);
  return new FormatError(`its path ${absolute} is taken by another entry or can't be (${code})`, {
    cause: error,
  });
}

/**
 * Linux copies larger writes into larger folios of memory, which in a virtual machine are those
 * that its host has to find first: 900 MB took 0.3 s of CPU time in pieces of 64 to 256 KiB,
 * 1.7 s in pieces of 1 MiB and 2.4 s of 4 MiB (Linux 6.18, ext4).
 */
const WRITE_BYTES = 128 * 1024;

/** Hashing and copying one piece after the other also finds it in the processor's cache. */
function* piecesOf(chunk: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < chunk.length; at += WRITE_BYTES) yield chunk.subarray(at, at + WRITE_BYTES);
}
