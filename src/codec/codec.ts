import type { ByteStream } from "../io/bytes.ts";

/** Names as in WALG_COMPRESSION_METHOD, and gzip, which is read only. */
export type CompressionMethod = "zstd" | "lz4" | "brotli" | "lzma" | "gzip" | "none";

export interface CompressOptions {
  /** In the codec's own scale; absent = the codec's default. */
  readonly level?: number;
  /** Blocks or frames compressed at the same time, where the format allows it. */
  readonly jobs: number;
  readonly signal: AbortSignal;
}

export interface DecompressOptions {
  readonly jobs: number;
  readonly signal: AbortSignal;
}

/**
 * One compression format, both ways, in bounded memory.
 *
 * `decompress` never ends early: input that stops before the format's end rejects with
 * TruncatedError (empty input too, but for "none"), any other damage that the format can detect
 * with FormatError, bytes after the end as well. Frames and streams that follow each other are all
 * read.
 */
export interface Codec {
  readonly method: CompressionMethod;
  /** Without dot; "" for none. */
  readonly extension: string;
  /** Whether each changed bit is detected by `decompress`, by a checksum over the content. */
  readonly hasContentChecksum: boolean;
  compress(input: ByteStream, options: CompressOptions): ByteStream;
  decompress(input: ByteStream, options: DecompressOptions): ByteStream;
}
