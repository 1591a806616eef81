import { closeSync, fsync } from "node:fs";
import { promisify } from "node:util";
import { Semaphore } from "../io/ordered.ts";
import { localFileError } from "../io/system-error.ts";

/**
 * Smaller files are flushed together at the end, when the file system's journal is written once.
 */
export const BACKGROUND_FLUSH_BYTES = 4 * 1024 * 1024;

/** Threads that wait for the disk are missing for decompression. */
const FLUSHES_AT_ONCE = 1;

/** Open files that wait for their flush: a disk that is slower than all else holds up the rest. */
const MAX_WAITING = 8;

const fsyncDescriptor = promisify(fsync);

/** Makes large files durable while others are still being written. */
export class BackgroundFlush {
  readonly #slots = new Semaphore(FLUSHES_AT_ONCE);
  readonly #room = new Semaphore(MAX_WAITING);
  readonly #running = new Set<Promise<void>>();
  readonly #signal: AbortSignal;
  #failure: unknown;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /**
   * Takes over an open file: it is fsynced and closed in the background. Waits while too many wait.
   * Throws what an earlier one failed with.
   */
  async add(file: number, path: string): Promise<void> {
    try {
      await this.#room.acquire({ signal: this.#signal });
    } catch (error) {
      closeSync(file);
      throw error;
    }
    const flushing = this.#flush(file, path).finally(() => {
      this.#room.release();
      this.#running.delete(flushing);
    });
    this.#running.add(flushing);
    this.#rethrow();
  }

  /** Resolves when all files that were added are durable; throws if one could not be made so. */
  async drain(): Promise<void> {
    await Promise.all(this.#running);
    this.#rethrow();
  }

  /** Never rejects: a failure is told to the next caller. */
  async #flush(file: number, path: string): Promise<void> {
    try {
      await this.#slots.acquire({ signal: this.#signal });
      try {
        await fsyncDescriptor(file);
      } finally {
        this.#slots.release();
      }
    } catch (error) {
      this.#failure ??= localFileError("fsync", path, error);
    } finally {
      closeSync(file);
    }
  }

  #rethrow(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}
