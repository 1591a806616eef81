import type { Codec } from "../codec/codec.ts";
import { codecByExtension } from "../codec/table.ts";
import { DamagedError, FormatError, RefusedError } from "../errors.ts";
import { type ByteStream, readAll } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import type { ListedFile } from "./manifest-table.ts";
import type { PageGaps } from "./page-gaps.ts";
import { type Paths, PathSet, type PathValues } from "./path-set.ts";
import type { Storage } from "../storage/storage.ts";
import { readTar, type TarEntry } from "../tar/read.ts";
import { isTablespaceMarker, judgeLink, parseEntryName } from "./extract-path.ts";
import type { PlannedPart, RestoreStep } from "./restore-plan.ts";
import { isSpecialPart, isSpecialPath } from "./restore-plan.ts";
import type { EntryContent } from "./increment.ts";

/** pg_control and the labels are held in memory until the end; none is ever near this size. */
const MAX_SPECIAL_BYTES = 16 * 1024 * 1024;

/** What an entry leaves to the collector: header, streams, promises; see noteMade. */
const THINGS_PER_ENTRY = 16;

/** A file that is held back, as its part has it. */
export interface SpecialFile {
  readonly bytes: Buffer;
  readonly mode: number;
}

/** What one part gave, told only when the part was read to its end and found right. */
export interface PartResult {
  /** Paths of files that were written, patched or held back. */
  readonly files: PathSet;
  readonly directories: readonly string[];
  readonly specials: ReadonlyMap<string, SpecialFile>;
  /** Targets by path; nothing is made yet. */
  readonly links: ReadonlyMap<string, string>;
  /** Paths of the files that they are another name of, by path; nothing is made yet. */
  readonly hardLinks: ReadonlyMap<string, string>;
  /** Links of which WAL-G did not store the target. */
  readonly uselessLinks: readonly string[];
  /** Pages that are still missing, of files of which this part gave some, by path. */
  readonly gaps: ReadonlyMap<string, PageGaps>;
}

/** Where the files of parts go. */
export interface ExtractTarget {
  /** Whether `path` is a tablespace's place in pg_tblspc, of which no entry is taken. */
  isTablespaceRoot(path: string): boolean;
  addDirectory(path: string, mode: number): void;
  /** Takes a whole file. `onChunk` sees all bytes, piece by piece, here and below. */
  writeFile(
    path: string,
    mode: number,
    entry: EntryContent,
    onChunk: (chunk: Uint8Array) => void,
  ): Promise<void>;
  /** Takes what is missing from an increment; all of it, where `missing` is absent. */
  addPages(
    path: string,
    mode: number,
    entry: EntryContent,
    missing: PageGaps | undefined,
  ): Promise<PageGaps>;
  /** Takes the missing pages from a whole older file. */
  fillFile(
    path: string,
    entry: EntryContent,
    missing: PageGaps,
    onChunk: (chunk: Uint8Array) => void,
  ): Promise<PageGaps>;
}

export interface ExtractContext {
  readonly storage: Storage;
  readonly tree: ExtractTarget;
  readonly codecJobs: number;
  /** Files that are there already: not written again. */
  readonly kept: Paths;
  /** Which part gave a path that no manifest lists; for all parts: none writes another's. */
  readonly owners: PathValues<string>;
  /** Files begun from newer backups, by path, with what is missing of them; not changed here. */
  readonly gaps: ReadonlyMap<string, PageGaps>;
  /** Permission bits of the newest backup, by path, for files that only older ones hold. */
  readonly modes: Pick<ReadonlyMap<string, number>, "get">;
  onProgress(bytes: number): void;
}

/** The hashers of one worker; not shared between parts that are read at the same time. */
export interface PartHashers {
  /** In the manifest's algorithm. */
  readonly content: Hasher;
  /** XXH64, for stored bytes. */
  readonly stored: Hasher;
}

/**
 * Fetches one part and writes its files below the tree. Checks the part's own checksum and each
 * file's size, place and hash where our manifest has them. Throws DamagedError that names the part,
 * and the entry if it is one's fault; LocalFileError for what the file system says.
 */
