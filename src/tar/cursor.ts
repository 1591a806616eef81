import { TruncatedError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";

/** Reads a stream in pieces of the reader's choice; holds the one chunk that it stands in. */
export class ByteCursor {
  readonly #input: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  #position = 0;
  #isEnded = false;

  constructor(input: ByteStream) {
    this.#input = input[Symbol.asyncIterator]();
  }

  /** Bytes taken so far. */
  get position(): number {
    return this.#position;
  }

  /** Whether at least one more byte is there; waits for it. */
  async hasMore(): Promise<boolean> {
    while (this.#at >= this.#chunk.length) {
      if (this.#isEnded) return false;
      const next = await this.#input.next();
      if (next.done === true) {
        this.#isEnded = true;
        return false;
      }
      this.#chunk = next.value;
      this.#at = 0;
    }
    return true;
  }

  /**
   * What is left of the current chunk, at most `maxBytes`; empty before `hasMore`. It stays the
   * input's memory, valid until the next chunk is read.
   */
  takeSome(maxBytes: number): Uint8Array {
    const taken = this.#chunk.subarray(this.#at, this.#at + maxBytes);
    this.#at += taken.length;
    this.#position += taken.length;
    return taken;
  }

  /** Exactly `sizeBytes`, copied only where they cross the border of two chunks. */
  async readExactly(sizeBytes: number): Promise<Uint8Array> {
    if (this.#chunk.length - this.#at >= sizeBytes) return this.takeSome(sizeBytes);
    const whole = new Uint8Array(sizeBytes);
    let filledBytes = 0;
    while (filledBytes < sizeBytes) {
      if (!(await this.hasMore())) {
        throw new TruncatedError(
          `tar archive ends at ${this.#position}, ${sizeBytes - filledBytes} bytes too early`,
        );
      }
      const taken = this.takeSome(sizeBytes - filledBytes);
      whole.set(taken, filledBytes);
      filledBytes += taken.length;
    }
    return whole;
  }

  /** Ends the input, whether or not it was read to its end. */
  async close(): Promise<void> {
    if (this.#isEnded) return;
    this.#isEnded = true;
    await this.#input.return?.();
  }
}
