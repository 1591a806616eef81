import type { ByteSource, ByteStream } from "../io/bytes.ts";
import type { ObjectSum } from "./object-sum.ts";

/** "wal_005/000000010000000000000003.zst": segments joined by one "/", none at either end. */
export type ObjectKey = string;

/** Bytes `[start, end)` of an object; without `end` up to its last byte. */
export interface ByteRange {
  readonly start: number;
  readonly end?: number;
}

export interface ObjectInfo {
  readonly key: ObjectKey;
  readonly sizeBytes: number;
  /** When the store says that it was written. Copies lose it: never decide by it what is newest. */
  readonly modifiedAt: Date;
  /** Of the stored bytes, as the store tells it; absent where it tells none. */
  readonly sum?: ObjectSum;
  /** The names of all storages that have it, in lists of several (FAILOVER_STORAGES.md). */
  readonly stores?: readonly string[];
}

export interface CallOptions {
  readonly signal: AbortSignal;
}

/** What the store says of an object whose bytes it begins to send. */
export interface OpenedObject {
  /** Of the whole object, whatever range was asked for. */
  readonly sizeBytes: number;
  /** Another one whenever the object is written again; absent where the store tells none. */
  readonly version?: string;
}

export interface GetOptions extends CallOptions {
  /** Cut at the object's end: one that begins there or later gives no bytes. */
  readonly range?: ByteRange;
  /** Called once, before the first chunk. */
  readonly onOpened?: (object: OpenedObject) => void;
  /** Rejects with StorageError unless the object is this version still, as `onOpened` told it. */
  readonly ifVersion?: string;
}

export interface SendOptions extends CallOptions {
  /**
   * Told how many bytes of the body, from its beginning, the store or the system has taken; fewer
   * again where they are sent once more.
   */
  readonly onSent?: ((sentBytes: number) => void) | undefined;
}

export interface PutOptions extends SendOptions {
  /** Create only: rejects with ObjectExistsError, and writes nothing, if the key has an object. */
  readonly ifAbsent?: boolean;
  /**
   * Up to 96 hex digits that an encrypted object tells in plain text, for those who have no key
   * that opens it; other stores pass over it.
   */
  readonly note?: string;
}

export interface ListOptions extends CallOptions {
  /** Only keys after this one, in byte order. */
  readonly startAfter?: ObjectKey;
  /**
   * Told of each store that may hold more and did not answer; the list is what the others hold. For
   * who takes a key that is missing for a proof. Where there is one store the list rejects instead.
   */
  readonly onUnanswered?: (error: unknown) => void;
}

/**
 * A flat map from keys to bytes that outlives us.
 *
 * What every implementation owes its callers, checked for each by test/storage/contract.ts:
 *
 * - `put` is atomic: a reader finds the old object, the new one, or none; never a part. It resolves
 *   only when the store has acknowledged (directory: fsynced) the whole object.
 * - `put` with `ifAbsent` is won by exactly one of several writers.
 * - What `put` stored, `get`, `stat` and `list` see at once.
 * - `get` and `stat` of a missing key reject with ObjectNotFoundError; `delete` of one is no error.
 * - `get` fails rather than ending early: a stream that ends has given every byte asked for.
 * - `list` yields all keys that begin with `prefix` (plain text, not a folder), in ascending byte
 *   order, streamed: it holds at most one page of the store's answer.
 * - Once `signal` is aborted the call rejects with its reason, and nothing more becomes visible.
 * - Errors are those of src/errors.ts: ObjectNotFoundError, ObjectExistsError, StorageAccessError,
 *   StorageError; none holds a credential.
 *
 * Implementations do not throttle, log, compress or encrypt: wrappers do. They do not retry whole
 * calls either (`retrying.ts` does); a store that sends an object in parts retries a part itself,
 * because it alone still has the part's bytes.
 */
export interface Storage extends AsyncDisposable {
  /** For messages, without credentials: "s3://backups/main". */
  readonly name: string;

  get(key: ObjectKey, options: GetOptions): ByteStream;
  put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void>;
  stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo>;
  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo>;
  /** Rejects if any of the keys could not be removed, naming the first and how many. */
  delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void>;
  /**
   * How many bytes `get` gives of an object that takes `storedBytes` in the store; undefined where
   * only reading it tells. Absent where both are the same: all stores, and wrappers of most kinds.
   */
  readableBytes?(key: ObjectKey, storedBytes: number): number | undefined;
  /**
   * Stores that each should hold every object, to be read alone where an object looks damaged: see
   * copies.ts. Absent where there is one store.
   */
  readonly copies?: readonly Storage[] | undefined;
  /**
   * Of the copies the one that has to have every object, with all patience: what it has is what
   * counts where damage is looked for. Absent where there is one store.
   */
  readonly primary?: Storage | undefined;
  /**
   * Of stores that stand in for one another the first, alone: where it holds nothing at all, its
   * file system is not mounted or its prefix is wrong. Absent where there is one store.
   */
  readonly first?: Storage | undefined;
  /** Names of stores that do not answer, and of which nothing is seen; absent where none is left out. */
  readonly unseen?: readonly string[] | undefined;
  /** What is put as secret can't be read here: there is no private key. */
  readonly isWriteOnly?: boolean | undefined;
  /** With what and with which keys is encrypted what is put as secret; absent where nothing is. */
  readonly encryption?: string | undefined;
  /** What a store can do besides; absent where it can do none of it. */
  readonly upkeep?: Upkeep | undefined;
}

/** A put that was begun and not finished: no list shows it, but it takes room. */
export interface UnfinishedPut {
  /** Of the object that it was to be. */
  readonly key: ObjectKey;
  /** Tells it from other puts of the same key. */
  readonly id: string;
  /** By the clock of the writer, or of the store. */
  readonly startedAt: Date;
}

/** Why the store does not let an object be removed, or would keep its bytes if it were. */
export interface ObjectHold {
  readonly isLegalHold: boolean;
  readonly lockedUntil?: Date | undefined;
}

/**
 * What happens where an object that is held is deleted: "refused", the delete fails; "hidden", it
 * succeeds, and what the store keeps is seen no more; "none", nothing can be held.
 */
export type HeldDelete = "none" | "refused" | "hidden";

/** What retention needs of a store, as far as the store can do it. Repeats failed requests. */
export interface Upkeep {
  /** Unfinished puts of keys that begin with `prefix`. */
  listUnfinished(prefix: string, options: CallOptions): AsyncIterable<UnfinishedPut>;
  /** Ends one for good; one that is gone already is no error. */
  removeUnfinished(put: UnfinishedPut, options: CallOptions): Promise<void>;
  /** Absent where objects can't be held. Undefined for an object that is not held, or not there. */
  readHold?(key: ObjectKey, options: CallOptions): Promise<ObjectHold | undefined>;
  /** Undefined where the store does not tell. Absent: as if it did not. */
  heldDelete?(options: CallOptions): Promise<HeldDelete | undefined>;
  /**
   * Whether what is removed stays in the store as an older version; undefined where it does not
   * tell us. Absent where there are no versions.
   */
  keepsVersions?(options: CallOptions): Promise<boolean | undefined>;
}
