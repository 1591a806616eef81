import { untilAborted } from "../../src/io/abort.ts";
import { mapSource } from "../../src/io/bytes.ts";
import type { ByteSource, ByteStream } from "../../src/io/bytes.ts";
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

export type StorageMethod = "get" | "put" | "stat" | "list" | "delete";

/** What goes wrong with one call. */
export type Fault =
  /** The call is not made. */
  | { readonly kind: "fail"; readonly error: Error }
  /** After so many bytes of `get`'s stream or `put`'s body, or objects of `list`. */
  | { readonly kind: "fail-after"; readonly count: number; readonly error: Error }
  /** The call is made, its result lost. */
  | { readonly kind: "lose-answer"; readonly error: Error }
  /** Never ends by itself; ends with the signal, unless it is deaf. */
  | { readonly kind: "hang"; readonly isDeaf?: boolean }
  /** `get` gives one wrong bit in this byte. */
  | { readonly kind: "corrupt"; readonly byte: number }
  /** `get` ends after so many bytes as if that were all. */
  | { readonly kind: "truncate"; readonly sizeBytes: number }
  /** Runs first; then the call is made. */
  | { readonly kind: "before"; readonly run: () => void | Promise<void> };

export interface StorageCall {
  readonly method: StorageMethod;
  /** Key, or prefix of a list, or first key of a delete. */
  readonly key: string;
}

/** A storage whose calls fail as they are told, by method and count of its calls. */
export class FaultyStorage implements Storage {
  readonly name: string;
  /** All calls until now, in order. */
  readonly calls: StorageCall[] = [];
  readonly #inner: Storage;
  readonly #faults = new Map<string, Fault>();

  constructor(inner: Storage) {
    this.name = inner.name;
    this.#inner = inner;
  }

  /** Queues a fault for the `call`th call of a method (1 is the first), or for every one. */
  fault(method: StorageMethod, call: number | "every", fault: Fault): this {
    this.#faults.set(`${method} ${call}`, fault);
    return this;
  }

  /** How often a method was called. */
  count(method: StorageMethod): number {
    return this.calls.filter((call) => call.method === method).length;
  }

  get upkeep(): Upkeep | undefined {
    return this.#inner.upkeep;
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const fault = this.#next("get", key);
    await before(fault, options.signal);
    let position = 0;
    if (fault?.kind === "fail-after" && fault.count === 0) throw fault.error;
    for await (const chunk of this.#inner.get(key, options)) {
      const bytes = Buffer.from(chunk);
      const limit = limitOf(fault) - position;
      if (fault?.kind === "corrupt") flipBit(bytes, fault.byte - position);
      if (bytes.length >= limit && limit > 0) yield bytes.subarray(0, limit);
      if (bytes.length >= limit) {
        if (fault?.kind === "fail-after") throw fault.error;
        return;
      }
      yield bytes;
      position += bytes.length;
    }
    if (fault?.kind === "lose-answer") throw fault.error;
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    const fault = this.#next("put", key);
    await before(fault, options.signal);
    const source =
      fault?.kind === "fail-after" ? mapSource(body, (stream) => cut(stream, fault)) : body;
    await this.#inner.put(key, source, options);
    if (fault?.kind === "lose-answer") throw fault.error;
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    const fault = this.#next("stat", key);
    await before(fault, options.signal);
    const info = await this.#inner.stat(key, options);
    if (fault?.kind === "lose-answer") throw fault.error;
    return info;
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const fault = this.#next("list", prefix);
    await before(fault, options.signal);
    let count = 0;
    for await (const info of this.#inner.list(prefix, options)) {
      if (fault?.kind === "fail-after" && count === fault.count) throw fault.error;
      count++;
      yield info;
    }
    if (fault?.kind === "lose-answer") throw fault.error;
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    const fault = this.#next("delete", keys[0] ?? "");
    await before(fault, options.signal);
    await this.#inner.delete(keys, options);
    if (fault?.kind === "lose-answer") throw fault.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  #next(method: StorageMethod, key: string): Fault | undefined {
    this.calls.push({ method, key });
    const call = `${method} ${this.count(method)}`;
    return this.#faults.get(call) ?? this.#faults.get(`${method} every`);
  }
}

async function before(fault: Fault | undefined, signal: AbortSignal): Promise<void> {
  if (fault?.kind === "fail") throw fault.error;
  if (fault?.kind === "before") await fault.run();
  if (fault?.kind !== "hang") return;
  const never = new Promise<never>(() => {});
  await (fault.isDeaf === true ? never : untilAborted(never, signal));
}

function limitOf(fault: Fault | undefined): number {
  if (fault?.kind === "fail-after") return fault.count;
  return fault?.kind === "truncate" ? fault.sizeBytes : Number.POSITIVE_INFINITY;
}

function flipBit(bytes: Buffer, index: number): void {
  if (index >= 0 && index < bytes.length) bytes.writeUInt8(bytes.readUInt8(index) ^ 1, index);
}

async function* cut(
  stream: ByteStream,
  { count, error }: { readonly count: number; readonly error: Error },
): ByteStream {
  let leftBytes = count;
  for await (const chunk of stream) {
    if (chunk.length >= leftBytes) {
      if (leftBytes > 0) yield chunk.subarray(0, leftBytes);
      throw error;
    }
    leftBytes -= chunk.length;
    yield chunk;
  }
  throw error;
}
