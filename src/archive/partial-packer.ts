import type { Codec } from "../codec/codec.ts";
import type { ByteStream } from "../io/bytes.ts";
import { readAll } from "../io/bytes.ts";
import type { CallOptions } from "../storage/storage.ts";
import type { WalSpool } from "./wal-spool.ts";

/** What is compressed anew each time is at most this much, and one block of zeros in all. */
const BLOCK_BYTES = 1024 * 1024;
/** Of compressed blocks that are kept; blocks beyond are compressed each time. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024;

export interface PackOptions {
  readonly codec: Codec;
  readonly level?: number | undefined;
  readonly codecJobs: number;
  /** Whether one segment is packed many times, as when every commit waits for it. */
  readonly isSynchronous: boolean;
}

/**
 * Compresses a segment again and again while it grows. Where the format allows it, in blocks, of
 * which those that can't change any more are compressed only once.
 */
export class PartialPacker {
  readonly #spool: WalSpool;
  readonly #options: PackOptions;
  /** By the number of the block. */
  readonly #full = new Map<number, Uint8Array>();
  #zeros: Uint8Array | undefined;
  #keptBytes = 0;

  constructor(spool: WalSpool, options: PackOptions) {
    this.#spool = spool;
    this.#options = options;
  }

  /** The first `endBytes` of the segment, zeros behind them. */
  pack(endBytes: number, { signal }: CallOptions): ByteStream {
    const { codec, isSynchronous } = this.#options;
    // zstd takes frames that follow each other for one content, and so do we and WAL-G.
    return codec.method === "zstd" && isSynchronous
      ? this.#packBlocks(endBytes, signal)
      : this.#compress(this.#spool.read(endBytes, { signal }), signal);
  }

  async *#packBlocks(endBytes: number, signal: AbortSignal): ByteStream {
    const { segmentBytes } = this.#spool;
    for (let start = 0; start < segmentBytes; start += BLOCK_BYTES) {
      yield await this.#packBlock(start, endBytes, signal);
    }
  }

  async #packBlock(start: number, endBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    if (start >= endBytes) return (this.#zeros ??= await this.#packRange(start, endBytes, signal));
    const kept = this.#full.get(start);
    if (kept !== undefined) return kept;
    const packed = await this.#packRange(start, endBytes, signal);
    const isFull = start + BLOCK_BYTES <= endBytes;
    if (isFull && this.#keptBytes + packed.length <= KEPT_BYTES_MAX) {
      this.#full.set(start, packed);
      this.#keptBytes += packed.length;
    }
    return packed;
  }

  async #packRange(start: number, endBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    const end = Math.min(start + BLOCK_BYTES, this.#spool.segmentBytes);
    return await readAll(this.#compress(this.#spool.readRange({ start, end, endBytes }), signal));
  }

  #compress(content: ByteStream, signal: AbortSignal): ByteStream {
    const { codec, level, codecJobs: jobs } = this.#options;
    return codec.compress(content, { jobs, signal, ...(level === undefined ? {} : { level }) });
  }
}
