import { DeadlineError } from "../errors.ts";
import { abortable, untilAborted } from "../io/abort.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import { Watchdog } from "../io/watchdog.ts";
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
 * Gives every call a limit of time, from its beginning to the last byte or key: then it rejects
 * with DeadlineError, even if the store or the file system below hangs and can't be stopped. After
 * that it is not known whether a `put` or `delete` went through.
 */
export class DeadlineStorage implements Storage {
  readonly name: string;
  readonly #inner: Storage;
  readonly #timeoutMs: number;
  readonly #clock: Clock;

  constructor(inner: Storage, timeoutMs: number, clock: Clock) {
    this.name = inner.name;
    this.#inner = inner;
    this.#timeoutMs = timeoutMs;
    this.#clock = clock;
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    using watchdog = this.#watch(`get of ${key} from`, options);
    const { signal } = watchdog;
    yield* abortable(this.#inner.get(key, { ...options, signal }), signal);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    using watchdog = this.#watch(`put of ${key} to`, options);
    const { signal } = watchdog;
    await untilAborted(this.#inner.put(key, body, { ...options, signal }), signal);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    using watchdog = this.#watch(`stat of ${key} in`, options);
    const { signal } = watchdog;
    return await untilAborted(this.#inner.stat(key, { signal }), signal);
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    using watchdog = this.#watch(`list of ${prefix} in`, options);
    const { signal } = watchdog;
    yield* abortable(this.#inner.list(prefix, { ...options, signal }), signal);
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    using watchdog = this.#watch(`delete of ${keys.length} objects in`, options);
    const { signal } = watchdog;
    await untilAborted(this.#inner.delete(keys, { signal }), signal);
  }

  get upkeep(): Upkeep | undefined {
    return this.#inner.upkeep;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  #watch(call: string, { signal }: CallOptions): Watchdog {
    signal.throwIfAborted();
    const onTimeout = () =>
      new DeadlineError(`${call} ${this.name} did not end within ${this.#timeoutMs / 1000} s`, {
        hint: "The store is stalled, unreachable or too slow. It is safe to try again.",
      });
    return new Watchdog({ signal, timeoutMs: this.#timeoutMs, clock: this.#clock, onTimeout });
  }
}
