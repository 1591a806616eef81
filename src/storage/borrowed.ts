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

/** A storage that is somebody else's: who disposes of it closes nothing. */
export class BorrowedStorage implements Storage {
  readonly name: string;
  readonly #inner: Storage;

  constructor(inner: Storage) {
    this.name = inner.name;
    this.#inner = inner;
  }

  get(key: ObjectKey, options: GetOptions): ByteStream {
    return this.#inner.get(key, options);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    await this.#inner.put(key, body, options);
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

  get isWriteOnly(): boolean | undefined {
    return this.#inner.isWriteOnly;
  }

  get upkeep(): Upkeep | undefined {
    return this.#inner.upkeep;
  }

  get copies(): readonly Storage[] | undefined {
    return this.#inner.copies;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
