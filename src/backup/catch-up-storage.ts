import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { BACKUPS_FOLDER, CATCH_UP_FOLDER } from "../layout/keys.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
} from "../storage/storage.ts";

/** A repository in which the catch-up backups stand where backups are; all else is as it is. */
export class CatchUpStorage implements Storage {
  readonly name: string;
  readonly isWriteOnly?: boolean | undefined;
  readonly #inner: Storage;

  constructor(inner: Storage) {
    this.name = inner.name;
    this.isWriteOnly = inner.isWriteOnly;
    this.#inner = inner;
  }

  get(key: ObjectKey, options: GetOptions): ByteStream {
    return this.#inner.get(inside(key), options);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    await this.#inner.put(inside(key), body, options);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    return { ...(await this.#inner.stat(inside(key), options)), key };
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const { startAfter } = options;
    const position = startAfter === undefined ? {} : { startAfter: inside(startAfter) };
    for await (const info of this.#inner.list(inside(prefix), { ...options, ...position })) {
      yield { ...info, key: outside(info.key) };
    }
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    await this.#inner.delete(keys.map(inside), options);
  }

  get copies(): readonly Storage[] | undefined {
    return this.#inner.copies?.map((copy) => new CatchUpStorage(copy));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }
}

function inside(key: string): string {
  return moved(key, BACKUPS_FOLDER, CATCH_UP_FOLDER);
}

function outside(key: string): string {
  return moved(key, CATCH_UP_FOLDER, BACKUPS_FOLDER);
}

function moved(key: string, from: string, to: string): string {
  return key.startsWith(from) ? `${to}${key.slice(from.length)}` : key;
}
