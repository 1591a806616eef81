import { ObjectExistsError, ObjectNotFoundError } from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { requireValidKey } from "./key.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  UnfinishedPut,
  Upkeep,
} from "./storage.ts";

/** The objects whose keys begin with a folder, under the rest of their keys. */
export class PrefixedStorage implements Storage {
  readonly name: string;
  readonly #inner: Storage;
  readonly #folder: string;

  /** `prefix`: one or more segments, without "/" at its ends. */
  constructor(inner: Storage, prefix: string) {
    requireValidKey(prefix);
    this.name = `${inner.name}/${prefix}`;
    this.#inner = inner;
    this.#folder = `${prefix}/`;
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    try {
      for await (const chunk of this.#inner.get(this.#folder + key, options)) yield chunk;
    } catch (error) {
      throw this.#renamed(error, key);
    }
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    requireValidKey(key);
    try {
      await this.#inner.put(this.#folder + key, body, options);
    } catch (error) {
      throw this.#renamed(error, key);
    }
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    try {
      return { ...(await this.#inner.stat(this.#folder + key, options)), key };
    } catch (error) {
      throw this.#renamed(error, key);
    }
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const { startAfter } = options;
    const position = startAfter === undefined ? {} : { startAfter: this.#folder + startAfter };
    const objects = this.#inner.list(this.#folder + prefix, { ...options, ...position });
    for await (const info of objects) {
      yield { ...info, key: info.key.slice(this.#folder.length) };
    }
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    const inside = keys.map((key) => this.#folder + key);
    await this.#inner.delete(inside, options);
  }

  get upkeep(): Upkeep | undefined {
    const { upkeep } = this.#inner;
    if (upkeep === undefined) return undefined;
    const folder = this.#folder;
    const outside = (put: UnfinishedPut): UnfinishedPut => ({ ...put, key: folder + put.key });
    return {
      async *listUnfinished(prefix, options) {
        for await (const put of upkeep.listUnfinished(folder + prefix, options)) {
          yield { ...put, key: put.key.slice(folder.length) };
        }
      },
      removeUnfinished: (put, options) => upkeep.removeUnfinished(outside(put), options),
      ...(upkeep.readHold === undefined
        ? {}
        : { readHold: async (key, options) => await upkeep.readHold?.(folder + key, options) }),
      ...(upkeep.heldDelete === undefined
        ? {}
        : { heldDelete: async (options) => await upkeep.heldDelete?.(options) }),
      ...(upkeep.keepsVersions === undefined
        ? {}
        : { keepsVersions: async (options) => await upkeep.keepsVersions?.(options) }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  /** The reader knows the object by the key that was asked for. */
  #renamed(error: unknown, key: ObjectKey): unknown {
    if (error instanceof ObjectNotFoundError) {
      return new ObjectNotFoundError(key, this.name, { cause: error });
    }
    if (error instanceof ObjectExistsError) {
      return new ObjectExistsError(key, this.name, { cause: error });
    }
    return error;
  }
}
