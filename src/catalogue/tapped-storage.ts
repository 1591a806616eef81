import type { ByteSource, ByteStream } from "../io/bytes.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
} from "../storage/storage.ts";

/** The same storage; whoever reads an object shows the bytes, as they are stored, to `onChunk`. */
export class TappedStorage implements Storage {
  readonly #storage: Storage;
  readonly #onChunk: (chunk: Uint8Array) => void;

  constructor(storage: Storage, onChunk: (chunk: Uint8Array) => void) {
    this.#storage = storage;
    this.#onChunk = onChunk;
  }

  get name(): string {
    return this.#storage.name;
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    for await (const chunk of this.#storage.get(key, options)) {
      this.#onChunk(chunk);
      yield chunk;
    }
  }

  put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    return this.#storage.put(key, body, options);
  }

  stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    return this.#storage.stat(key, options);
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    return this.#storage.list(prefix, options);
  }

  delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    return this.#storage.delete(keys, options);
  }

  get copies(): readonly Storage[] | undefined {
    return this.#storage.copies?.map((copy) => new TappedStorage(copy, this.#onChunk));
  }

  /** Leaves the other storage open. */
  async [Symbol.asyncDispose](): Promise<void> {}
}
