import { FormatError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import {
  formatIncrementHeader,
  incrementBytes,
  MAX_BLOCKS,
  PAGE_BYTES,
} from "./increment-header.ts";

/** In front of the name of a file of which the server sends changed pages only. */
export const SERVER_INCREMENT_PREFIX = "INCREMENTAL.";

/** @source INCREMENTAL_MAGIC, src/include/backup/basebackup_incremental.h */
const MAGIC = 0xd3ae_1f0d;
const HEADER_BYTES = 12;
const BLOCK_NUMBER_BYTES = 4;

/** The head of an INCREMENTAL.* file. */
export interface ServerIncrementHeader {
  /** Ascending; a page each follows. */
  readonly blockNumbers: readonly number[];
  /** Pages from here on that are not among them are zeros, whatever the base has. */
  readonly truncationBlocks: number;
}

/**
 * Reads the head of an INCREMENTAL.* file of `sizeBytes` in all. Throws FormatError for one that a
 * server would not write.
 *
 * @source GetIncrementalHeaderSize, src/backend/backup/basebackup_incremental.c
 */
export async function readServerIncrementHeader(
  cursor: ByteCursor,
  sizeBytes: number,
): Promise<ServerIncrementHeader> {
  const head = await cursor.readExactly(HEADER_BYTES);
  if (head.readUInt32LE(0) !== MAGIC) {
    throw new FormatError(`server's increment begins with ${head.toString("hex", 0, 4)}`);
  }
  const count = head.readUInt32LE(4);
  const truncationBlocks = head.readUInt32LE(8);
  const listBytes = BLOCK_NUMBER_BYTES * count;
  const headBytes = HEADER_BYTES + listBytes;
  const paddingBytes = count === 0 ? 0 : (PAGE_BYTES - (headBytes % PAGE_BYTES)) % PAGE_BYTES;
  const promisedBytes = headBytes + paddingBytes + count * PAGE_BYTES;
  if (count > MAX_BLOCKS || truncationBlocks > MAX_BLOCKS || promisedBytes !== sizeBytes) {
    throw new FormatError(
      `server's increment of ${count} pages, cut at ${truncationBlocks}, has ${sizeBytes} bytes, ` +
        `not ${promisedBytes}`,
    );
  }
  const list = await cursor.readExactly(listBytes);
  const blockNumbers: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const block = list.readUInt32LE(BLOCK_NUMBER_BYTES * index);
    if (block <= (blockNumbers.at(-1) ?? -1) || block >= MAX_BLOCKS) {
      throw new FormatError(`server's increment has block ${block} behind ${blockNumbers.at(-1)}`);
    }
    blockNumbers.push(block);
  }
  const padding = await cursor.readExactly(paddingBytes);
  if (padding.some((byte) => byte !== 0)) {
    throw new FormatError("server's increment has bytes other than zero behind its block numbers");
  }
  return { blockNumbers, truncationBlocks };
}

/** What becomes of an INCREMENTAL.* file in the repository's own increment format. */
export interface ConvertedIncrement {
  /** Of the file that it makes. */
  readonly fileBytes: number;
  /** Ascending: the server's pages, and those that have become zeros. */
  readonly blockNumbers: readonly number[];
  /** Length of the increment. */
  readonly sizeBytes: number;
  /** Its bytes; once. */
  readonly content: () => ByteStream;
}

/**
 * Turns an INCREMENTAL.* file into an increment of our format on a base's file of `baseBytes`.
 * Pages that neither the server sent nor the base can give are zeros: there they are made explicit.
 *
 * @source reconstruct_from_incremental_file, src/bin/pg_combinebackup/reconstruct.c
 */
export async function convertServerIncrement(
  content: ByteStream,
  sizeBytes: number,
  baseBytes: number,
): Promise<ConvertedIncrement> {
  const cursor = new ByteCursor(content, "server's increment");
  const { blockNumbers: sent, truncationBlocks } = await readServerIncrementHeader(
    cursor,
    sizeBytes,
  );
  const fileBlocks = Math.max(truncationBlocks, (sent.at(-1) ?? -1) + 1);
  const zerosFrom = Math.min(truncationBlocks, Math.ceil(baseBytes / PAGE_BYTES));
  const sentBlocks = new Set(sent);
  const blockNumbers = sent.filter((block) => block < zerosFrom);
  for (let block = zerosFrom; block < fileBlocks; block += 1) blockNumbers.push(block);
  const fileBytes = fileBlocks * PAGE_BYTES;
  const zeros = Buffer.alloc(PAGE_BYTES);
  return {
    fileBytes,
    blockNumbers,
    sizeBytes: incrementBytes(blockNumbers.length),
    content: async function* () {
      yield formatIncrementHeader({ fileBytes, blockNumbers });
      for (const block of blockNumbers) {
        yield sentBlocks.has(block) ? await cursor.readExactly(PAGE_BYTES) : zeros;
      }
      if (await cursor.hasMore())
        throw new FormatError("server's increment goes on behind its end");
    },
  };
}
