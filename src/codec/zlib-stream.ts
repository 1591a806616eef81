import type {
  BrotliCompress,
  BrotliDecompress,
  Gunzip,
  Inflate,
  InflateRaw,
  ZstdDecompress,
} from "node:zlib";
import { FormatError, TruncatedError, systemErrorCode } from "../errors.ts";
import { abortable } from "../io/abort.ts";
import { CHUNK_BYTES } from "../io/bytes.ts";
import type { ByteStream } from "../io/bytes.ts";

/** Output is cut into pieces of this size: node:zlib's own 16 KiB cost a third of the speed. */
export const ZLIB_OPTIONS = { chunkSize: CHUNK_BYTES } as const;

interface StreamOptions {
  /** For messages: "brotli data". */
  readonly subject: string;
  readonly signal: AbortSignal;
}

/** Compresses `input` by one of node:zlib's streams, which work off the main thread. */
export async function* compressedByZlib(
  input: ByteStream,
  engine: BrotliCompress,
  options: StreamOptions,
): ByteStream {
  yield* new ZlibPump(engine, options).through(input);
}

/**
 * Decompresses `input` by one of node:zlib's streams. Rejects with TruncatedError if `input` ends
 * before the format does (the stream must be one that notices: zstd's does not on Bun), with
 * FormatError for damage and for bytes after the end.
 */
export async function* decompressedByZlib(
  input: ByteStream,
  engine: BrotliDecompress | Gunzip | Inflate | InflateRaw | ZstdDecompress,
  options: StreamOptions,
): ByteStream {
  const pump = new ZlibPump(engine, options);
  yield* pump.through(input);
  if (engine.bytesWritten !== pump.inputBytes) {
    throw new FormatError(
      `${options.subject} ends at byte ${engine.bytesWritten}, but more bytes follow`,
    );
  }
}

type Engine = BrotliCompress | BrotliDecompress | Gunzip | Inflate | InflateRaw | ZstdDecompress;

/** Moves bytes through a node:stream without a queue: one chunk is in it at a time. */
class ZlibPump {
  readonly #engine: Engine;
  readonly #options: StreamOptions;
  #inputBytes = 0;
  #failure: unknown;
  #isEnded = false;
  #changed = Promise.withResolvers<void>();

  constructor(engine: Engine, options: StreamOptions) {
    this.#engine = engine;
    this.#options = options;
    engine.on("error", (error) => {
      this.#failure ??= error;
      this.#wake();
    });
    engine.on("readable", () => this.#wake());
    engine.on("end", () => {
      this.#isEnded = true;
      this.#wake();
    });
  }

  /** Bytes that the input gave. */
  get inputBytes(): number {
    return this.#inputBytes;
  }

  async *through(input: ByteStream): ByteStream {
    const { signal } = this.#options;
    const onAbort = (): void => this.#wake();
    signal.throwIfAborted();
    signal.addEventListener("abort", onAbort);
    try {
      for await (const chunk of abortable(input, signal)) {
        this.#inputBytes += chunk.length;
        if (chunk.length > 0 && !this.#isEnded) yield* this.#write(chunk);
      }
      this.#engine.end();
      while (!this.#isEnded) {
        yield* this.#available();
        if (!this.#isEnded) await this.#change();
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#engine.destroy();
    }
  }

  /** Returns only when the engine has done with `chunk`, whose memory is its producer's. */
  async *#write(chunk: Uint8Array): ByteStream {
    const writing = { isDone: false };
    this.#engine.write(chunk, (error) => {
      writing.isDone = true;
      this.#failure ??= error ?? undefined;
      this.#wake();
    });
    while (!writing.isDone && !this.#isEnded) {
      yield* this.#available();
      if (!writing.isDone && !this.#isEnded) await this.#change();
    }
    yield* this.#available();
  }

  async *#available(): ByteStream {
    this.#check();
    for (;;) {
      const output: unknown = this.#engine.read();
      if (!(output instanceof Uint8Array)) return;
      yield output;
      this.#check();
    }
  }

  async #change(): Promise<void> {
    this.#check();
    await this.#changed.promise;
    this.#check();
  }

  #check(): void {
    this.#options.signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#formatError(this.#failure);
  }

  #formatError(cause: unknown): unknown {
    const { subject } = this.#options;
    if (systemErrorCode(cause) === "Z_BUF_ERROR") {
      const message = `${subject} ends at byte ${this.#inputBytes} before it is complete`;
      return new TruncatedError(message, { cause });
    }
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new FormatError(`${subject} is damaged: ${reason}`, { cause });
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}
