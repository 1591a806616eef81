import { OperationError, StorageError } from "../errors.ts";
import type { RateLimit } from "../io/rate-limit.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";

/** What S3 takes in one request. */
const BATCH_KEYS = 1000;
/** Calls that fail in a row, from a whole batch down to one object, before all is given up. */
const MAX_FAILURES_IN_ROW = 24;

/** An object that is there still. */
export interface NotRemoved {
  readonly key: ObjectKey;
  readonly reason: string;
}

export interface DeleterOptions {
  /** Objects per second, all together; absent = as fast as the store takes them. */
  readonly rateLimit?: RateLimit | undefined;
  /** Told after each batch how many were removed in all. */
  readonly onProgress?: (removedCount: number) => void;
  readonly signal: AbortSignal;
}

/**
 * Removes objects in batches. One that can't be removed is written down and holds nothing else up:
 * a batch that fails is halved until the object is found. When nothing succeeds any more, the
 * rest is written down as not tried.
 */
export class Deleter {
  readonly #storage: Storage;
  readonly #options: DeleterOptions;
  readonly #failures: NotRemoved[] = [];
  #removedCount = 0;
  #failuresInRow = 0;

  constructor(storage: Storage, options: DeleterOptions) {
    this.#storage = storage;
    this.#options = options;
  }

  get removedCount(): number {
    return this.#removedCount;
  }

  /** What could not be removed until now. */
  get failures(): readonly NotRemoved[] {
    return this.#failures;
  }

  /**
   * Removes these, or writes them down. Gives the keys that are there still. Rejects only with the
   * signal's reason, and for bugs.
   */
  async remove(keys: Iterable<ObjectKey>): Promise<ReadonlySet<ObjectKey>> {
    const before = this.#failures.length;
    let batch: ObjectKey[] = [];
    for (const key of keys) {
      batch.push(key);
      if (batch.length < BATCH_KEYS) continue;
      await this.#removeBatch(batch);
      batch = [];
    }
    if (batch.length > 0) await this.#removeBatch(batch);
    return new Set(this.#failures.slice(before).map(({ key }) => key));
  }

  async #removeBatch(keys: readonly ObjectKey[]): Promise<void> {
    const { signal, rateLimit, onProgress } = this.#options;
    signal.throwIfAborted();
    if (this.#failuresInRow >= MAX_FAILURES_IN_ROW) {
      this.#writeDown(keys, "not tried: too many before it failed");
      return;
    }
    try {
      await rateLimit?.take(keys.length, { signal });
      await this.#storage.delete(keys, { signal });
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof OperationError)) throw error;
      await this.#afterFailure(keys, error);
      return;
    }
    this.#failuresInRow = 0;
    this.#removedCount += keys.length;
    onProgress?.(this.#removedCount);
  }

  async #afterFailure(keys: readonly ObjectKey[], error: OperationError): Promise<void> {
    this.#failuresInRow += 1;
    if (keys.length === 1) {
      this.#writeDown(keys, error.message);
      return;
    }
    const middle = Math.ceil(keys.length / 2);
    await this.#removeBatch(keys.slice(0, middle));
    await this.#removeBatch(keys.slice(middle));
  }

  #writeDown(keys: readonly ObjectKey[], reason: string): void {
    for (const key of keys) this.#failures.push({ key, reason });
  }
}

/** Names in an error's message at most; all of them are logged. */
const MAX_NAMED = 10;

/** The error of a run that could not remove everything. */
export function incompleteError(
  storageName: string,
  failures: readonly NotRemoved[],
  removedCount: number,
): StorageError {
  const named = failures.slice(0, MAX_NAMED).map(({ key }) => key);
  const more = failures.length > named.length ? `, and ${failures.length - named.length} more` : "";
  const [first] = failures;
  return new StorageError(
    `${failures.length} objects in ${storageName} could not be removed (${removedCount} were): ` +
      `${named.join(", ")}${more}: ${first?.reason ?? ""}`,
    {
      isRetryable: false,
      hint:
        "Every backup that is listed can still be restored. Run the command again: it goes on " +
        "where it stopped.",
    },
  );
}
