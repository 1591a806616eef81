import { FormatError, TruncatedError } from "../errors.ts";
import { abortable } from "../io/abort.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import { freed } from "../io/freed.ts";
import { Xxh32, xxh32 } from "../io/xxh32.ts";
import type { DecompressOptions } from "./codec.ts";
import { type Lz4Addon, loadLz4Addon } from "./lz4-addon.ts";
import {
  END_MARK,
  FRAME_MAGIC,
  HISTORY_BYTES,
  LEGACY_BLOCK_BYTES,
  LEGACY_MAGIC,
  type Lz4FrameHeader,
  MAGIC_BYTES,
  STORED_FLAG,
  descriptorLength,
  isMagicPrefix,
  isSkippableMagic,
  parseDescriptor,
} from "./lz4-frame.ts";

const WORD_BYTES = 4;
/** A compressed byte stands for at most so many: the most that a match's length grows by. */
const MAX_EXPANSION = 255;
/** What a block of `LEGACY_BLOCK_BYTES` may at most become. */
const MAX_LEGACY_COMPRESSED_BYTES = LEGACY_BLOCK_BYTES + LEGACY_BLOCK_BYTES / MAX_EXPANSION + 16;

/**
 * Reads every standard frame, legacy frames and skippable ones, any number of them in a row, on one
 * core: see Lz4Addon. A legacy frame has no end mark: that it was cut between two blocks nobody can
 * see.
 */
export async function* decompress(input: ByteStream, { signal }: DecompressOptions): ByteStream {
  const cursor = new ByteCursor(abortable(input, signal), "lz4 data");
  try {
    if (!(await cursor.hasMore())) throw new TruncatedError("lz4 data is empty");
    const reader = new Lz4Reader(cursor, await loadLz4Addon());
    yield* freed(reader.frames());
  } finally {
    await cursor.close();
  }
}

class Lz4Reader {
  readonly #cursor: ByteCursor;
  readonly #addon: Lz4Addon;
  /** The place of the size that lz4-napi wants to know, then a block as it is in the frame. */
  #memory = Buffer.alloc(0);

  constructor(cursor: ByteCursor, addon: Lz4Addon) {
    this.#cursor = cursor;
    this.#addon = addon;
  }

  async *frames(): ByteStream {
    let magic = await this.#readMagic();
    while (magic !== undefined) {
      if (magic === LEGACY_MAGIC) {
        magic = yield* this.#legacyFrame();
        continue;
      }
      if (magic === FRAME_MAGIC) yield* this.#frame();
      else await this.#cursor.skip(await this.#readWord());
      magic = await this.#readMagic();
    }
  }

