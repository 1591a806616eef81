import { open } from "node:fs/promises";
import type { Codec } from "../codec/codec.ts";
import { FRAME_CONTENT_BYTES } from "../codec/zstd.ts";
import { LocalFileError } from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { free } from "../io/freed.ts";
import { orderedJobs, Semaphore } from "../io/ordered.ts";
import { zstdCompressFrame } from "../io/runtime.ts";
import { localFileError } from "../io/system-error.ts";
import type { CallOptions } from "../storage/storage.ts";
import { type LocalWal, readLocalWal, watchContent } from "./local-wal.ts";

export interface PackerOptions {
  readonly codec: Codec;
  /** Compressions at the same time, of all files together. */
  readonly jobs: number;
}

const DEFAULT_ZSTD_LEVEL = 3;
const SMALL_BYTES = 64 * 1024;

/**
 * Compresses WAL files, many at the same time if need be, with as many jobs as there are cores in
 * all, in buffers that are used again. With zstd each job reads its own part of the file, and the
 * objects can't be told from those of codec/zstd.ts.
 */
export class WalPacker {
  readonly #codec: Codec;
  readonly #jobs: number;
  readonly #turns: Semaphore;
  readonly #buffers: Buffer[] = [];

  constructor({ codec, jobs }: PackerOptions) {
    this.#codec = codec;
    this.#jobs = jobs;
    this.#turns = new Semaphore(jobs);
  }

  /** The object to store. Reading begins when it is opened. */
  pack(local: LocalWal, level: number | undefined, options: CallOptions): ByteSource {
    return {
      ...(this.#codec.method === "none" ? { sizeBytes: local.sizeBytes } : {}),
      isReopenable: true,
      open: () =>
        this.#codec.method === "zstd" && local.sizeBytes > 0
          ? this.#frames(local, level ?? DEFAULT_ZSTD_LEVEL, options)
          : this.#other(local, level, options),
    };
  }

  async *#frames(local: LocalWal, level: number, { signal }: CallOptions): ByteStream {
    await using handle = await open(local.path, "r").catch((error: unknown) => {
      throw localFileError("read", local.path, error);
    });
    const requireUnchanged = watchContent(handle, local.path);
    const compressFrom = async (position: number): Promise<Uint8Array> => {
      await this.#turns.acquire({ signal });
      const buffer = this.#buffers.pop() ?? Buffer.allocUnsafeSlow(FRAME_CONTENT_BYTES);
      try {
        const sizeBytes = Math.min(FRAME_CONTENT_BYTES, local.sizeBytes - position);
        const content = buffer.subarray(0, sizeBytes);
        for (let filled = 0; filled < sizeBytes;) {
          const left = sizeBytes - filled;
          const { bytesRead } = await handle.read(content, filled, left, position + filled);
          if (bytesRead === 0) throw new LocalFileError(`${local.path} became shorter`);
          filled += bytesRead;
        }
        requireUnchanged();
        return await zstdCompressFrame(content, level);
      } catch (error) {
        throw localFileError("read", local.path, error);
      } finally {
        this.#buffers.push(buffer);
        this.#turns.release();
      }
    };
    const positions = framePositions(local.sizeBytes);
    for await (const frame of orderedJobs(positions, this.#jobs, compressFrom, { signal })) {
      yield frame;
      free(frame);
    }
  }

  /** One job a file. History files and labels don't wait for segments. */
  async *#other(local: LocalWal, level: number | undefined, { signal }: CallOptions): ByteStream {
    const settings = { jobs: 1, signal, ...(level === undefined ? {} : { level }) };
    const mustWait = local.sizeBytes > SMALL_BYTES;
    if (mustWait) await this.#turns.acquire({ signal });
    try {
      const content = readLocalWal(local, { signal, mustBeStill: true });
      yield* this.#codec.compress(content, settings);
    } finally {
      if (mustWait) this.#turns.release();
    }
  }
}

async function* framePositions(sizeBytes: number): AsyncGenerator<number, void, undefined> {
  for (let position = 0; position < sizeBytes; position += FRAME_CONTENT_BYTES) yield position;
}
