import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../errors.ts";
import { abortable, untilAborted } from "../io/abort.ts";
import type { ByteSource } from "../io/bytes.ts";
import { withRetry } from "../io/retry.ts";
import type { RetryContext, RetryPolicy } from "../io/retry.ts";
import { MIN_PART_BYTES, PartReader, partBytes } from "./part-buffers.ts";
import type { PartBuffers } from "./part-buffers.ts";
import { isNotImplemented } from "./s3-errors.ts";
import { headObject } from "./s3-read.ts";
import type { S3Transport } from "./s3-transport.ts";
import { MultipartUpload, putObject } from "./s3-upload.ts";
import type { ObjectKey, PutOptions } from "./storage.ts";

/** What all puts of one store share. */
export interface S3PutContext extends RetryContext {
  readonly transport: S3Transport;
  readonly buffers: PartBuffers;
  /** Set by the first answer that refuses If-None-Match: from then on we look before we write. */
  readonly conditions: { areRefused: boolean };
  /** Length of parts, and up to which an object is one request. */
  readonly maxPartBytes: number;
  readonly uploadConcurrency: number;
  readonly retryPolicy: RetryPolicy;
}

const MAX_PART_COUNT = 10_000;
/** Taking away the parts of a failed upload is tried for so long. */
const ABORT_TIMEOUT_MS = 5_000;

/**
 * One put: a single request if the body ends within the first buffer, else an upload in parts, of
 * which several are sent while the next is read. Requests are repeated one by one, since their
 * bytes are at hand.
 */
export class S3Put {
  readonly #context: S3PutContext;
  readonly #key: ObjectKey;
  readonly #ifAbsent: boolean;
  readonly #failure = new AbortController();
  readonly #signal: AbortSignal;
  readonly #sending = new Set<Promise<void>>();
  readonly #held = new Set<Buffer>();
  /** Ours between two parts: an upload in parts never falls back to waiting for other uploads. */
  #spare: Buffer | undefined;

  constructor(context: S3PutContext, key: ObjectKey, options: PutOptions) {
    this.#context = context;
    this.#key = key;
    this.#ifAbsent = options.ifAbsent === true;
    this.#signal = AbortSignal.any([options.signal, this.#failure.signal]);
  }

