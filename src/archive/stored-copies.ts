import {
  DamagedError,
  FormatError,
  ObjectNotFoundError,
  OperationError,
  StorageError,
  WrongKeyError,
} from "../errors.ts";
import type { Log } from "../io/log.ts";
import { attemptsFor, storageForAttempt } from "../storage/copies.ts";
import type { Storage } from "../storage/storage.ts";
import { unprovedError } from "./absence.ts";
import type { DeadlineScope } from "./deadline.ts";
import { listStoredSegment, type StoredWal } from "./stored-wal.ts";

export interface StoredCopiesOptions {
  readonly scope: DeadlineScope;
  /** What to do where every copy of an object is damaged. */
  readonly damageHint: string;
  readonly log: Log;
}

/** Brings an object of the file from this store to its place; rejects for one that is damaged. */
export type Land = (storage: Storage, stored: StoredWal) => Promise<void>;

/** What a list has led to. */
export interface ListedWal {
  /** That landed. */
  readonly taken: StoredWal | undefined;
  /** Of an unfinished segment. */
  readonly partial: readonly StoredWal[];
}

/** An object that looks damaged is read once more: the damage may have happened on the way. */
const READ_ATTEMPTS = 2;

/**
 * Takes what the archive has under the name of one WAL file: objects one after the other, and of
 * each one copies in other stores, until one is whole.
 */
export class StoredCopies {
  readonly #storage: Storage;
  readonly #name: string;
  readonly #options: StoredCopiesOptions;
  #failure: DamagedError | undefined;

  constructor(storage: Storage, name: string, options: StoredCopiesOptions) {
    this.#storage = storage;
    this.#name = name;
    this.#options = options;
  }

  /** Why an object that was there could not be used. */
  get failure(): DamagedError | undefined {
    return this.#failure;
  }

  /**
   * Takes the first whole object of the file that `land` does not reject. What of an unfinished one
   * is there is only named. Rejects with DamagedError where there are objects and none is whole;
   * with StorageError where it is not known whether there is one.
   */
  async takeListed(land: Land, triedKey?: string): Promise<ListedWal> {
    const { scope } = this.#options;
    scope.begin(`listing the objects of ${this.#name} in ${this.#storage.name}`);
    const unanswered: unknown[] = [];
    const { whole, partial } = await listStoredSegment(this.#storage, this.#name, {
      signal: scope.signal,
      onUnanswered: (error) => unanswered.push(error),
    });
    for (const stored of whole) {
      const isKnownDamaged = stored.key === triedKey && this.#failure !== undefined;
      if (!isKnownDamaged && (await this.take(stored, land))) return { taken: stored, partial };
    }
    if (this.#failure !== undefined) throw this.#failure;
    const [first] = whole;
    if (first === undefined) {
      if (unanswered.length > 0) throw unprovedError(this.#name, unanswered[0]);
      return { taken: undefined, partial };
    }
    throw new StorageError(
      `${this.#storage.name} lists object ${first.key} but says that it does not exist`,
      { isRetryable: true, hint: "The store contradicts itself; ask again." },
    );
  }

  /**
   * False when there is no such object, or when it is damaged: then `failure` says how. Where there
   * are copies in other stores, each is read before the object counts as damaged.
   */
  async take(stored: StoredWal, land: Land): Promise<boolean> {
    const { scope } = this.#options;
    scope.begin(`fetching ${stored.key} from ${this.#storage.name}`);
    const attempts = attemptsFor(this.#storage, READ_ATTEMPTS);
    let damage: FormatError | WrongKeyError | undefined;
    for (let attempt = 1; attempt <= attempts; attempt++) {
      try {
        await land(storageForAttempt(this.#storage, attempt), stored);
        if (damage !== undefined) this.#warnOfDamage(stored, damage);
        return true;
      } catch (error) {
        scope.signal.throwIfAborted();
        const isKeyWrong = error instanceof WrongKeyError && this.#storage.copies !== undefined;
        if (error instanceof FormatError || isKeyWrong) damage ??= error;
        else if (damage === undefined && error instanceof ObjectNotFoundError) return false;
        else if (damage === undefined || !(error instanceof OperationError)) throw error;
      }
    }
    if (damage instanceof WrongKeyError) throw damage;
    if (damage !== undefined) this.#failure ??= this.#damaged(stored, damage);
    return false;
  }

  #warnOfDamage({ key }: StoredWal, { message }: Error): void {
    if (this.#storage.copies === undefined) return;
    this.#options.log.warning("an object is damaged; another store's copy was taken", {
      key,
      damage: message,
      hint: "`walnut st sync` repairs it",
    });
  }

  #damaged({ key }: StoredWal, cause: FormatError): DamagedError {
    return new DamagedError(`object ${key} in ${this.#storage.name} is damaged: ${cause.message}`, {
      cause,
      hint: this.#options.damageHint,
    });
  }
}
