import { constants, createBrotliCompress, createBrotliDecompress } from "node:zlib";
import type { ByteStream } from "../io/bytes.ts";
import type { CompressOptions, DecompressOptions } from "./codec.ts";
import { ZLIB_OPTIONS, compressedByZlib, decompressedByZlib } from "./zlib-stream.ts";

/** WAL-G's quality. */
const DEFAULT_LEVEL = 3;

/** Levels 0 to 11. The format has no checksum: damage may decompress to other bytes. */
export function compress(
  input: ByteStream,
  { level = DEFAULT_LEVEL, signal }: CompressOptions,
): ByteStream {
  const engine = createBrotliCompress({
    ...ZLIB_OPTIONS,
    params: { [constants.BROTLI_PARAM_QUALITY]: level },
  });
  return compressedByZlib(input, engine, { subject: "brotli data", signal });
}

/** One stream: the format knows no second one behind it. */
export function decompress(input: ByteStream, { signal }: DecompressOptions): ByteStream {
  const engine = createBrotliDecompress(ZLIB_OPTIONS);
  return decompressedByZlib(input, engine, { subject: "brotli data", signal });
}
