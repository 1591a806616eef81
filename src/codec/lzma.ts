import { setImmediate as turn } from "node:timers/promises";
import { FormatError, TruncatedError } from "../errors.ts";
import { abortable } from "../io/abort.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { CompressOptions, DecompressOptions } from "./codec.ts";
import { LzmaDecoder, type LzmaStreamShape } from "./lzma-decoder.ts";
import { LzmaEncoder } from "./lzma-encoder.ts";

/**
 * The .lzma container (not .xz): properties, dictionary size, content size, one raw stream.
 *
 * @source doc/lzma-file-format.txt of XZ Utils
 */
const HEADER_BYTES = 13;
/** lc = 3, lp = 0, pb = 2: what every writer uses. */
const PROPERTIES = { literalContextBits: 3, literalPositionBits: 0, positionBits: 2 } as const;
/** In the header that we write, as WAL-G does. We look back less far: see LzmaEncoder. */
const DICTIONARY_BYTES = 8 * 1024 * 1024;
/** The memory that a stream may ask of us; `xz -9` writes 64 MiB. */
const MAX_DICTIONARY_BYTES = 128 * 1024 * 1024;
const UNKNOWN_SIZE_WORD = 0xffffffff;

/** The main thread is kept for at most about 10 ms at a time. */
const INPUT_SLICE_BYTES = 64 * 1024;

const DEFAULT_LEVEL = 3;

/**
 * Levels 0 to 9. The format has no checksum: damage may decompress to other bytes. It is slow, and
 * works on the main thread alone; it is there to read and continue repositories that have it.
 */
export async function* compress(
  input: ByteStream,
  { level = DEFAULT_LEVEL, signal }: CompressOptions,
): ByteStream {
  const encoder = new LzmaEncoder(PROPERTIES, level);
  yield formatHeader();
  for await (const chunk of abortable(input, signal)) {
    for (let at = 0; at < chunk.length; at += INPUT_SLICE_BYTES) {
      encoder.update(chunk.subarray(at, at + INPUT_SLICE_BYTES));
      const output = encoder.take();
      if (output.length > 0) yield output;
      await turn(undefined, { signal });
    }
  }
  encoder.end();
  yield encoder.take();
}

/** Streams with an end marker, with a size, or both. */
export async function* decompress(input: ByteStream, { signal }: DecompressOptions): ByteStream {
  const cursor = new ByteCursor(abortable(input, signal), "lzma data");
  try {
    if (!(await cursor.hasMore())) throw new TruncatedError("lzma data is empty");
    const decoder = new LzmaDecoder(parseHeader(await cursor.readExactly(HEADER_BYTES)));
    let left: Uint8Array = new Uint8Array(0);
    let isLast = false;
    while (!decoder.isEnded) {
      isLast = !(await cursor.hasMore());
      const bytes = Buffer.concat([left, cursor.takeSome(INPUT_SLICE_BYTES)]);
      let at = 0;
      for (;;) {
        const stoppedAt = decoder.decode(bytes, at, isLast);
        const output = decoder.take();
        if (output.length === 0 && stoppedAt === at) break;
        if (output.length > 0) yield output;
        at = stoppedAt;
        await turn(undefined, { signal });
      }
      left = bytes.subarray(at);
    }
    if (left.length > 0 || (await cursor.hasMore())) {
      const end = cursor.position - left.length;
      throw new FormatError(`lzma data ends at byte ${end}, but more bytes follow`);
    }
  } finally {
    await cursor.close();
  }
}

function formatHeader(): Buffer {
  const { literalContextBits, literalPositionBits, positionBits } = PROPERTIES;
  const header = Buffer.alloc(HEADER_BYTES, 0xff);
  header.writeUInt8((positionBits * 5 + literalPositionBits) * 9 + literalContextBits, 0);
  header.writeUInt32LE(DICTIONARY_BYTES, 1);
  return header;
}

function parseHeader(header: Buffer): LzmaStreamShape {
  const properties = header.readUInt8(0);
  if (properties >= 9 * 5 * 5) {
    throw new FormatError(`not lzma data: it begins with 0x${header.toString("hex", 0, 1)}`);
  }
  const dictionaryBytes = header.readUInt32LE(1);
  if (dictionaryBytes > MAX_DICTIONARY_BYTES) {
    throw new FormatError(
      `lzma data needs a dictionary of ${dictionaryBytes} bytes, more than ${MAX_DICTIONARY_BYTES}`,
      { hint: "Decompress it with `xz -d --format=lzma` on a machine with enough memory." },
    );
  }
  if (!isPowerOfTwo(dictionaryBytes)) {
    throw new FormatError(
      `lzma data names a dictionary of ${dictionaryBytes} bytes: no writer does`,
    );
  }
  const low = header.readUInt32LE(5);
  const high = header.readUInt32LE(9);
  const isSizeKnown = low !== UNKNOWN_SIZE_WORD || high !== UNKNOWN_SIZE_WORD;
  return {
    literalContextBits: properties % 9,
    literalPositionBits: Math.floor(properties / 9) % 5,
    positionBits: Math.floor(properties / 45),
    dictionaryBytes,
    ...(isSizeKnown ? { contentBytes: low + high * 2 ** 32 } : {}),
  };
}

/** The sizes that writers choose; with a changed bit it is none any more, and nothing else tells. */
function isPowerOfTwo(sizeBytes: number): boolean {
  return sizeBytes > 0 && Number.isInteger(Math.log2(sizeBytes));
}
