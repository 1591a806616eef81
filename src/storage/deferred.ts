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

/**
 * A store that is opened by the first call. A call that can't open it fails as it does, and the
 * next one tries again.
 */
export class DeferredStorage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly #openInner: () => Promise<Storage>;
  #opening: Promise<Storage> | undefined;

  constructor(name: string, open: () => Promise<Storage>) {
    this.name = name;
    this.#openInner = open;
    this.upkeep = this.#makeUpkeep();
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    yield* (await this.#open()).get(key, options);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    await (await this.#open()).put(key, body, options);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    return await (await this.#open()).stat(key, options);
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    yield* (await this.#open()).list(prefix, options);
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    await (await this.#open()).delete(keys, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const inner = await this.#opening?.catch(() => undefined);
    await inner?.[Symbol.asyncDispose]();
  }

  async #open(): Promise<Storage> {
    this.#opening ??= this.#openInner();
    try {
      return await this.#opening;
    } catch (error) {
      this.#opening = undefined;
      throw error;
    }
  }

  /** What the store can do is known only when it is open: one that can't, finds nothing. */
  #makeUpkeep(): Upkeep {
    const open = async (): Promise<Upkeep | undefined> => (await this.#open()).upkeep;
    return {
      async *listUnfinished(prefix, options) {
        const upkeep = await open();
        if (upkeep !== undefined) yield* upkeep.listUnfinished(prefix, options);
      },
      removeUnfinished: async (put, options) => {
        await (await open())?.removeUnfinished(put, options);
      },
      readHold: async (key, options) => await (await open())?.readHold?.(key, options),
      heldDelete: async (options) => {
        const upkeep = await open();
        return upkeep?.readHold === undefined ? "none" : await upkeep.heldDelete?.(options);
      },
      keepsVersions: async (options) => {
        const upkeep = await open();
        return upkeep?.keepsVersions === undefined ? false : await upkeep.keepsVersions(options);
      },
    };
  }
}
