import { StorageError } from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { Retries, withRetry } from "../io/retry.ts";
import type { RetryContext, RetryPolicy } from "../io/retry.ts";
import { ListCheck } from "./byte-order.ts";
import type {
  ByteRange,
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  OpenedObject,
  PutOptions,
  Storage,
  Upkeep,
} from "./storage.ts";

/**
 * Repeats calls that failed for a passing reason.
 *
 * - A `get` that is cut goes on behind the last byte that arrived, if the object still has the
 *   version and size that it had; a `list` goes on behind the last key. Both count failures anew
 *   after each progress. Keys that were not asked for, or are not in byte order, are a failure.
 * - A `put` starts over if its body can be opened again. Repeated with `ifAbsent`, it may find its
 *   own object and reject with ObjectExistsError: the caller compares the content.
 */
export class RetryingStorage implements Storage {
  readonly name: string;
  readonly #inner: Storage;
  readonly #policy: RetryPolicy;
  readonly #context: RetryContext;

  constructor(inner: Storage, policy: RetryPolicy, context: RetryContext) {
    this.name = inner.name;
    this.#inner = inner;
    this.#policy = policy;
    this.#context = context;
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const retries = new Retries(this.#policy, this.#context);
    const reading = new Reading(key, this.name, options);
    for (;;) {
      try {
        for await (const chunk of this.#inner.get(key, reading.options())) {
          retries.reset();
          reading.advance(chunk.length);
          yield chunk;
        }
        return;
      } catch (error) {
        await retries.afterFailure(error, options);
        if (reading.isComplete()) return;
      }
    }
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    if (!body.isReopenable) await this.#inner.put(key, body, options);
    else await this.#retry(options, () => this.#inner.put(key, body, options));
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    return await this.#retry(options, () => this.#inner.stat(key, options));
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const retries = new Retries(this.#policy, this.#context);
    const check = new ListCheck(prefix, this.name);
    let position = options;
    for (;;) {
      // Only the key behind it shows that one is in its place.
      let held: ObjectInfo | undefined;
      try {
        for await (const info of this.#inner.list(prefix, position)) {
          check.require(info.key, held?.key ?? position.startAfter);
          if (held !== undefined) {
            retries.reset();
            position = { ...options, startAfter: held.key };
            yield held;
          }
          held = info;
        }
        if (held !== undefined) yield held;
        return;
      } catch (error) {
        await retries.afterFailure(error, options);
      }
    }
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    await this.#retry(options, () => this.#inner.delete(keys, options));
  }

  get upkeep(): Upkeep | undefined {
    return this.#inner.upkeep;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  async #retry<T>({ signal }: CallOptions, work: () => Promise<T>): Promise<T> {
    return await withRetry(work, this.#policy, { ...this.#context, signal });
  }
}

/** Where a `get` stands that may be continued. */
class Reading {
  readonly #key: ObjectKey;
  readonly #storageName: string;
  readonly #options: GetOptions;
  #object: OpenedObject | undefined;
  #receivedBytes = 0;

  constructor(key: ObjectKey, storageName: string, options: GetOptions) {
    this.#key = key;
    this.#storageName = storageName;
    this.#options = options;
  }

  advance(sizeBytes: number): void {
    this.#receivedBytes += sizeBytes;
  }

  isComplete(): boolean {
    if (this.#object === undefined || this.#receivedBytes === 0) return false;
    const { sizeBytes } = this.#object;
    return this.#start() >= Math.min(sizeBytes, this.#options.range?.end ?? sizeBytes);
  }

  /** For the next attempt. */
  options(): GetOptions {
    const { range, ifVersion } = this.#options;
    const version = this.#receivedBytes > 0 ? (this.#object?.version ?? ifVersion) : ifVersion;
    return {
      ...this.#options,
      ...(this.#receivedBytes > 0 ? { range: this.#rest(range) } : {}),
      ...(version === undefined ? {} : { ifVersion: version }),
      onOpened: (object) => this.#opened(object),
    };
  }

  #start(): number {
    return (this.#options.range?.start ?? 0) + this.#receivedBytes;
  }

  #rest(range: ByteRange | undefined): ByteRange {
    return { ...range, start: this.#start() };
  }

  #opened(object: OpenedObject): void {
    if (this.#object === undefined) {
      this.#object = object;
      this.#options.onOpened?.(object);
      return;
    }
    if (this.#receivedBytes > 0 && object.sizeBytes !== this.#object.sizeBytes) {
      throw new StorageError(
        `object ${this.#key} in ${this.#storageName} was changed while it was read: ` +
          `${this.#object.sizeBytes} bytes before, ${object.sizeBytes} now`,
        { isRetryable: false },
      );
    }
    this.#object = object;
  }
}
