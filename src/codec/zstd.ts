import { FormatError, TruncatedError } from "../errors.ts";
import { abortable } from "../io/abort.ts";
import { zlib } from "../io/builtin.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import { free, freed } from "../io/freed.ts";
import { orderedJobs } from "../io/ordered.ts";
import { zstdCompressFrame, zstdDecompressFrame } from "../io/runtime.ts";
import type { CompressOptions, DecompressOptions } from "./codec.ts";
import { type Piece, pieces } from "./piece.ts";
import { ZLIB_OPTIONS, decompressedByZlib } from "./zlib-stream.ts";
import { type ZstdFrameHeader, ZstdFrameWalker } from "./zstd-frame.ts";

/** zstd's own default, and WAL-G's "default". */
const DEFAULT_LEVEL = 3;

/**
 * Content of each frame that we write: several cores work at the same time, also on one segment, in
 * little memory. It also bounds the window, whatever the level: decoders of old WAL-G releases take
 * 8 MiB.
 */
export const FRAME_CONTENT_BYTES = 2 * 1024 * 1024;

/** Frames whose content is known to be no larger are decompressed whole, several at a time. */
const MAX_WHOLE_CONTENT_BYTES = 8 * 1024 * 1024;

/** What can't be compressed grows by less than this; a frame that grows more is streamed. */
const MAX_WHOLE_FRAME_BYTES = MAX_WHOLE_CONTENT_BYTES + 64 * 1024;

/** The memory that a stream may ask of us; `zstd -19` writes 8 MiB, `--long` 128 MiB. */
const MAX_WINDOW_LOG = 27;

const FIRST_FRAME_BUFFER_BYTES = 256 * 1024;

/**
 * Levels 1 to 22. Writes frames with content size and checksum, one after the other. Cut off
 * exactly between two of them it would still be whole as far as the format goes: once in a million
 * cuts.
 */
export async function* compress(
  input: ByteStream,
  { level = DEFAULT_LEVEL, jobs, signal }: CompressOptions,
): ByteStream {
  let frameCount = 0;
  const compressPiece = async (piece: Piece): Promise<Uint8Array> => {
    const frame = await zstdCompressFrame(piece.bytes, level);
    piece.release();
    return frame;
  };
  const contents = pieces(input, FRAME_CONTENT_BYTES, { signal });
  for await (const frame of orderedJobs(contents, jobs, compressPiece, { signal })) {
    frameCount += 1;
    yield frame;
    free(frame);
  }
  // An empty object would look like one that was cut off.
  if (frameCount === 0) yield await zstdCompressFrame(new Uint8Array(0), level);
}

/** Reads frames of any size and any number of them; skippable ones are passed over. */
export async function* decompress(
  input: ByteStream,
  { jobs, signal }: DecompressOptions,
): ByteStream {
  const reader = new FrameReader(abortable(input, signal));
  try {
    if (!(await reader.hasMore())) throw new TruncatedError("zstd data is empty");
    while (await reader.hasMore()) {
      yield* freed(orderedJobs(reader.wholeFrames(), jobs, decompressFrame, { signal }));
      if (reader.hasLargeFrame) yield* streamFrame(reader, signal);
    }
  } finally {
    await reader.close();
  }
}

async function decompressFrame(frame: WholeFrame): Promise<Uint8Array> {
  const content = await zstdDecompressFrame(frame.bytes, frame.contentBytes);
  frame.release();
  return content;
}

/** What WAL-G writes: one frame for all of an object, its size not known in advance. */
async function* streamFrame(reader: FrameReader, signal: AbortSignal): ByteStream {
  const { constants, createZstdDecompress } = zlib();
  const engine = createZstdDecompress({
    ...ZLIB_OPTIONS,
    params: { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG },
  });
  yield* decompressedByZlib(reader.largeFrame(), engine, { subject: "zstd frame", signal });
}

interface WholeFrame extends Piece {
  readonly contentBytes: number;
}

interface LargeFrame {
  readonly walker: ZstdFrameWalker;
  /** What was read of it before it turned out to be large. */
  readonly begin: Uint8Array;
}

/** Cuts compressed bytes into frames: small ones come whole, large ones as a stream. */
class FrameReader {
  readonly #cursor: ByteCursor;
  readonly #free: Buffer[] = [];
  #largeFrame: LargeFrame | undefined;

