import { FormatError } from "../errors.ts";
import type { ByteCursor } from "../io/byte-cursor.ts";

/** Unit of an increment: a page of PostgreSQL. */
export const PAGE_BYTES = 8192;

/** Blocks in a relation segment of 1 GiB; increments are made of such files. */
export const MAX_BLOCKS = 131_072;

/** "wi", format "1", and a byte that is no text. */
const MAGIC = Buffer.from([0x77, 0x69, 0x31, 0x55]);
const HEADER_BYTES = 16;
const BLOCK_NUMBER_BYTES = 4;

/** The head of an increment: what the file is to become. */
export interface IncrementHeader {
  /** Of the whole file after the increment. */
  readonly fileBytes: number;
  /** Ascending; one page each follows, in this order. */
  readonly blockNumbers: readonly number[];
}

/** Length of an increment of so many pages. */
export function incrementBytes(pageCount: number): number {
  return HEADER_BYTES + pageCount * (BLOCK_NUMBER_BYTES + PAGE_BYTES);
}

/** The bytes before the pages. */
export function formatIncrementHeader({ fileBytes, blockNumbers }: IncrementHeader): Buffer {
  const head = Buffer.alloc(HEADER_BYTES + BLOCK_NUMBER_BYTES * blockNumbers.length);
  MAGIC.copy(head);
  head.writeBigUInt64LE(BigInt(fileBytes), 4);
  head.writeUInt32LE(blockNumbers.length, 12);
  let at = HEADER_BYTES;
  for (const block of blockNumbers) at = head.writeUInt32LE(block, at);
  return head;
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
  const promisedBytes = incrementBytes(count);
  if (promisedBytes !== sizeBytes) {
    throw new FormatError(
      `increment of ${count} pages has ${sizeBytes} bytes, not ${promisedBytes}`,
    );
  }
  if (fileBytes > MAX_BLOCKS * PAGE_BYTES || count > MAX_BLOCKS) {
    throw new FormatError(`increment is for a file of ${fileBytes} bytes, more than a segment`);
  }
  const list = await cursor.readExactly(BLOCK_NUMBER_BYTES * count);
  const blockNumbers: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const block = list.readUInt32LE(BLOCK_NUMBER_BYTES * index);
    const last = blockNumbers.at(-1) ?? -1;
    if (block <= last || block >= MAX_BLOCKS) {
      throw new FormatError(`increment has block ${block} behind ${last}`);
    }
    blockNumbers.push(block);
  }
  return { fileBytes, blockNumbers };
}

/** Consecutive blocks; `count` is at most `maxCount`. */
export interface BlockRun {
  readonly start: number;
  readonly count: number;
}

/** Puts ascending blocks together into runs of at most `maxCount`. */
export function* runsOf(
  blockNumbers: Iterable<number>,
  maxCount: number,
): Generator<BlockRun, void, undefined> {
  let run: { start: number; count: number } | undefined;
  for (const block of blockNumbers) {
    if (run !== undefined && block === run.start + run.count && run.count < maxCount) {
      run.count += 1;
      continue;
    }
    if (run !== undefined) yield run;
    run = { start: block, count: 1 };
  }
  if (run !== undefined) yield run;
}