  async run(body: ByteSource): Promise<void> {
    this.#signal.throwIfAborted();
    await using reader = new PartReader(abortable(body.open(), this.#signal));
    const buffer = this.#takeFirst();
    try {
      const sizeBytes = await reader.fill(buffer);
      if (await reader.hasMore()) {
        await this.#putParts(reader, buffer);
      } else {
        const whole = buffer.subarray(0, sizeBytes);
        await this.#retry(() => this.#create((options) => this.#putWhole(whole, options)));
      }
      this.#giveBack({ isReusable: true });
    } catch (error) {
      this.#failure.abort(error);
      throw error;
    } finally {
      this.#giveBack({ isReusable: false });
    }
  }

  async #putWhole(body: Uint8Array, { ifAbsent }: { readonly ifAbsent: boolean }): Promise<void> {
    const options = { signal: this.#signal, ifAbsent };
    await putObject(this.#context.transport, this.#key, body, options);
  }

  async #putParts(reader: PartReader, first: Buffer): Promise<void> {
    const { transport } = this.#context;
    const signal = this.#signal;
    // Some stores check the condition for single requests only; and this spares the whole upload.
    if (this.#ifAbsent) await this.#retry(() => this.#requireAbsent());

    const upload = await this.#retry(() =>
      MultipartUpload.create(transport, this.#key, { signal }),
    );
    try {
      await this.#sendParts(upload, reader, first);
      await this.#retry(() =>
        this.#create(({ ifAbsent }) => upload.complete({ signal, ifAbsent })),
      );
    } catch (error) {
      this.#failure.abort(error);
      await Promise.all(this.#sending);
      await upload.abort({ signal: AbortSignal.timeout(ABORT_TIMEOUT_MS) }).catch(() => {});
      throw error;
    }
  }

  async #sendParts(upload: MultipartUpload, reader: PartReader, first: Buffer): Promise<void> {
    let buffer = first;
    let sizeBytes = first.length;
    for (let partNumber = 1; ;) {
      this.#send(upload, partNumber, buffer, sizeBytes);
      if (!(await reader.hasMore())) break;

      partNumber++;
      if (partNumber > MAX_PART_COUNT) throw this.#tooLong();
      buffer = await this.#takeNext(partBytes(partNumber, first.length));
      sizeBytes = await reader.fill(buffer);
    }
    await Promise.all(this.#sending);
    this.#signal.throwIfAborted();
  }

  /** Begins to send a part; its failure aborts the whole put. */
  #send(upload: MultipartUpload, partNumber: number, buffer: Buffer, sizeBytes: number): void {
    const body = buffer.subarray(0, sizeBytes);
    const signal = this.#signal;
    const sending = this.#retry(() => upload.uploadPart(partNumber, body, { signal }))
      .then(() => this.#release(buffer))
      .catch((error: unknown) => this.#failure.abort(error))
      .finally(() => this.#sending.delete(sending));
    this.#sending.add(sending);
  }

  /** `write` with the condition, where the store knows it; else after a look. */
  async #create(write: (options: { ifAbsent: boolean }) => Promise<void>): Promise<void> {
    const { conditions } = this.#context;
    if (this.#ifAbsent && !conditions.areRefused) {
      try {
        await write({ ifAbsent: true });
        return;
      } catch (error) {
        if (!isNotImplemented(error)) throw error;
        conditions.areRefused = true;
      }
    }
    if (this.#ifAbsent) await this.#requireAbsent();
    await write({ ifAbsent: false });
  }

  async #requireAbsent(): Promise<void> {
    const { transport } = this.#context;
    try {
      await headObject(transport, this.#key, { signal: this.#signal });
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return;
      throw error;
    }
    throw new ObjectExistsError(this.#key, transport.name);
  }

  async #retry<T>(work: () => Promise<T>): Promise<T> {
    const { retryPolicy } = this.#context;
    return await withRetry(work, retryPolicy, { ...this.#context, signal: this.#signal });
  }

  #tooLong(): StorageError {
    return new StorageError(
      `object ${this.#key} is too long for ${this.#context.transport.name}: ` +
        `it needs more than ${MAX_PART_COUNT} parts`,
      { isRetryable: false, hint: "Raise S3_MAX_PART_SIZE." },
    );
  }

  #takeFirst(): Buffer {
    const { buffers, maxPartBytes } = this.#context;
    const wantedBytes = Math.max(maxPartBytes, MIN_PART_BYTES);
    return this.#hold(buffers.take(wantedBytes) ?? buffers.takeAnyway(MIN_PART_BYTES));
  }

  async #takeNext(sizeBytes: number): Promise<Buffer> {
    const { buffers, uploadConcurrency } = this.#context;
    for (;;) {
      if (this.#sending.size < uploadConcurrency) {
        const buffer = this.#takeSpare(sizeBytes) ?? buffers.take(sizeBytes);
        if (buffer !== undefined) return this.#hold(buffer);
        if (this.#sending.size === 0) return this.#hold(buffers.takeAnyway(sizeBytes));
      }
      await untilAborted(Promise.race(this.#sending), this.#signal);
    }
  }

  #takeSpare(sizeBytes: number): Buffer | undefined {
    const spare = this.#spare;
    if (spare === undefined) return undefined;
    this.#spare = undefined;
    if (spare.length === sizeBytes) return spare;
    this.#held.delete(spare);
    this.#context.buffers.give(spare, { isReusable: true });
    return undefined;
  }

  #hold(buffer: Buffer): Buffer {
    this.#held.add(buffer);
    return buffer;
  }

  #release(buffer: Buffer): void {
    if (this.#spare === undefined) {
      this.#spare = buffer;
      return;
    }
    this.#held.delete(buffer);
    this.#context.buffers.give(buffer, { isReusable: true });
  }

  #giveBack(options: { readonly isReusable: boolean }): void {
    for (const buffer of this.#held) this.#context.buffers.give(buffer, options);
    this.#held.clear();
  }
}
