import { Bell } from "./bell.ts";
import type { ByteStream } from "./bytes.ts";

export interface ReadAheadOptions {
  /** Read and not taken yet, at most, but for one chunk more. */
  readonly bytesMax: number;
  readonly signal: AbortSignal;
}

/**
 * Reads `stream` from now on, whether its bytes are wanted already or not, and gives copies of them
 * in the same order, once. Disposing of it ends the stream; an abort does not wait for that.
 */
export class ReadAhead implements AsyncDisposable {
  readonly #options: ReadAheadOptions;
  readonly #chunks: Buffer[] = [];
  #heldBytes = 0;
  #isOver = false;
  readonly #changed = new Bell();
  readonly #ended: Promise<void>;

  constructor(stream: ByteStream, options: ReadAheadOptions) {
    this.#options = options;
    this.#ended = this.#read(stream).finally(() => {
      this.#isOver = true;
      this.#changed.ring();
    });
    // Whoever takes the bytes learns of it.
    this.#ended.catch(() => {});
  }

  /** Rejects, behind the bytes before, with what the stream did. */
  async *bytes(): ByteStream {
    for (;;) {
      await this.#changed.until(() => this.#chunks.length > 0 || this.#isOver, this.#options);
      const chunk = this.#chunks.shift();
      if (chunk === undefined) return await this.#ended;
      this.#heldBytes -= chunk.length;
      this.#changed.ring();
      yield chunk;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    this.#changed.ring();
    if (!this.#options.signal.aborted) await this.#ended.catch(() => {});
  }

  async #read(stream: ByteStream): Promise<void> {
    for await (const chunk of stream) {
      if (this.#isOver) return;
      this.#chunks.push(Buffer.from(chunk));
      this.#heldBytes += chunk.length;
      this.#changed.ring();
      const hasRoom = () => this.#heldBytes < this.#options.bytesMax || this.#isOver;
      await this.#changed.until(hasRoom, this.#options);
    }
  }
}
