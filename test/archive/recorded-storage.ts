import type { ByteSource, ByteStream } from "../../src/io/bytes.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
} from "../../src/storage/storage.ts";

export type Method = "get" | "put" | "stat" | "list" | "delete";

/** One call as it came in; puts say whether they were create-only. */
export type Call = `${Method} ${string}`;

/** Runs in place of a call; calls `next` to let the real one happen. */
export type Interception = (next: () => Promise<void>, signal: AbortSignal) => Promise<void>;

/** Writes down every call, and lets a test step in front of one of them. */
export class RecordedStorage implements Storage {
  readonly calls: Call[] = [];
  readonly #inner: Storage;
  readonly #interceptions: { readonly pattern: RegExp; readonly step: Interception }[] = [];

  constructor(inner: Storage) {
    this.#inner = inner;
  }

  get name(): string {
    return this.#inner.name;
  }

  /** The next call that matches ("put walnut_005/cluster.json") goes through `step`; once only. */
  interceptOnce(pattern: RegExp, step: Interception): void {
    this.#interceptions.push({ pattern, step });
  }

  /** Forgets the calls so far and gives them. */
  takeCalls(): Call[] {
    return this.calls.splice(0);
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const opened: { stream: ByteStream | undefined } = { stream: undefined };
    await this.#enter(`get ${key}`, options, async () => {
      opened.stream = this.#inner.get(key, options);
    });
    if (opened.stream !== undefined) yield* opened.stream;
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    const mode = options.ifAbsent === true ? "new" : "over";
    await this.#enter(`put ${mode} ${key}`, options, () => this.#inner.put(key, body, options));
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    const found: ObjectInfo[] = [];
    await this.#enter(`stat ${key}`, options, async () => {
      found.push(await this.#inner.stat(key, options));
    });
    const [info] = found;
    if (info === undefined) throw new Error("an interception left out a stat");
    return info;
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    await this.#enter(`list ${prefix}`, options, async () => {});
    yield* this.#inner.list(prefix, options);
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    await this.#enter(`delete ${keys.join(" ")}`, options, () => this.#inner.delete(keys, options));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  async #enter(call: Call, { signal }: CallOptions, next: () => Promise<void>): Promise<void> {
    this.calls.push(call);
    const index = this.#interceptions.findIndex(({ pattern }) => pattern.test(call));
    const [found] = index < 0 ? [] : this.#interceptions.splice(index, 1);
    await (found === undefined ? next() : found.step(next, signal));
  }
}

/** A call that is never answered, as long as nobody aborts it. */
export const hang: Interception = (_next, signal) =>
  new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });

/** A call that fails with `error` and does nothing. */
export function fail(error: Error): Interception {
  return async () => {
    throw error;
  };
}

/** A call that is done but whose answer is lost. */
export function loseAnswer(error: Error): Interception {
  return async (next) => {
    await next();
    throw error;
  };
}
