import { TruncatedError } from "../errors.ts";
import type { ByteStream } from "./bytes.ts";

/** Reads a stream in pieces of the reader's choice; holds the one chunk that it stands in. */
export class ByteCursor {
  readonly #input: AsyncIterator<Uint8Array>;
  readonly #subject: string;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  #position = 0;
  #isEnded = false;

  /** `subject` begins the message of a TruncatedError: "lz4 data". */
  constructor(input: ByteStream, subject: string) {
    this.#input = input[Symbol.asyncIterator]();
    this.#subject = subject;
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
   * input's memory, valid until more is read.
   */
  takeSome(maxBytes: number): Uint8Array {
    const taken = this.#chunk.subarray(this.#at, this.#at + maxBytes);
    this.#at += taken.length;
    this.#position += taken.length;
    return taken;
  }

  /** Puts the last `count` bytes of the last `takeSome` back. */
  giveBack(count: number): void {
    if (count > this.#at) throw new RangeError(`cannot give ${count} bytes back`);
    this.#at -= count;
    this.#position -= count;
  }

  /** Fills `target` as far as the input reaches, and gives the number of bytes. */
  async readInto(target: Uint8Array): Promise<number> {
    let filledBytes = 0;
    while (filledBytes < target.length && (await this.hasMore())) {
      const taken = this.takeSome(target.length - filledBytes);
      target.set(taken, filledBytes);
      filledBytes += taken.length;
    }
    return filledBytes;
  }

  /** Exactly `sizeBytes`, as a copy. Throws TruncatedError if there are fewer. */
  async readExactly(sizeBytes: number): Promise<Buffer> {
    const target = Buffer.allocUnsafe(sizeBytes);
    await this.fill(target);
    return target;
  }

  /** Fills all of `target`. Throws TruncatedError if the input ends before. */
  async fill(target: Uint8Array): Promise<void> {
    const filledBytes = await this.readInto(target);
    if (filledBytes < target.length) {
      const missingBytes = target.length - filledBytes;
      throw new TruncatedError(
        `${this.#subject} ends at byte ${this.#position}, at least ${missingBytes} too early`,
      );
    }
  }

  /** Passes over `sizeBytes`. Throws TruncatedError if there are fewer. */
  async skip(sizeBytes: number): Promise<void> {
    let leftBytes = sizeBytes;
    while (leftBytes > 0) {
      if (!(await this.hasMore())) {
        throw new TruncatedError(
          `${this.#subject} ends at byte ${this.#position}, at least ${leftBytes} too early`,
        );
      }
      leftBytes -= this.takeSome(leftBytes).length;
    }
  }

  /** Ends the input, whether or not it was read to its end. */
  async close(): Promise<void> {
    if (this.#isEnded) return;
    this.#isEnded = true;
    await this.#input.return?.();
  }
}
