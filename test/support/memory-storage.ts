import { createHash } from "node:crypto";
import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../../src/errors.ts";
import { abortable } from "../../src/io/abort.ts";
import { CHUNK_BYTES, readAll } from "../../src/io/bytes.ts";
import type { ByteSource, ByteStream } from "../../src/io/bytes.ts";
import { compareKeys, requireValidKey, requireValidRange } from "../../src/storage/key.ts";
import { tellingSource } from "../../src/storage/sent-bytes.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  Upkeep,
} from "../../src/storage/storage.ts";

interface MemoryObject {
  readonly bytes: Buffer;
  readonly modifiedAt: Date;
  readonly version: string;
}

/** A storage in memory; passes the contract suite as the real ones do. */
export class MemoryStorage implements Storage {
  readonly name = "memory://test";
  readonly #objects = new Map<ObjectKey, MemoryObject>();
  /** Whether `stat` and `list` tell MD5 sums, as object stores do: of the bytes as they are now. */
  tellsSums = false;
  /** What it can do besides; nothing unless a test sets it. */
  upkeep: Upkeep | undefined = undefined;
  #putCount = 0;

  /** All keys, in byte order. */
  get keys(): ObjectKey[] {
    return [...this.#objects.keys()].toSorted(compareKeys);
  }

  /** The stored bytes themselves, so that a test can damage them; undefined if there are none. */
  bytesOf(key: ObjectKey): Buffer | undefined {
    return this.#objects.get(key)?.bytes;
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const { signal, range, onOpened, ifVersion } = options;
    if (range !== undefined) requireValidRange(range);
    signal.throwIfAborted();
    const { bytes, version } = this.#find(key);
    if (ifVersion !== undefined && ifVersion !== version) {
      throw new StorageError(`object ${key} was changed`, { isRetryable: false });
    }
    onOpened?.({ sizeBytes: bytes.length, version });

    const wanted = bytes.subarray(range?.start ?? 0, range?.end ?? bytes.length);
    for (let start = 0; start < wanted.length; start += CHUNK_BYTES) {
      await Promise.resolve();
      signal.throwIfAborted();
      yield Buffer.from(wanted.subarray(start, start + CHUNK_BYTES));
    }
  }

  async put(
    key: ObjectKey,
    body: ByteSource,
    { signal, ifAbsent, onSent }: PutOptions,
  ): Promise<void> {
    requireValidKey(key);
    signal.throwIfAborted();
    const bytes = await readAll(abortable(tellingSource(body, onSent).open(), signal));
    signal.throwIfAborted();
    if (ifAbsent === true && this.#objects.has(key)) throw new ObjectExistsError(key, this.name);
    this.#putCount++;
    this.#objects.set(key, { bytes, modifiedAt: new Date(), version: `v${this.#putCount}` });
  }

  async stat(key: ObjectKey, { signal }: CallOptions): Promise<ObjectInfo> {
    signal.throwIfAborted();
    return this.#infoOf(key, this.#find(key));
  }

  async *list(prefix: string, { signal, startAfter }: ListOptions): AsyncIterable<ObjectInfo> {
    signal.throwIfAborted();
    for (const key of this.keys) {
      if (!key.startsWith(prefix)) continue;
      if (startAfter !== undefined && compareKeys(key, startAfter) <= 0) continue;
      await Promise.resolve();
      signal.throwIfAborted();
      const object = this.#objects.get(key);
      if (object === undefined) continue;
      yield this.#infoOf(key, object);
    }
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    signal.throwIfAborted();
    for (const key of keys) this.#objects.delete(key);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #infoOf(key: ObjectKey, { bytes, modifiedAt }: MemoryObject): ObjectInfo {
    const md5 = () => createHash("md5").update(bytes).digest("hex");
    return {
      key,
      sizeBytes: bytes.length,
      modifiedAt,
      ...(this.tellsSums ? { sum: `md5:${md5()}` } : {}),
    };
  }

  #find(key: ObjectKey): MemoryObject {
    const object = this.#objects.get(key);
    if (object === undefined) throw new ObjectNotFoundError(key, this.name);
    return object;
  }
}
