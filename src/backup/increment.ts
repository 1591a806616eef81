import { closeSync, constants, fchmodSync, fstatSync, ftruncateSync, openSync } from "node:fs";
import { FormatError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import { readIncrementHeader, runsOf, PAGE_BYTES } from "./increment-header.ts";
import { PageGaps } from "./page-gaps.ts";
import { writeAll, type WriteAt } from "./compared-write.ts";

/** 128 KiB, for the reason that restore-tree.ts gives. */
const PAGES_PER_WRITE = 16;

/** Content of one tar entry. */
export interface EntryContent {
  readonly content: ByteStream;
  readonly sizeBytes: number;
}

/** How a file is written. */
export interface PageWriting {
  /** Whether the file may be there already, with content that need not be written again. */
  readonly isCompared: boolean;
  /** Whether the file there is the base: it must have every page that the increment does not. */
  readonly isOnTop?: boolean;
  readonly writeAt: WriteAt;
}

/** For files that are new. */
export const NEW_FILE: PageWriting = { isCompared: false, writeAt: writeAll };

/**
 * Makes a file of the increment of the newest backup that has one: as long as it is to become, with
 * the increment's pages. Gives the pages that older backups have to supply.
 */
export async function beginWithIncrement(
  path: string,
  mode: number,
  entry: EntryContent,
  writing: PageWriting = NEW_FILE,
): Promise<PageGaps> {
  const access = writing.isCompared ? constants.O_RDWR : constants.O_WRONLY | constants.O_TRUNC;
  const flags = access | constants.O_CREAT | constants.O_NOFOLLOW;
  return await onFile(openSync(path, flags, 0o600), async (file) => {
    fchmodSync(file, mode);
    const cursor = new ByteCursor(entry.content, "increment");
    const { fileBytes, blockNumbers } = await readIncrementHeader(cursor, entry.sizeBytes);
    if (writing.isOnTop === true) requireCovered(file, fileBytes, blockNumbers);
    ftruncateSync(file, fileBytes);
    const gaps = PageGaps.of(Math.ceil(fileBytes / PAGE_BYTES));
    // A page behind the end was appended while the file was read: WAL knows it, too.
    await copyPages({ file, cursor, gaps, writing }, blockNumbers, () => true);
    return gaps;
  });
}

/** Throws FormatError, before anything is written, when pages would be missing. */
function requireCovered(file: number, fileBytes: number, blockNumbers: readonly number[]): void {
  const { size: sizeBytes } = fstatSync(file);
  const first = Math.floor(sizeBytes / PAGE_BYTES);
  const wanted = Math.max(0, Math.ceil(fileBytes / PAGE_BYTES) - first);
  const given = blockNumbers.filter((block) => block >= first).length;
  if (given >= wanted) return;
  throw new FormatError(
    `the file there has ${first} pages, ${wanted - given} of those behind them are missing`,
  );
}

/** Takes from an older increment the pages that are still missing; gives what is missing then. */
export async function fillFromIncrement(
  path: string,
  entry: EntryContent,
  missing: PageGaps,
  writing: PageWriting = NEW_FILE,
): Promise<PageGaps> {
  return await onFile(openExisting(path), async (file) => {
    const gaps = missing.copy();
    const cursor = new ByteCursor(entry.content, "increment");
    const { fileBytes, blockNumbers } = await readIncrementHeader(cursor, entry.sizeBytes);
    const copy = { file, cursor, gaps, writing };
    await copyPages(copy, blockNumbers, (block) => gaps.isMissing(block));
    gaps.endAt(Math.ceil(fileBytes / PAGE_BYTES));
    return gaps;
  });
}

export interface FillOptions {
  /** Sees all bytes, piece by piece. */
  readonly onChunk: (chunk: Uint8Array) => void;
  readonly writing?: PageWriting;
}

/** The same from a whole file, read to its end. */
export async function fillFromFile(
  path: string,
  { content, sizeBytes }: EntryContent,
  missing: PageGaps,
  { onChunk, writing = NEW_FILE }: FillOptions,
): Promise<PageGaps> {
  return await onFile(openExisting(path), async (file) => {
    const gaps = missing.copy();
    const cursor = new ByteCursor(content, "file");
    const pages = Buffer.allocUnsafe(PAGES_PER_WRITE * PAGE_BYTES);
    for (let at = 0; at < sizeBytes; at += pages.length) {
      const piece = pages.subarray(0, Math.min(pages.length, sizeBytes - at));
      await cursor.fill(piece);
      onChunk(piece);
      writeMissing(piece, at / PAGE_BYTES, { file, gaps, writing });
    }
    if (await cursor.hasMore()) throw new FormatError("file goes on behind its end");
    gaps.endAt(Math.ceil(sizeBytes / PAGE_BYTES));
    return gaps;
  });
}

interface PageCopy {
  readonly file: number;
  readonly cursor: ByteCursor;
  readonly gaps: PageGaps;
  readonly writing: PageWriting;
}

/** Reads all pages of an increment, and writes those that are wanted. */
async function copyPages(
  { file, cursor, gaps, writing }: PageCopy,
  blockNumbers: readonly number[],
  isWanted: (block: number) => boolean,
): Promise<void> {
  const pages = Buffer.allocUnsafe(PAGES_PER_WRITE * PAGE_BYTES);
  for (const { start, count } of runsOf(blockNumbers, PAGES_PER_WRITE)) {
    const run = pages.subarray(0, count * PAGE_BYTES);
    await cursor.fill(run);
    writeWanted(run, start, { file, writing }, isWanted);
    for (let block = start; block < start + count; block += 1) gaps.close(block);
  }
  if (await cursor.hasMore()) throw new FormatError("increment goes on behind its last page");
}

function writeMissing(
  bytes: Uint8Array,
  first: number,
  { gaps, ...target }: Omit<PageCopy, "cursor">,
): void {
  writeWanted(bytes, first, target, (block) => gaps.isMissing(block));
  const count = Math.ceil(bytes.length / PAGE_BYTES);
  for (let block = first; block < first + count; block += 1) gaps.close(block);
}

/** Writes the wanted ones of consecutive pages, neighbours at once; the last may be cut. */
function writeWanted(
  bytes: Uint8Array,
  first: number,
  { file, writing }: Pick<PageCopy, "file" | "writing">,
  isWanted: (block: number) => boolean,
): void {
  const count = Math.ceil(bytes.length / PAGE_BYTES);
  for (let from = 0; from < count;) {
    if (!isWanted(first + from)) {
      from += 1;
      continue;
    }
    let to = from + 1;
    while (to < count && isWanted(first + to)) to += 1;
    const run = bytes.subarray(from * PAGE_BYTES, to * PAGE_BYTES);
    writing.writeAt(file, run, (first + from) * PAGE_BYTES);
    from = to;
  }
}

function openExisting(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
}

async function onFile<T>(file: number, work: (file: number) => Promise<T>): Promise<T> {
  try {
    return await work(file);
  } finally {
    closeSync(file);
  }
}
