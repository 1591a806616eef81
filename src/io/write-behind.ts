import type { FileHandle } from "node:fs/promises";
import { WRITE_BYTES, writeAll } from "./write-all.ts";
import type { WriteOptions } from "./write-all.ts";

/** Of one of the two buffers. */
const BUFFER_BYTES = 1024 * 1024;
/** Written before the disk is asked to take it, while more is written. */
const SYNC_BYTES = 32 * 1024 * 1024;

/**
 * The rest of a long file: what comes is copied, so that one buffer is written while the other is
 * filled, and the disk takes what was written meanwhile, so that little is left for the fsync at
 * the end, which is still the caller's. What fails, of writing or of the disk, is thrown by a later
 * call. Before the handle is closed, `settled` must have resolved, whatever else happened.
 */
export class WriteBehind {
  readonly #handle: FileHandle;
  readonly #alongside: WriteOptions["alongside"];
  #position: number;
  #filling = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #filledBytes = 0;
  #written = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #writing = Promise.resolve();
  #unsyncedBytes = 0;
  #syncing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(
    handle: FileHandle,
    { alongside, position }: WriteOptions & { readonly position: number },
  ) {
    this.#handle = handle;
    this.#alongside = alongside;
    this.#position = position;
  }

  /** Resolves when `chunk` may be used for other bytes, and was given to who is alongside. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#alongside?.(chunk);
    for (let start = 0; start < chunk.length;) {
      const piece = chunk.subarray(start, start + BUFFER_BYTES - this.#filledBytes);
      this.#filling.set(piece, this.#filledBytes);
      this.#filledBytes += piece.length;
      start += piece.length;
      if (this.#filledBytes === BUFFER_BYTES) await this.#turn();
    }
  }

  /** Resolves when all is written. */
  async end(): Promise<void> {
    if (this.#filledBytes > 0) await this.#turn();
    await this.settled();
    this.#throwFailure();
  }

  /** Resolves when nothing is under way any more; never rejects. */
  async settled(): Promise<void> {
    await this.#writing;
    await this.#syncing;
  }

  /** Begins to write what was filled, once the other buffer is free. */
  async #turn(): Promise<void> {
    await this.#writing;
    this.#throwFailure();
    this.#syncBeside();
    const bytes = this.#filling.subarray(0, this.#filledBytes);
    this.#writing = this.#kept(this.#writeAt(this.#position, bytes));
    this.#position += bytes.length;
    this.#unsyncedBytes += bytes.length;
    [this.#filling, this.#written] = [this.#written, this.#filling];
    this.#filledBytes = 0;
  }

  /** All calls at once: one after the other, each would wait for its turn in a busy program. */
  async #writeAt(position: number, bytes: Uint8Array): Promise<void> {
    const writes: Promise<void>[] = [];
    for (let start = 0; start < bytes.length; start += WRITE_BYTES) {
      const piece = bytes.subarray(start, start + WRITE_BYTES);
      writes.push(writeAll(this.#handle, piece, { position: position + start }));
    }
    await Promise.allSettled(writes);
    await Promise.all(writes);
  }

  #syncBeside(): void {
    if (this.#unsyncedBytes < SYNC_BYTES || this.#syncing !== undefined) return;
    this.#unsyncedBytes = 0;
    this.#syncing = this.#kept(this.#handle.datasync()).then(() => (this.#syncing = undefined));
  }

  /** Linux tells a failure of the disk once: the fsync at the end would not. */
  async #kept(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