  /** Undefined at the end of the input. */
  async #readMagic(): Promise<number | undefined> {
    const start = this.#cursor.position;
    const bytes = Buffer.alloc(MAGIC_BYTES);
    const sizeBytes = await this.#cursor.readInto(bytes);
    if (sizeBytes === 0) return undefined;
    const found = bytes.subarray(0, sizeBytes);
    if (!isMagicPrefix(found)) {
      throw new FormatError(`no lz4 frame begins at byte ${start}: found ${found.toString("hex")}`);
    }
    if (sizeBytes < MAGIC_BYTES) {
      throw new TruncatedError(`lz4 data ends at byte ${this.#cursor.position} within a frame`);
    }
    return bytes.readUInt32LE(0);
  }

  async *#frame(): ByteStream {
    const header = await this.#readHeader();
    const contentHash = new Xxh32();
    let contentBytes = 0;
    for await (const content of this.#contents(header)) {
      if (header.hasContentChecksum) contentHash.update(content);
      contentBytes += content.length;
      yield content;
    }
    if (header.contentBytes !== undefined && header.contentBytes !== contentBytes) {
      throw new FormatError(
        `lz4 frame is damaged: it declares ${header.contentBytes} bytes and holds ${contentBytes}`,
      );
    }
    if (header.hasContentChecksum) await this.#checkHash("content", contentHash.digest());
  }

  async #readHeader(): Promise<Lz4FrameHeader> {
    const flags = await this.#cursor.readExactly(1);
    const rest = await this.#cursor.readExactly(descriptorLength(flags.readUInt8(0)) - 1);
    return parseDescriptor(Buffer.concat([flags, rest]));
  }

  /** The content of each block up to the end mark. */
  async *#contents(header: Lz4FrameHeader): ByteStream {
    let history: Buffer = Buffer.alloc(0);
    for (;;) {
      const word = await this.#readWord();
      if (word === END_MARK) return;
      const sizeBytes = (word & ~STORED_FLAG) >>> 0;
      if (sizeBytes > header.maxBlockBytes) throw this.#tooLarge(sizeBytes);
      const block = await this.#readBlock(sizeBytes);
      if (header.hasBlockChecksums) await this.#checkHash("block", xxh32(block));

      const isStored = (word & STORED_FLAG) !== 0;
      const content = isStored
        ? Buffer.from(block)
        : this.#decompressed(sizeBytes, header.maxBlockBytes, history);
      if (!header.hasIndependentBlocks) history = nextHistory(history, content);
      yield content;
    }
  }

  /** Gives the magic number of what follows; undefined at the end of the input. */
  async *#legacyFrame(): AsyncGenerator<Uint8Array, number | undefined, undefined> {
    let isLast = false;
    while (await this.#cursor.hasMore()) {
      const word = await this.#readWord();
      if (word === FRAME_MAGIC || word === LEGACY_MAGIC || isSkippableMagic(word)) return word;
      if (isLast)
        throw new FormatError("legacy lz4 frame is damaged: a short block is not the last");
      if (word === 0 || word > MAX_LEGACY_COMPRESSED_BYTES) throw this.#tooLarge(word);
      await this.#readBlock(word);
      const content = this.#decompressed(word, LEGACY_BLOCK_BYTES);
      isLast = content.length < LEGACY_BLOCK_BYTES;
      yield content;
    }
    return undefined;
  }

  async #readWord(): Promise<number> {
    return (await this.#cursor.readExactly(WORD_BYTES)).readUInt32LE(0);
  }

  /** Gives the block's bytes; they are there until the next one is read. */
  async #readBlock(sizeBytes: number): Promise<Buffer> {
    if (this.#memory.length < WORD_BYTES + sizeBytes) {
      this.#memory = Buffer.allocUnsafeSlow(WORD_BYTES + sizeBytes);
    }
    const block = this.#memory.subarray(WORD_BYTES, WORD_BYTES + sizeBytes);
    await this.#cursor.fill(block);
    return block;
  }

  /** The content of the block that was read last. */
  #decompressed(sizeBytes: number, maxBytes: number, history?: Buffer): Buffer {
    const prefixed = this.#memory.subarray(0, WORD_BYTES + sizeBytes);
    prefixed.writeUInt32LE(Math.min(maxBytes, sizeBytes * MAX_EXPANSION), 0);
    try {
      return this.#addon.uncompressSync(prefixed, history);
    } catch (error) {
      const at = this.#cursor.position - sizeBytes;
      const reason = error instanceof Error ? error.message : String(error);
      throw new FormatError(`lz4 block at byte ${at} is damaged: ${reason}`, { cause: error });
    }
  }

  async #checkHash(what: string, actual: number): Promise<void> {
    const expected = await this.#readWord();
    if (actual !== expected) {
      throw new FormatError(
        `lz4 ${what} is damaged before byte ${this.#cursor.position}: its checksum is ` +
          `${expected.toString(16)}, computed ${actual.toString(16)}`,
      );
    }
  }

  #tooLarge(sizeBytes: number): FormatError {
    const at = this.#cursor.position - WORD_BYTES;
    return new FormatError(`lz4 frame is damaged at byte ${at}: a block of ${sizeBytes} bytes`);
  }
}

function nextHistory(history: Buffer, content: Buffer): Buffer {
  return Buffer.from(Buffer.concat([history, content]).subarray(-HISTORY_BYTES));
}
