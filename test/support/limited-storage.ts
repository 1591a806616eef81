import { StorageError } from "../../src/errors.ts";
import { RetryingStorage } from "../../src/storage/retrying.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
} from "../../src/storage/storage.ts";
import type { ByteSource, ByteStream } from "../../src/io/bytes.ts";
import { readAll } from "../../src/io/bytes.ts";
import { ObjectNotFoundError } from "../../src/errors.ts";
import type { FakeClock } from "./fake-clock.ts";
import type { Random } from "./random.ts";

/** A run of keys that a test need not hold in memory: which of them are there is one bit each. */
export interface KeySeries {
  readonly count: number;
  readonly prefix: string;
  /** Ascending with the number. */
  keyOf(number: number): ObjectKey;
  numberOf(key: ObjectKey): number;
}

export interface LimitedOptions {
  readonly clock: FakeClock;
  readonly random: Random;
  readonly deletesPerSecond: number;
  /** Share of requests that are answered with 429. */
  readonly refusedShare: number;
  /** Throws what is no error of a store once so many objects were deleted. */
  readonly killAfterDeletes?: number;
}

/**
 * A store with a limit of deletes per second and 429 at random: a batch is removed in part before
 * one comes. Beside some real objects it holds a series of empty ones.
 */
export class LimitedStorage implements Storage {
  readonly name = "memory://limited";
  readonly #series: KeySeries;
  readonly #options: LimitedOptions;
  readonly #isThere: Uint8Array;
  readonly #objects: Map<ObjectKey, Buffer>;
  #deletedCount = 0;
  /** Milliseconds of the store's own time that its deletes have taken. */
  busyMs = 0;
  refusedCount = 0;
  largestBatch = 0;

  constructor(series: KeySeries, objects: Map<ObjectKey, Buffer>, options: LimitedOptions) {
    this.#series = series;
    this.#objects = objects;
    this.#options = options;
    this.#isThere = new Uint8Array(series.count).fill(1);
  }

  /** As `openStorage` wraps it. */
  get retrying(): Storage {
    const { clock, random } = this.#options;
    const policy = { attempts: 100, baseMs: 100, capMs: 20_000, totalMs: 15 * 60_000 };
    return new RetryingStorage(this, policy, { clock, random: () => random.next() });
  }

  /** The same store for the process that comes after a killed one. */
  revived(): LimitedStorage {
    const { clock, random, deletesPerSecond, refusedShare } = this.#options;
    const options = { clock, random, deletesPerSecond, refusedShare };
    const other = new LimitedStorage(this.#series, this.#objects, options);
    other.#isThere.set(this.#isThere);
    return other;
  }

  get seriesCount(): number {
    return this.#isThere.reduce((sum, one) => sum + one, 0);
  }

  get objectKeys(): readonly ObjectKey[] {
    return [...this.#objects.keys()];
  }

  has(number: number): boolean {
    return this.#isThere[number] === 1;
  }

  async *get(key: ObjectKey, _options: GetOptions): ByteStream {
    const bytes = this.#objects.get(key);
    if (bytes === undefined) throw new ObjectNotFoundError(key, this.name);
    yield bytes;
  }

  async put(key: ObjectKey, body: ByteSource, _options: PutOptions): Promise<void> {
    this.#objects.set(key, await readAll(body.open()));
  }

  async stat(key: ObjectKey, _options: CallOptions): Promise<ObjectInfo> {
    const bytes = this.#objects.get(key);
    if (bytes === undefined) throw new ObjectNotFoundError(key, this.name);
    return { key, sizeBytes: bytes.length, modifiedAt: new Date(0) };
  }

  async *list(prefix: string, { startAfter = "" }: ListOptions): AsyncIterable<ObjectInfo> {
    const keys = this.objectKeys.filter((key) => key.startsWith(prefix) && key > startAfter);
    const singly = keys.toSorted();
    const behind = singly.findIndex((key) => key > this.#series.prefix);
    const count = behind < 0 ? singly.length : behind;
    for (const key of singly.slice(0, count)) yield { key, sizeBytes: 1, modifiedAt: new Date(0) };
    if (this.#series.prefix.startsWith(prefix)) yield* this.#listSeries(startAfter);
    for (const key of singly.slice(count)) yield { key, sizeBytes: 1, modifiedAt: new Date(0) };
  }

  *#listSeries(startAfter: string): Iterable<ObjectInfo> {
    for (let number = 0; number < this.#series.count; number += 1) {
      if (!this.has(number)) continue;
      const key = this.#series.keyOf(number);
      if (key > startAfter) yield { key, sizeBytes: 16, modifiedAt: new Date(0) };
    }
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    signal.throwIfAborted();
    const { random, refusedShare, deletesPerSecond, killAfterDeletes } = this.#options;
    this.largestBatch = Math.max(this.largestBatch, keys.length);
    const isRefused = random.next() < refusedShare;
    const taken = isRefused ? Math.floor(random.next() * keys.length) : keys.length;
    for (const key of keys.slice(0, taken)) {
      if (this.#deletedCount === killAfterDeletes) throw new Error("killed");
      this.#deletedCount += 1;
      if (key.startsWith(this.#series.prefix)) this.#isThere[this.#series.numberOf(key)] = 0;
      else this.#objects.delete(key);
    }
    this.busyMs += (taken * 1000) / deletesPerSecond;
    if (!isRefused) return;
    this.refusedCount += 1;
    throw new StorageError("429 SlowDown", { isRetryable: true, retryAfterMs: 1000 });
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