export async function extractPart(
  step: RestoreStep,
  part: PlannedPart,
  hashers: PartHashers,
  context: ExtractContext & { readonly signal: AbortSignal },
): Promise<PartResult> {
  return await new PartExtraction(step, part, hashers, context).run(context.signal);
}

/** Throws RefusedError for a method that we can't read, before anything of the part is fetched. */
export function partCodec({ key, extension }: Pick<PlannedPart, "key" | "extension">): Codec {
  const codec = codecByExtension(extension);
  if (codec !== undefined) return codec;
  throw new RefusedError(`${key} is compressed in a way that can't be read: .${extension}`, {
    hint: "Decompress it with the program that made it, and store it without the extension.",
  });
}

class PartExtraction {
  readonly #step: RestoreStep;
  readonly #part: PlannedPart;
  readonly #hashers: PartHashers;
  readonly #context: ExtractContext;
  readonly #files: PathSet;
  readonly #directories: string[] = [];
  readonly #specials = new Map<string, SpecialFile>();
  readonly #links = new Map<string, string>();
  readonly #hardLinks = new Map<string, string>();
  readonly #uselessLinks: string[] = [];
  readonly #gaps = new Map<string, PageGaps>();
  readonly #seen: PathSet;
  /** The entry that is being read, for messages. */
  #entryName: string | undefined;
  /** What is wrong with the part as it is stored, whatever entry was being read just then. */
  #partFault: FormatError | undefined;

  constructor(step: RestoreStep, part: PlannedPart, hashers: PartHashers, context: ExtractContext) {
    this.#step = step;
    this.#part = part;
    this.#hashers = hashers;
    this.#context = context;
    this.#files = new PathSet(step.paths);
    this.#seen = new PathSet(step.paths);
  }

  async run(signal: AbortSignal): Promise<PartResult> {
    try {
      const { storage, codecJobs } = this.#context;
      const codec = partCodec(this.#part);
      const stored = this.#checked(storage.get(this.#part.key, { signal }));
      const tar = codec.decompress(stored, { jobs: codecJobs, signal });
      const { isTrailerOptional } = this.#step;
      for await (const entry of readTar(tar, { isTrailerOptional })) {
        signal.throwIfAborted();
        this.#entryName = entry.name;
        await this.#take(entry);
        this.#entryName = undefined;
      }
    } catch (error) {
      throw this.#explained(error);
    }
    return {
      files: this.#files,
      directories: this.#directories,
      specials: this.#specials,
      links: this.#links,
      hardLinks: this.#hardLinks,
      uselessLinks: this.#uselessLinks,
      gaps: this.#gaps,
    };
  }

  /** The stored bytes, compared at their end with what our manifest says about them. */
  async *#checked(stored: ByteStream): ByteStream {
    const promised = this.#part.stored;
    if (promised === undefined) {
      yield* stored;
      return;
    }
    const { stored: hasher } = this.#hashers;
    let sizeBytes = 0;
    let xxh64: string | undefined;
    try {
      for await (const chunk of stored) {
        sizeBytes += chunk.length;
        hasher.update(chunk);
        yield chunk;
      }
    } finally {
      xxh64 = hasher.digest();
    }
    if (sizeBytes !== promised.sizeBytes) {
      throw this.#partFaultOf(`it has ${sizeBytes} bytes, the manifest says ${promised.sizeBytes}`);
    }
    if (xxh64 !== promised.xxh64) {
      throw this.#partFaultOf(`its xxh64 is ${xxh64}, the manifest says ${promised.xxh64}`);
    }
  }

