import type { StorageError } from "../errors.ts";
import { abortable, untilAborted } from "../io/abort.ts";
import type { ByteSource } from "../io/bytes.ts";
import { PartReader } from "./part-buffers.ts";
import type { PartBuffers } from "./part-buffers.ts";
import { SentBytes } from "./sent-bytes.ts";
import type { CallOptions, SendOptions } from "./storage.ts";

/** The requests of one put. They repeat themselves where that helps: their bytes are at hand. */
export interface PartTarget {
  /** The whole object by one request. */
  putWhole(body: Uint8Array, options: SendOptions): Promise<void>;
  /** Begins an object of several parts. */
  begin(options: CallOptions): Promise<PartedObject>;
}

/** An object that appears when it is completed. */
export interface PartedObject {
  /** Counted from 1; several may be under way. */
  sendPart(partNumber: number, body: Uint8Array, options: SendOptions): Promise<void>;
  complete(options: CallOptions): Promise<void>;
  /** Takes away what was sent, as far as that works; never rejects. */
  abandon(): Promise<void>;
}

/** How a store wants its parts. */
export interface PartLimits {
  /** Length of the first part, and up to which an object is one request. */
  readonly wantedBytes: number;
  /** Length that a put must have even if the memory for all puts is taken. */
  readonly minBytes: number;
  readonly maxCount: number;
  /** Length of a part that is not the last, by the length of the first. */
  lengthOf(partNumber: number, firstBytes: number): number;
  /** Why there are no more parts than this. */
  tooLong(): StorageError;
}

export interface PartedPutOptions {
  readonly buffers: PartBuffers;
  readonly limits: PartLimits;
  /** Parts that are sent at the same time. */
  readonly concurrency: number;
}

/**
 * Sends one body from buffers that are used again: a single request if it ends within the first
 * one, else in parts, of which several are sent while the next is read.
 */
export class PartedPut {
  readonly #options: PartedPutOptions;
  readonly #target: PartTarget;
  readonly #failure = new AbortController();
  readonly #signal: AbortSignal;
  readonly #sent: SentBytes;
  readonly #sending = new Set<Promise<void>>();
  readonly #held = new Set<Buffer>();
  /** Ours between two parts: an upload in parts never falls back to waiting for other uploads. */
  #spare: Buffer | undefined;

  constructor(target: PartTarget, options: PartedPutOptions, { signal, onSent }: SendOptions) {
    this.#target = target;
    this.#options = options;
    this.#sent = new SentBytes(onSent);
    this.#signal = AbortSignal.any([signal, this.#failure.signal]);
  }

  async run(body: ByteSource): Promise<void> {
    const signal = this.#signal;
    signal.throwIfAborted();
    await using reader = new PartReader(abortable(body.open(), signal));
    const buffer = this.#takeFirst();
    try {
      const sizeBytes = await reader.fill(buffer);
      if (await reader.hasMore()) await this.#putParts(reader, buffer);
      else await this.#target.putWhole(buffer.subarray(0, sizeBytes), this.#sendOptions());
      this.#giveBack({ isReusable: true });
    } catch (error) {
      this.#failure.abort(error);
      throw error;
    } finally {
      this.#giveBack({ isReusable: false });
    }
  }

  async #putParts(reader: PartReader, first: Buffer): Promise<void> {
    const signal = this.#signal;
    const object = await this.#target.begin({ signal });
    try {
      await this.#sendParts(object, reader, first);
      await object.complete({ signal });
    } catch (error) {
      this.#failure.abort(error);
      await Promise.all(this.#sending);
      await object.abandon();
      throw error;
    }
  }

  async #sendParts(object: PartedObject, reader: PartReader, first: Buffer): Promise<void> {
    const { limits } = this.#options;
    let buffer = first;
    let sizeBytes = first.length;
    for (let partNumber = 1; ;) {
      this.#send(object, partNumber, buffer.subarray(0, sizeBytes), buffer);
      if (!(await reader.hasMore())) break;

      partNumber++;
      if (partNumber > limits.maxCount) throw limits.tooLong();
      buffer = await this.#takeNext(limits.lengthOf(partNumber, first.length));
      sizeBytes = await reader.fill(buffer);
    }
    await Promise.all(this.#sending);
    this.#signal.throwIfAborted();
  }

  /** Begins to send a part; its failure aborts the whole put. */
  #send(object: PartedObject, partNumber: number, body: Buffer, buffer: Buffer): void {
    const sending = object
      .sendPart(partNumber, body, this.#sendOptions())
      .then(() => this.#release(buffer))
      .catch((error: unknown) => this.#failure.abort(error))
      .finally(() => this.#sending.delete(sending));
    this.#sending.add(sending);
  }

  #sendOptions(): SendOptions {
    return { signal: this.#signal, onSent: this.#sent.ofPart() };
  }

  #takeFirst(): Buffer {
    const { buffers, limits } = this.#options;
    const wantedBytes = Math.max(limits.wantedBytes, limits.minBytes);
    return this.#hold(buffers.take(wantedBytes) ?? buffers.takeAnyway(limits.minBytes));
  }

  async #takeNext(sizeBytes: number): Promise<Buffer> {
    const { buffers, concurrency } = this.#options;
    for (;;) {
      if (this.#sending.size < concurrency) {
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
    this.#options.buffers.give(spare, { isReusable: true });
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
    this.#options.buffers.give(buffer, { isReusable: true });
  }

  #giveBack(options: { readonly isReusable: boolean }): void {
    for (const buffer of this.#held) this.#options.buffers.give(buffer, options);
    this.#held.clear();
  }
}
