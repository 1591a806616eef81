import { closeSync, constants, ftruncateSync, openSync, writeSync } from "node:fs";
import { DamagedError, FormatError, systemErrorCode } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";

/** Unit of an increment: a page of PostgreSQL. */
const PAGE_BYTES = 8192;
/** 128 KiB, for the reason that restore-tree.ts gives. */
const PAGES_PER_WRITE = 16;

/** Blocks in a relation segment of 1 GiB; increments are made of such files. */
const MAX_BLOCKS = 131_072;

/** "wi", format "1", and a byte that is no text. */
const MAGIC = Buffer.from([0x77, 0x69, 0x31, 0x55]);
const HEADER_BYTES = 16;

/** The head of an increment: what the file is to become. */
export interface IncrementHeader {
  /** Of the whole file after the increment. */
  readonly fileBytes: number;
  /** Ascending; one page each follows, in this order. */
  readonly blockNumbers: readonly number[];
}

/**
 * Reads the head of an increment of `sizeBytes` in all. Throws FormatError for one that WAL-G would
 * not write: unknown format, blocks not ascending, pages that do not fill the rest exactly.
 */
export async function readIncrementHeader(
  cursor: ByteCursor,
  sizeBytes: number,
): Promise<IncrementHeader> {
  const head = await cursor.readExactly(HEADER_BYTES);
  if (!head.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new FormatError(`increment begins with ${head.subarray(0, 4).toString("hex")}`);
  }
  const fileBytes = Number(head.readBigUInt64LE(4));
  const count = head.readUInt32LE(12);
  const promisedBytes = HEADER_BYTES + count * (4 + PAGE_BYTES);
  if (promisedBytes !== sizeBytes) {
    throw new FormatError(
      `increment of ${count} pages has ${sizeBytes} bytes, not ${promisedBytes}`,
    );
  }
  if (fileBytes > MAX_BLOCKS * PAGE_BYTES || count > MAX_BLOCKS) {
    throw new FormatError(`increment is for a file of ${fileBytes} bytes, more than a segment`);
  }
  const list = await cursor.readExactly(4 * count);
  const blockNumbers: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const block = list.readUInt32LE(4 * index);
    const last = blockNumbers.at(-1) ?? -1;
    if (block <= last || block >= MAX_BLOCKS) {
      throw new FormatError(`increment has block ${block} behind ${last}`);
    }
    blockNumbers.push(block);
  }
  return { fileBytes, blockNumbers };
}

/**
 * Writes the pages of an increment over the file of the base, which becomes as long as it was when
 * the increment was made. Throws DamagedError if the base gave no such file.
 */
export async function applyIncrement(
  path: string,
  content: ByteStream,
  sizeBytes: number,
): Promise<void> {
  const cursor = new ByteCursor(content, "increment");
  const { fileBytes, blockNumbers } = await readIncrementHeader(cursor, sizeBytes);
  const file = openBase(path);
  try {
    ftruncateSync(file, fileBytes);
    const pages = Buffer.allocUnsafe(PAGES_PER_WRITE * PAGE_BYTES);
    for (const { start, count } of runsOf(blockNumbers)) {
      const run = pages.subarray(0, count * PAGE_BYTES);
      await cursor.fill(run);
      writeAt(file, run, start * PAGE_BYTES);
    }
    if (await cursor.hasMore()) throw new FormatError("increment goes on behind its last page");
  } finally {
    closeSync(file);
  }
}

function openBase(path: string): number {
  try {
    return openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw error;
    throw new DamagedError(`increment is for ${path}, which its base does not hold`, {
      hint: "The chain is broken: restore a backup from before this one.",
      cause: error,
    });
  }
}

function writeAt(file: number, bytes: Uint8Array, position: number): void {
  let offset = 0;
  while (offset < bytes.length) {
    offset += writeSync(file, bytes, offset, bytes.length - offset, position + offset);
  }
}

/** Consecutive blocks, cut into pieces that are written at once. */
function* runsOf(blockNumbers: readonly number[]): Generator<{ start: number; count: number }> {
  let run: { start: number; count: number } | undefined;
  for (const block of blockNumbers) {
    if (run !== undefined && block === run.start + run.count && run.count < PAGES_PER_WRITE) {
      run.count += 1;
      continue;
    }
    if (run !== undefined) yield run;
    run = { start: block, count: 1 };
  }
  if (run !== undefined) yield run;
}