  constructor(input: ByteStream) {
    this.#cursor = new ByteCursor(input, "zstd data");
  }

  async hasMore(): Promise<boolean> {
    return this.#largeFrame !== undefined || (await this.#cursor.hasMore());
  }

  /** Whether wholeFrames stopped before a frame that only `largeFrame` can give. */
  get hasLargeFrame(): boolean {
    return this.#largeFrame !== undefined;
  }

  /** The frames up to the next large one or the end. */
  async *wholeFrames(): AsyncGenerator<WholeFrame, void, undefined> {
    while (await this.#cursor.hasMore()) {
      const walker = new ZstdFrameWalker(this.#cursor.position);
      const collected = await this.#collect(walker);
      if (walker.isComplete && walker.header?.kind === "skippable") {
        collected.release();
        continue;
      }
      const contentBytes = wholeContentBytes(walker);
      if (contentBytes === undefined) {
        this.#largeFrame = { walker, begin: collected.bytes };
        return;
      }
      yield { ...collected, contentBytes };
    }
  }

  /** The bytes of the frame before which wholeFrames stopped. */
  async *largeFrame(): ByteStream {
    const frame = this.#largeFrame;
    if (frame === undefined) throw new Error("there is no large frame");
    this.#largeFrame = undefined;
    yield frame.begin;
    while (!frame.walker.isComplete) yield await this.#next(frame.walker);
  }

  async close(): Promise<void> {
    await this.#cursor.close();
  }

  /** Reads a frame into memory, unless and until its header says that it is a large one. */
  async #collect(walker: ZstdFrameWalker): Promise<Piece> {
    let buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(FIRST_FRAME_BUFFER_BYTES);
    let sizeBytes = 0;
    while (!walker.isComplete && isCollected(walker, sizeBytes)) {
      const bytes = await this.#next(walker);
      if (walker.header?.kind === "skippable") continue;
      if (sizeBytes + bytes.length > buffer.length) {
        buffer = grown(buffer, sizeBytes, sizeBytes + bytes.length);
      }
      buffer.set(bytes, sizeBytes);
      sizeBytes += bytes.length;
    }
    return {
      bytes: buffer.subarray(0, sizeBytes),
      release: () => void this.#free.push(buffer),
    };
  }

  async #next(walker: ZstdFrameWalker): Promise<Uint8Array> {
    if (!(await this.#cursor.hasMore())) {
      throw new TruncatedError(`zstd data ends at byte ${this.#cursor.position} within a frame`);
    }
    const bytes = this.#cursor.takeSome(MAX_WHOLE_FRAME_BYTES);
    const end = walker.walk(bytes, 0);
    requireSmallWindow(walker);
    this.#cursor.giveBack(bytes.length - end);
    return bytes.subarray(0, end);
  }
}

function requireSmallWindow({ header }: ZstdFrameWalker): void {
  if (header?.kind !== "content" || header.windowBytes <= 2 ** MAX_WINDOW_LOG) return;
  throw new FormatError(
    `zstd frame needs a window of ${header.windowBytes} bytes, more than ${2 ** MAX_WINDOW_LOG}`,
    { hint: "Decompress it with `zstd -d --long=31` on a machine with enough memory." },
  );
}

/** Whether the frame may still be one that comes whole, as far as it is known. */
function isCollected({ header }: ZstdFrameWalker, collectedBytes: number): boolean {
  if (header?.kind !== "content") return true;
  return isSmall(header) && collectedBytes <= MAX_WHOLE_FRAME_BYTES;
}

function isSmall({ contentBytes }: ZstdFrameHeader): boolean {
  return contentBytes !== undefined && contentBytes <= MAX_WHOLE_CONTENT_BYTES;
}

/** Undefined for a frame that is large, or of which not all was collected. */
function wholeContentBytes({ header, isComplete }: ZstdFrameWalker): number | undefined {
  if (!isComplete || header?.kind !== "content" || !isSmall(header)) return undefined;
  return header.contentBytes;
}

function grown(buffer: Buffer, usedBytes: number, neededBytes: number): Buffer {
  const larger = Buffer.allocUnsafeSlow(Math.max(neededBytes, buffer.length * 2));
  larger.set(buffer.subarray(0, usedBytes));
  return larger;
}
