import { ObjectNotFoundError } from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import type { MirrorQueue } from "./mirror-queue.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
} from "./storage.ts";

/**
 * A mirror without the objects that may be old there, or deleted: those that a note names. The
 * mirror stays its owner's: disposing of this closes nothing.
 */
export class MirrorView implements Storage {
  readonly name: string;
  readonly #mirror: Storage;
  readonly #queue: MirrorQueue;

  constructor(mirror: Storage, queue: MirrorQueue) {
    this.name = mirror.name;
    this.#mirror = mirror;
    this.#queue = queue;
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    await this.#requireCurrent(key);
    yield* this.#mirror.get(key, options);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    await this.#mirror.put(key, body, options);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    await this.#requireCurrent(key);
    return await this.#mirror.stat(key, options);
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const isNamed = await this.#queue.named();
    for await (const info of this.#mirror.list(prefix, options)) {
      if (!isNamed(info.key)) yield info;
    }
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    await this.#mirror.delete(keys, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #requireCurrent(key: ObjectKey): Promise<void> {
    if ((await this.#queue.named())(key)) throw new ObjectNotFoundError(key, this.name);
  }
}