  #partFaultOf(message: string): FormatError {
    this.#partFault = new FormatError(message);
    return this.#partFault;
  }

  async #take(entry: TarEntry): Promise<void> {
    this.#step.paths.noteMade(THINGS_PER_ENTRY);
    const path = parseEntryName(entry.name);
    if (isTablespaceMarker(path)) return;
    if (isSpecialPart(this.#part) && !(entry.kind === "file" && isSpecialPath(path))) {
      throw new FormatError("it does not belong into this part");
    }
    if (entry.kind === "directory") this.#takeDirectory(path, entry);
    else if (!this.#isWanted(path, entry)) return;
    else if (entry.kind === "file") await this.#takeFile(path, entry);
    else if (entry.kind === "symlink") this.#takeLink(path, entry);
    else if (entry.kind === "hardlink") this.#takeHardLink(path, entry);
    else throw new FormatError(`it is a ${entry.kind}, which no data directory holds`);
  }

  #isWanted(path: string, entry: TarEntry): boolean {
    if (entry.kind !== "file" && !this.#step.isNewest) return false;
    if (isSpecialPath(path) && !this.#step.isNewest) return false;
    if (!this.#step.isWanted(path)) return false;
    if (path === "") throw new FormatError(`the data directory itself is a ${entry.kind}`);
    this.#claim(path);
    return true;
  }

  #claim(path: string): void {
    if (this.#seen.has(path)) throw new FormatError("the part holds this entry twice");
    this.#seen.add(path);
    if (isSpecialPath(path)) return;
    if (this.#step.manifest?.files.has(path) === true) return;
    const owner = this.#context.owners.get(path) ?? this.#part.name;
    if (owner !== this.#part.name) throw new FormatError(`part ${owner} holds this entry, too`);
    this.#context.owners.set(path, owner);
  }

  #takeDirectory(path: string, entry: TarEntry): void {
    const { manifest, isNewest } = this.#step;
    if (!isNewest) return;
    if (manifest !== undefined && !manifest.directories.has(path)) {
      throw new FormatError("the manifest lists no such directory");
    }
    this.#context.tree.addDirectory(path, entry.mode);
    this.#directories.push(path);
  }

  async #takeFile(path: string, entry: TarEntry): Promise<void> {
    const listed = this.#listed(path, entry);
    if (isSpecialPath(path)) return await this.#holdBack(path, entry, listed);
    if (this.#context.kept.has(path)) {
      this.#files.add(path);
      return;
    }
    const missing = this.#context.gaps.get(path);
    if (this.#step.increments.has(path)) await this.#addPages(path, entry, missing);
    else if (missing !== undefined) await this.#fillFile(path, entry, { missing, listed });
    else await this.#writeFile(path, entry, listed);
    this.#files.add(path);
  }

  #modeOf(path: string, entry: TarEntry): number {
    return this.#context.modes.get(path) ?? entry.mode;
  }

  async #addPages(path: string, entry: TarEntry, missing: PageGaps | undefined): Promise<void> {
    const { tree } = this.#context;
    await this.#hashed(this.#step.manifest?.files.get(path), async (onChunk) => {
      const content = observed(entry.content(), onChunk);
      const mode = this.#modeOf(path, entry);
      const gaps = await tree.addPages(path, mode, { ...entry, content }, missing);
      this.#setGaps(path, gaps);
    });
  }

  async #fillFile(
    path: string,
    entry: TarEntry,
    { missing, listed }: { readonly missing: PageGaps; readonly listed?: ListedFile | undefined },
  ): Promise<void> {
    const { tree } = this.#context;
    await this.#hashed(listed, async (onChunk) => {
      const content = { sizeBytes: entry.sizeBytes, content: entry.content() };
      this.#setGaps(path, await tree.fillFile(path, content, missing, onChunk));
    });
  }

  #setGaps(path: string, gaps: PageGaps): void {
    if (this.#step.manifest !== undefined && gaps.zeroCount > 0) {
      throw new FormatError(`it lacks ${gaps.zeroCount} pages that the backups on top of it need`);
    }
    this.#gaps.set(path, gaps);
  }

  async #writeFile(path: string, entry: TarEntry, listed?: ListedFile): Promise<void> {
    const { tree } = this.#context;
    await this.#hashed(listed, async (onChunk) => {
      const content = { sizeBytes: entry.sizeBytes, content: entry.content() };
      await tree.writeFile(path, this.#modeOf(path, entry), content, onChunk);
    });
  }

  /** Runs what reads the entry's whole content, and compares that with what is promised. */
  async #hashed(
    listed: ListedFile | undefined,
    work: (onChunk: (chunk: Uint8Array) => void) => Promise<void>,
  ): Promise<void> {
    const { content: hasher } = this.#hashers;
    const onChunk = (chunk: Uint8Array): void => {
      if (listed !== undefined) hasher.update(chunk);
      this.#context.onProgress(chunk.length);
    };
    try {
      await work(onChunk);
    } catch (error) {
      hasher.digest();
      throw error;
    }
    if (listed !== undefined) requireHash(hasher.digest(), hasher.algorithm, listed);
  }

  async #holdBack(path: string, entry: TarEntry, listed?: ListedFile): Promise<void> {
    if (entry.sizeBytes > MAX_SPECIAL_BYTES) {
      throw new FormatError(`it has ${entry.sizeBytes} bytes, more than such a file can have`);
    }
    const bytes = await readAll(entry.content());
    if (listed !== undefined) {
      const { content: hasher } = this.#hashers;
      requireHash(hasher.digestOf(bytes), hasher.algorithm, listed);
    }
    this.#specials.set(path, { bytes, mode: entry.mode });
    this.#files.add(path);
  }

  /** What our manifest says about a file, if there is one; it must agree on everything. */
  #listed(path: string, entry: TarEntry): ListedFile | undefined {
    const { manifest } = this.#step;
    if (manifest === undefined) return undefined;
    const listed = manifest.files.get(path);
    if (listed === undefined) throw new FormatError("the manifest lists no such file");
    for (const [what, actual, promised] of [
      ["part", this.#part.name, listed.part],
      ["offset", entry.contentStart, listed.offsetBytes],
      ["size", entry.sizeBytes, listed.sizeBytes],
      ["mode", entry.mode, listed.mode],
    ] as const) {
      if (actual === promised) continue;
      throw new FormatError(`its ${what} is ${actual}, the manifest says ${promised}`);
    }
    return listed;
  }

  #takeLink(path: string, entry: TarEntry): void {
    const { manifest } = this.#step;
    if (this.#context.tree.isTablespaceRoot(path)) return;
    const listedTarget = manifest?.links.get(path);
    if (manifest !== undefined && listedTarget === undefined) {
      throw new FormatError("the manifest lists no such symbolic link");
    }
    if (judgeLink(path, entry.linkName, listedTarget) === "useless") this.#uselessLinks.push(path);
    else this.#links.set(path, entry.linkName);
  }

  #takeHardLink(path: string, entry: TarEntry): void {
    const { manifest } = this.#step;
    if (manifest !== undefined) throw new FormatError("the manifest lists no hard links");
    const target = parseEntryName(entry.linkName);
    if (isSpecialPath(path) || isSpecialPath(target)) {
      throw new FormatError(`it is a hard link to ${target}, which is held back`);
    }
    this.#hardLinks.set(path, target);
  }

  #explained(error: unknown): unknown {
    if (!(error instanceof FormatError)) return error;
    const { name } = this.#part;
    const { backup } = this.#step;
    const isEntryFault = this.#entryName !== undefined && error !== this.#partFault;
    const entry = isEntryFault ? `entry ${JSON.stringify(this.#entryName)} of ` : "";
    return new DamagedError(
      `${entry}part ${name} of backup ${backup} is refused: ${error.message}`,
      {
        hint: "Restore another backup, or bring the object back from a copy of the repository.",
        cause: error,
      },
    );
  }
}

function requireHash(actual: string, algorithm: string, { hash }: ListedFile): void {
  if (actual === hash) return;
  throw new FormatError(`its ${algorithm} is ${actual}, the manifest says ${hash}`);
}

async function* observed(stream: ByteStream, onChunk: (chunk: Uint8Array) => void): ByteStream {
  for await (const chunk of stream) {
    onChunk(chunk);
    yield chunk;
  }
}
