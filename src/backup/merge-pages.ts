import { FormatError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { EntryContent } from "./increment.ts";
import { PAGE_BYTES, readIncrementHeader, runsOf } from "./increment-header.ts";
import { PageGaps } from "./page-gaps.ts";
import type { PageFile } from "./page-file.ts";
import type { ExtractTarget } from "./part-extract.ts";

/** Pages that are written at once where they are neighbours. */
const PAGES_PER_WRITE = 16;

/** Where the pages of one increment of one file are. */
interface SpooledRun {
  /** Which backup gave them: 0 is the newest. */
  readonly step: number;
  /** Of the block numbers, 4 bytes each; the pages follow, in their order. */
  readonly start: number;
  readonly count: number;
}

/** A file that is put together. */
export interface PatchedFile {
  /** Of the file as it is to become. */
  readonly sizeBytes: number;
  /** Permission bits of the newest backup. */
  readonly mode: number;
  readonly runs: readonly SpooledRun[];
}

/**
 * The pages of a chain's increments, each from the newest backup that has it, on disk until the
 * files that they belong to come by.
 */
export class MergePages {
  readonly #file: PageFile;
  readonly #files = new Map<string, PatchedFile>();
  readonly #directories = new Map<string, number>();
  readonly #tablespaces: ReadonlySet<string>;

  /** `tablespaces` are paths of places in pg_tblspc. */
  constructor(file: PageFile, tablespaces: ReadonlySet<string>) {
    this.#file = file;
    this.#tablespaces = tablespaces;
  }

  get files(): ReadonlyMap<string, PatchedFile> {
    return this.#files;
  }

  /** Permission bits by path, of the directories that the newest backup's parts hold. */
  get directories(): ReadonlyMap<string, number> {
    return this.#directories;
  }

  /** What takes the increments of one backup; the newest has the step 0 and comes first. */
  target(step: number): ExtractTarget {
    return {
      isTablespaceRoot: (path) => this.#tablespaces.has(path),
      addDirectory: (path, mode) => void this.#directories.set(path, mode),
      addPages: async (path, mode, entry, missing) =>
        await this.#addPages({ path, mode, step }, entry, missing),
      writeFile: async (path) => await Promise.reject(new Error(`${path} is no increment`)),
      fillFile: async (path) => await Promise.reject(new Error(`${path} is no increment`)),
    };
  }

  /** Position of each page that an increment gave, by block. */
  positionsOf({ runs }: PatchedFile): ReadonlyMap<number, number> {
    const positions = new Map<number, number>();
    for (const { start, count } of runs) {
      const list = Buffer.allocUnsafe(4 * count);
      this.#file.read(list, start);
      for (let index = 0; index < count; index += 1) {
        const position = start + list.length + index * PAGE_BYTES;
        positions.set(list.readUInt32LE(4 * index), position);
      }
    }
    return positions;
  }

  /** Fills `page` with what is at a position that `positionsOf` gave. */
  readPage(page: Uint8Array, position: number): void {
    this.#file.read(page, position);
  }

  async #addPages(
    { path, mode, step }: { readonly path: string; readonly mode: number; readonly step: number },
    entry: EntryContent,
    missing: PageGaps | undefined,
  ): Promise<PageGaps> {
    const cursor = new ByteCursor(entry.content, "increment");
    const { fileBytes, blockNumbers } = await readIncrementHeader(cursor, entry.sizeBytes);
    const blockCount = Math.ceil(fileBytes / PAGE_BYTES);
    const gaps = missing === undefined ? PageGaps.of(blockCount) : missing.copy();
    // As a restore: what lies behind the end of the newest is kept, and makes the file longer.
    const isWanted = (block: number): boolean => missing === undefined || gaps.isMissing(block);
    const run = { step, ...(await this.#spool(cursor, blockNumbers, isWanted)) };
    if (await cursor.hasMore()) throw new FormatError("increment goes on behind its last page");
    for (const block of blockNumbers) gaps.close(block);
    if (missing !== undefined) gaps.endAt(blockCount);
    const known = missing === undefined ? undefined : this.#files.get(path);
    const endBytes = ((blockNumbers.at(-1) ?? -1) + 1) * PAGE_BYTES;
    this.#files.set(path, {
      sizeBytes: known?.sizeBytes ?? Math.max(fileBytes, endBytes),
      mode: known?.mode ?? mode,
      // A part that did not arrive whole is read again.
      runs: [...(known?.runs.filter((other) => other.step < step) ?? []), run],
    });
    return gaps;
  }

  /** Gives the place of what it wrote: first the numbers of the wanted blocks. */
  async #spool(
    cursor: ByteCursor,
    blockNumbers: readonly number[],
    isWanted: (block: number) => boolean,
  ): Promise<Pick<SpooledRun, "start" | "count">> {
    const wanted = blockNumbers.filter(isWanted);
    const list = Buffer.allocUnsafe(4 * wanted.length);
    for (const [index, block] of wanted.entries()) list.writeUInt32LE(block, 4 * index);
    const start = this.#file.reserve(list.length + wanted.length * PAGE_BYTES);
    this.#file.write(list, start);
    const pages = Buffer.allocUnsafe(PAGES_PER_WRITE * PAGE_BYTES);
    let at = start + list.length;
    for (const run of runsOf(blockNumbers, PAGES_PER_WRITE)) {
      await cursor.fill(pages.subarray(0, run.count * PAGE_BYTES));
      for (let index = 0; index < run.count; index += 1) {
        if (!isWanted(run.start + index)) continue;
        this.#file.write(pages.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES), at);
        at += PAGE_BYTES;
      }
    }
    return { start, count: wanted.length };
  }
}
