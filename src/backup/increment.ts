import { closeSync, constants, fchmodSync, ftruncateSync, openSync } from "node:fs";
import { FormatError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import { readIncrementHeader, runsOf, PAGE_BYTES } from "./increment-header.ts";
import { PageGaps } from "./page-gaps.ts";
import { writeAllSync } from "./whole-write.ts";

/** 128 KiB, for the reason that restore-tree.ts gives. */
const PAGES_PER_WRITE = 16;

/** Content of one tar entry. */
export interface EntryContent {
  readonly content: ByteStream;
  readonly sizeBytes: number;
}

/**
 * Makes a file of the increment of the newest backup that has one: as long as it is to become, with
 * the increment's pages. Gives the pages that older backups have to supply.
 */
export async function beginWithIncrement(
  path: string,
  mode: number,
  entry: EntryContent,
): Promise<PageGaps> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
  return await onFile(openSync(path, flags, 0o600), async (file) => {
    fchmodSync(file, mode);
    const cursor = new ByteCursor(entry.content, "increment");
    const { fileBytes, blockNumbers } = await readIncrementHeader(cursor, entry.sizeBytes);
    ftruncateSync(file, fileBytes);
    const gaps = PageGaps.of(Math.ceil(fileBytes / PAGE_BYTES));
    // A page behind the end was appended while the file was read: WAL knows it, too.
    await copyPages({ file, cursor, gaps }, blockNumbers, () => true);
    return gaps;
  });
}

/** Takes from an older increment the pages that are still missing; gives what is missing then. */
export async function fillFromIncrement(
  path: string,
  entry: EntryContent,
  missing: PageGaps,
): Promise<PageGaps> {
  return await onFile(openExisting(path), async (file) => {
    const gaps = missing.copy();
    const cursor = new ByteCursor(entry.content, "increment");
    const { fileBytes, blockNumbers } = await readIncrementHeader(cursor, entry.sizeBytes);
    await copyPages({ file, cursor, gaps }, blockNumbers, (block) => gaps.isMissing(block));
    gaps.endAt(Math.ceil(fileBytes / PAGE_BYTES));
    return gaps;
  });
}

/** The same from a whole file, read to its end. `onChunk` sees all bytes, piece by piece. */
export async function fillFromFile(
  path: string,
  { content, sizeBytes }: EntryContent,
  missing: PageGaps,
  onChunk: (chunk: Uint8Array) => void,
): Promise<PageGaps> {
  return await onFile(openExisting(path), async (file) => {
    const gaps = missing.copy();
    const cursor = new ByteCursor(content, "file");
    const pages = Buffer.allocUnsafe(PAGES_PER_WRITE * PAGE_BYTES);
    for (let at = 0; at < sizeBytes; at += pages.length) {
      const piece = pages.subarray(0, Math.min(pages.length, sizeBytes - at));
      await cursor.fill(piece);
      onChunk(piece);
      writeMissing(file, piece, at / PAGE_BYTES, gaps);
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
}

/** Reads all pages of an increment, and writes those that are wanted. */
async function copyPages(
  { file, cursor, gaps }: PageCopy,
  blockNumbers: readonly number[],
  isWanted: (block: number) => boolean,
): Promise<void> {
  const pages = Buffer.allocUnsafe(PAGES_PER_WRITE * PAGE_BYTES);
  for (const { start, count } of runsOf(blockNumbers, PAGES_PER_WRITE)) {
    const run = pages.subarray(0, count * PAGE_BYTES);
    await cursor.fill(run);
    writeWanted(file, run, start, isWanted);
    for (let block = start; block < start + count; block += 1) gaps.close(block);
  }
  if (await cursor.hasMore()) throw new FormatError("increment goes on behind its last page");
}

function writeMissing(file: number, bytes: Uint8Array, first: number, gaps: PageGaps): void {
  writeWanted(file, bytes, first, (block) => gaps.isMissing(block));
  const count = Math.ceil(bytes.length / PAGE_BYTES);
  for (let block = first; block < first + count; block += 1) gaps.close(block);
}

/** Writes the wanted ones of consecutive pages, neighbours at once; the last may be cut. */
function writeWanted(
  file: number,
  bytes: Uint8Array,
  first: number,
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
    writeAllSync(file, run, (first + from) * PAGE_BYTES);
    from = to;
  }
}

function openExisting(path: string): number {
  return openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW);
}

async function onFile<T>(file: number, work: (file: number) => Promise<T>): Promise<T> {
  try {
    return await work(file);
  } finally {
    closeSync(file);
  }
}
