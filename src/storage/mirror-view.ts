import { ObjectNotFoundError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { BorrowedStorage } from "./borrowed.ts";
import type { MirrorQueue } from "./mirror-queue.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  Storage,
} from "./storage.ts";

/** A mirror without the objects that may be old there, or deleted: those that a note names. */
export class MirrorView extends BorrowedStorage {
  readonly #mirror: Storage;
  readonly #queue: MirrorQueue;

  constructor(mirror: Storage, queue: MirrorQueue) {
    super(mirror);
    this.#mirror = mirror;
    this.#queue = queue;
  }

  override async *get(key: ObjectKey, options: GetOptions): ByteStream {
    await this.#requireCurrent(key);
    yield* this.#mirror.get(key, options);
  }

  override async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    await this.#requireCurrent(key);
    return await this.#mirror.stat(key, options);
  }

  override async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const isNamed = await this.#queue.named();
    for await (const info of this.#mirror.list(prefix, options)) {
      if (!isNamed(info.key)) yield info;
    }
  }

  async #requireCurrent(key: ObjectKey): Promise<void> {
    if ((await this.#queue.named())(key)) throw new ObjectNotFoundError(key, this.name);
  }
}
