import type { ByteSource, ByteStream } from "../../src/io/bytes.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectKey,
  PutOptions,
  Storage,
} from "../../src/storage/storage.ts";

export interface StorageHooks {
  /** Before an object is written; what it throws is the store's error. */
  readonly beforePut?: (key: ObjectKey, options: PutOptions) => Promise<void> | void;
  /** After the store has taken this many bytes of an object. */
  readonly onBytes?: (key: ObjectKey, sizeBytes: number) => Promise<void> | void;
  /** After an object was acknowledged. */
  readonly afterPut?: (key: ObjectKey) => Promise<void> | void;
}

/** Holds a backup before its first part is stored, until it is let go on. */
export function holdFirstPart(inner: Storage): {
  readonly storage: Storage;
  readonly entered: Promise<void>;
  readonly release: () => void;
} {
  const entered = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const storage = new HookedStorage(inner, {
    beforePut: async (key) => {
      if (!key.includes("part_001")) return;
      entered.resolve();
      await gate.promise;
    },
  });
  return { storage, entered: entered.promise, release: () => gate.resolve() };
}

/** A store in which a test does something at a certain moment. */
export class HookedStorage implements Storage {
  readonly name: string;
  readonly #inner: Storage;
  readonly #hooks: StorageHooks;

  constructor(inner: Storage, hooks: StorageHooks) {
    this.name = inner.name;
    this.#inner = inner;
    this.#hooks = hooks;
  }

  get(key: ObjectKey, options: GetOptions): ByteStream {
    return this.#inner.get(key, options);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    await this.#hooks.beforePut?.(key, options);
    await this.#inner.put(key, { ...body, open: () => this.#watched(key, body) }, options);
    await this.#hooks.afterPut?.(key);
  }

  stat(key: ObjectKey, options: CallOptions) {
    return this.#inner.stat(key, options);
  }

  list(prefix: string, options: ListOptions) {
    return this.#inner.list(prefix, options);
  }

  delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    return this.#inner.delete(keys, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async *#watched(key: ObjectKey, body: ByteSource): ByteStream {
    let sizeBytes = 0;
    for await (const chunk of body.open()) {
      sizeBytes += chunk.length;
      await this.#hooks.onBytes?.(key, sizeBytes);
      yield chunk;
    }
  }
}
