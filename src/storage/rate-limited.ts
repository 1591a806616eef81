import { mapSource } from "../io/bytes.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { rateLimited } from "../io/rate-limit.ts";
import type { ByteGate } from "../io/rate-limit.ts";
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

/** Bytes put and got, all calls together, keep to a rate. A body read again counts again. */
export class RateLimitedStorage implements Storage {
  readonly name: string;
  readonly #inner: Storage;
  readonly #limit: ByteGate;

  constructor(inner: Storage, limit: ByteGate) {
    this.name = inner.name;
    this.#inner = inner;
    this.#limit = limit;
  }

  get(key: ObjectKey, options: GetOptions): ByteStream {
    return rateLimited(this.#inner.get(key, options), this.#limit, options);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    const slowed = mapSource(body, (stream) => rateLimited(stream, this.#limit, options));
    await this.#inner.put(key, slowed, options);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    return await this.#inner.stat(key, options);
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    return this.#inner.list(prefix, options);
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    await this.#inner.delete(keys, options);
  }

  get upkeep(): Upkeep | undefined {
    return this.#inner.upkeep;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }
}
