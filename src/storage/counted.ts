import { counted, mapSource } from "../io/bytes.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  Upkeep,
} from "./storage.ts";

/** Calls by method, begun until now, whether they succeeded or not, and the bytes that passed. */
export interface StorageCounts {
  readonly get: number;
  readonly put: number;
  readonly stat: number;
  readonly list: number;
  readonly delete: number;
  readonly gotBytes: number;
  readonly putBytes: number;
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] };

/** Where counting begins. */
export function noCounts(): Writable<StorageCounts> {
  return { get: 0, put: 0, stat: 0, list: 0, delete: 0, gotBytes: 0, putBytes: 0 };
}

/** Counts what passes through it: outermost the caller's calls, innermost the retries too. */
export class CountedStorage implements Storage {
  readonly name: string;
  readonly #inner: Storage;
  readonly #counts: Writable<StorageCounts>;

  /** `counts` are added to, by all that share them. */
  constructor(inner: Storage, counts: Writable<StorageCounts> = noCounts()) {
    this.name = inner.name;
    this.#inner = inner;
    this.#counts = counts;
  }

  /** A copy of the figures as they are now. */
  get counts(): StorageCounts {
    return { ...this.#counts };
  }

  get(key: ObjectKey, options: GetOptions): ByteStream {
    this.#counts.get++;
    return counted(this.#inner.get(key, options), (count) => (this.#counts.gotBytes += count));
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    this.#counts.put++;
    const count = (stream: ByteStream) =>
      counted(stream, (sizeBytes) => (this.#counts.putBytes += sizeBytes));
    await this.#inner.put(key, mapSource(body, count), options);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    this.#counts.stat++;
    return await this.#inner.stat(key, options);
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    this.#counts.list++;
    return this.#inner.list(prefix, options);
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    this.#counts.delete++;
    await this.#inner.delete(keys, options);
  }

  get upkeep(): Upkeep | undefined {
    return this.#inner.upkeep;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }
}
