import type { ByteStream } from "../io/bytes.ts";

/** S3 refuses a part below this, unless it is the last. */
export const MIN_PART_BYTES = 5 * 1024 * 1024;
const MAX_PART_BYTES = 5 * 1024 * 1024 * 1024;
/**
 * An object has at most 10,000 parts; twelve doublings after every 900 hold far more than 5 TiB.
 */
const PARTS_PER_SIZE = 900;

/**
 * Length of a part that is not the last. Constant for the first 900, which is all that most objects
 * have, because some stores want parts of one length; then it doubles with each 900, so that an
 * object of 5 TiB whose length nobody knew still fits in 10,000 parts.
 */
export function partBytes(
  partNumber: number,
  firstPartBytes: number,
  { partsPerSize = PARTS_PER_SIZE, maxBytes = MAX_PART_BYTES } = {},
): number {
  const doublings = Math.floor((partNumber - 1) / partsPerSize);
  return Math.min(firstPartBytes * 2 ** doublings, maxBytes);
}

/**
 * Memory for parts, shared by all uploads of a store and used again: Bun gives large buffers back
 * late, so new ones for each part would pile up.
 */
export class PartBuffers {
  readonly #limitBytes: number;
  #usedBytes = 0;
  #idle: Buffer[] = [];

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** A buffer of this length with anything in it, or undefined if the limit does not allow one. */
  take(sizeBytes: number): Buffer | undefined {
    const index = this.#idle.findIndex(({ length }) => length === sizeBytes);
    if (index >= 0) return this.#idle.splice(index, 1)[0];
    while (this.#usedBytes + sizeBytes > this.#limitBytes) {
      const idle = this.#idle.pop();
      if (idle === undefined) return undefined;
      this.#usedBytes -= idle.length;
    }
    return this.takeAnyway(sizeBytes);
  }

  /** Beyond the limit too: for an upload that has no buffer and must not wait for other uploads. */
  takeAnyway(sizeBytes: number): Buffer {
    this.#usedBytes += sizeBytes;
    return Buffer.allocUnsafeSlow(sizeBytes);
  }

  /** `isReusable` false: a request that was given up may still be reading from it. */
  give(buffer: Buffer, { isReusable }: { readonly isReusable: boolean }): void {
    if (isReusable && this.#usedBytes <= this.#limitBytes) this.#idle.push(buffer);
    else this.#usedBytes -= buffer.length;
  }
}

/** Cuts a stream of any chunks into buffers of the length that is wanted. */
export class PartReader implements AsyncDisposable {
  readonly #iterator: AsyncIterator<Uint8Array>;
  /** What is left of the last chunk; valid until the next one is asked for. */
  #rest: Uint8Array = new Uint8Array();
  #isEnded = false;

  constructor(stream: ByteStream) {
    this.#iterator = stream[Symbol.asyncIterator]();
  }

  /** Fills `buffer` as far as the stream goes; gives how far. */
  async fill(buffer: Buffer): Promise<number> {
    let filledBytes = 0;
    while (filledBytes < buffer.length && (await this.hasMore())) {
      const piece = this.#rest.subarray(0, buffer.length - filledBytes);
      buffer.set(piece, filledBytes);
      filledBytes += piece.length;
      this.#rest = this.#rest.subarray(piece.length);
    }
    return filledBytes;
  }

  /** Waits until it is known whether the stream goes on. */
  async hasMore(): Promise<boolean> {
    while (this.#rest.length === 0 && !this.#isEnded) {
      const next = await this.#iterator.next();
      if (next.done === true) this.#isEnded = true;
      else this.#rest = next.value;
    }
    return this.#rest.length > 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isEnded) await this.#iterator.return?.();
  }
}
