import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../errors.ts";
import { counted, mapSource } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import { overlay } from "./overlay.ts";
import type { ObjectInfo, Storage } from "./storage.ts";

/**
 * When a store was last heard of. Bytes that move are a sign of life, but not after a call has
 * failed: to send the same again is none. Then an answer is.
 */
export class LifeSign {
  readonly #clock: Clock;
  #heardAtMs = Number.NEGATIVE_INFINITY;
  #isFailing = false;
  #hasAnswered = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** By the monotonic clock; -Infinity before the first sign. */
  get heardAtMs(): number {
    return this.#heardAtMs;
  }

  /** Whether it has ever done what it was asked, or said that it can't. */
  get hasAnswered(): boolean {
    return this.#hasAnswered;
  }

  moved(): void {
    if (!this.#isFailing) this.#heardAtMs = this.#clock.monotonicMs();
  }

  answered(): void {
    this.#isFailing = false;
    this.#hasAnswered = true;
    this.moved();
  }

  /** A call ended with an error. */
  ended(error: unknown): void {
    if (error instanceof ObjectNotFoundError || error instanceof ObjectExistsError) this.answered();
    else if (error instanceof StorageError && error.isRetryable) this.#isFailing = true;
  }
}

/** Listens to what passes; to be put below what repeats calls. */
export function heardStorage(inner: Storage, sign: LifeSign): Storage {
  const moved = (): void => sign.moved();
  const heard = async <T>(work: Promise<T>): Promise<T> => {
    try {
      const value = await work;
      sign.answered();
      return value;
    } catch (error) {
      sign.ended(error);
      throw error;
    }
  };
  return overlay(inner, {
    get: (key, options) => heardStream(inner.get(key, options), sign),
    put: (key, body, options) =>
      heard(
        inner.put(
          key,
          mapSource(body, (stream) => counted(stream, moved)),
          options,
        ),
      ),
    stat: (key, options) => heard(inner.stat(key, options)),
    list: (prefix, options) => heardStream<ObjectInfo>(inner.list(prefix, options), sign),
    delete: (keys, options) => heard(inner.delete(keys, options)),
  });
}

async function* heardStream<T>(stream: AsyncIterable<T>, sign: LifeSign): AsyncGenerator<T> {
  try {
    for await (const item of stream) {
      sign.answered();
      yield item;
    }
  } catch (error) {
    sign.ended(error);
    throw error;
  }
  sign.answered();
}
