import type { ByteSource, ByteStream } from "../io/bytes.ts";

/** A body that tells whether an error came out of it: it may read files, or another store. */
export class WatchedSource implements ByteSource {
  readonly isReopenable: boolean;
  readonly sizeBytes?: number;
  readonly #inner: ByteSource;
  #failure: { readonly error: unknown } | undefined;

  constructor(inner: ByteSource) {
    this.#inner = inner;
    this.isReopenable = inner.isReopenable;
    if (inner.sizeBytes !== undefined) this.sizeBytes = inner.sizeBytes;
  }

  /** Also of an error that was made from it. */
  isFailedBy(error: unknown): boolean {
    if (this.#failure === undefined) return false;
    for (let one = error; one instanceof Error; one = one.cause) {
      if (one === this.#failure.error) return true;
    }
    return error === this.#failure.error;
  }

  async *open(): ByteStream {
    try {
      for await (const chunk of this.#inner.open()) yield chunk;
    } catch (error) {
      this.#failure = { error };
      throw error;
    }
  }
}
