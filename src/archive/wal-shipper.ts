import { Bell } from "../io/bell.ts";
import type { Clock } from "../io/clock.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { isTemporary, Outage, reasonOf } from "./outage.ts";
import { PartialObject } from "./partial-object.ts";
import { pushWal, type PushOptions } from "./push.ts";
import type { WalSpool } from "./wal-spool.ts";

export interface ShipOptions extends Omit<PushOptions, "signal"> {
  readonly clock: Clock;
  /** An unfinished segment is stored whenever it has grown, without waiting for the rest. */
  readonly isSynchronous: boolean;
  /** Else after this time... */
  readonly partialIntervalMs: number;
  /** ... or as soon as it has grown by this much. */
  readonly partialBytes: number | undefined;
  /**
   * Given each segment once the server may forget it; its file stays until this is done. Nothing
   * waits for it, and a segment that comes too soon behind others is not given.
   */
  readonly onSegment?: ((segment: WalSpool) => Promise<void>) | undefined;
}

/** Complete segments that are being stored or wait; each has a file, and so has the next one. */
const COMPLETE_MAX = 2;
/** Segments that are looked at after they were stored. */
const LOOKED_AT_MAX = 2;
/** Before an object that is not ours is looked at again. */
const RECHECK_MS = 60_000;

/** A segment, and what of it has been stored. */
interface Cargo {
  readonly spool: WalSpool;
  readonly partial: PartialObject;
  /** Whether the store may hold a `.partial` of it. */
  mayHavePartial: boolean;
  shippedBytes: number;
  shippedAtMs: number;
  /** Not before so much was received: the store has as much from an earlier run. */
  neededBytes: number;
  notBeforeMs: number;
  /** The timeline ends in this segment: what is there is all there will be. */
  isFinal: boolean;
  isDone: boolean;
}

type Job =
  | { readonly kind: "segment" | "partial"; readonly cargo: Cargo }
  | { readonly kind: "wait"; readonly ms: number };

/** No WAL has this position: nothing is known to be stored. */
export const NOTHING_STORED = lsn(0n);

/** Nothing but an event ends such a wait. */
const IDLE_MS = 60 * 60_000;

/**
 * Stores what is received, one object at a time and in the order of the WAL, and knows up to where
 * the store has acknowledged it. Tries again for ever; RECEIVE.md tells what is durable when.
 */
export class WalShipper implements AsyncDisposable {
  /** Called when `storedLsn` has grown. */
  onStored: () => void = () => {};
  readonly #storage: Storage;
  readonly #options: ShipOptions;
  readonly #outage: Outage;
  readonly #bell = new Bell();
  readonly #complete: Cargo[] = [];
  #current: Cargo | undefined;
  #busyWith: Cargo | undefined;
  #storedLsn: Lsn;
  #isWanted = false;
  #lookedAtCount = 0;

  /** The store holds all WAL before `storedLsn`, as far as it is wanted at all. */
  constructor(storage: Storage, storedLsn: Lsn, options: ShipOptions) {
    this.#storage = storage;
    this.#storedLsn = storedLsn;
    this.#options = options;
    this.#outage = new Outage(`storing WAL in ${storage.name}`, options);
  }

  /** All WAL before it may be forgotten by the server. */
  get storedLsn(): Lsn {
    return this.#storedLsn;
  }

  /** How long the store has not taken anything although it should; 0 while all is well. */
  get outageMs(): number {
    return this.#outage.durationMs;
  }

  /** Resolves when one more segment may be begun. */
  async room({ signal }: CallOptions): Promise<void> {
    await this.#bell.until(() => this.#complete.length < COMPLETE_MAX, { signal });
  }

  /**
   * Takes over a segment that has just been begun; the one before it must be complete. With
   * `isResumed` an earlier run may have stored a part of it.
   */
  begin(spool: WalSpool, { isResumed }: { readonly isResumed: boolean }): void {
    this.#current = {
      spool,
      partial: new PartialObject(this.#storage, spool, this.#options),
      mayHavePartial: isResumed,
      shippedBytes: 0,
      shippedAtMs: isResumed ? Number.NEGATIVE_INFINITY : this.#now(),
      neededBytes: 0,
      notBeforeMs: Number.NEGATIVE_INFINITY,
      isFinal: false,
      isDone: false,
    };
  }

  /** Tells that the current segment has grown. */
  grown(): void {
    if (this.#current?.spool.isComplete === true) {
      this.#complete.push(this.#current);
      this.#current = undefined;
    }
    this.#bell.ring();
  }

  /** The server waits for a confirmation: what was received is stored now. */
  hurry(): void {
    this.#isWanted = true;
    this.#bell.ring();
  }

  /** The timeline has ended: resolves when all of it that was received is stored. */
  async finishTimeline(options: CallOptions): Promise<void> {
    const last = this.#current;
    if (last !== undefined) {
      last.isFinal = true;
      last.isDone = last.shippedBytes === last.spool.receivedBytes;
    }
    this.#bell.ring();
    await this.#bell.until(() => last === undefined || last.isDone, options);
    await this.#bell.until(() => this.#complete.length === 0, options);
    await this.drop(options);
  }

  /** Forgets the segment that is not complete: the server is asked for it again. */
  async drop(options: CallOptions): Promise<void> {
    const dropped = this.#current;
    this.#current = undefined;
    if (dropped === undefined) return;
    // An upload that is given up might still arrive, after a later and longer one.
    await this.#bell.until(() => this.#busyWith !== dropped, options);
    await dropped.spool[Symbol.asyncDispose]();
  }

  /**
   * Resolves when all complete segments are stored. From then on nothing from `limitLsn` on counts
   * as stored: it was of a history that the server does not share.
   */
  async settle(limitLsn: Lsn, options: CallOptions): Promise<void> {
    await this.#bell.until(() => this.#complete.length === 0, options);
    if (limitLsn < this.#storedLsn) this.#storedLsn = limitLsn;
  }

  /** Ends only with an error: the abort's reason, or what trying again can't mend. */
  async run({ signal }: CallOptions): Promise<never> {
    for (;;) {
      const job = this.#nextJob();
      if (job.kind !== "wait") {
        await this.#attempt(job, signal);
        continue;
      }
      await this.#bell.rungWithin(job.ms, { clock: this.#options.clock, signal });
      signal.throwIfAborted();
    }
  }

  /** Removes the files that are left; after `run` has ended, and nothing is received any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    const rest = this.#current === undefined ? this.#complete : [...this.#complete, this.#current];
    for (const { spool } of rest) await spool[Symbol.asyncDispose]();
  }

  async #attempt({ kind, cargo }: Exclude<Job, { kind: "wait" }>, signal: AbortSignal) {
    this.#busyWith = cargo;
    let failure: unknown;
    try {
      if (kind === "segment") await this.#storeSegment(cargo, signal);
      else await this.#storePartial(cargo, signal);
      this.#outage.end();
    } catch (error) {
      signal.throwIfAborted();
      if (!isTemporary(error)) throw error;
      failure = error;
    } finally {
      this.#busyWith = undefined;
      this.#bell.ring();
    }
    if (failure !== undefined) await this.#outage.pauseAfter(failure, { signal });
  }

  #nextJob(): Job {
    const [complete] = this.#complete;
    if (complete !== undefined) return { kind: "segment", cargo: complete };
    const current = this.#current;
    if (current === undefined || current.isDone) return { kind: "wait", ms: IDLE_MS };
    const ms = this.#partialDueInMs(current);
    return ms > 0 ? { kind: "wait", ms } : { kind: "partial", cargo: current };
  }

  /** 0 when the unfinished segment is to be stored now. */
  #partialDueInMs(cargo: Cargo): number {
    const { isSynchronous, partialIntervalMs, partialBytes } = this.#options;
    const { spool, shippedBytes, neededBytes, shippedAtMs, notBeforeMs, isFinal } = cargo;
    if (isFinal) return 0;
    const grownBytes = spool.receivedBytes - shippedBytes;
    const isEnough = spool.receivedBytes >= neededBytes && spool.receivedLsn >= this.#storedLsn;
    if (grownBytes === 0 || !isEnough) return IDLE_MS;
    const waitMs = Math.max(0, notBeforeMs - this.#now());
    if (isSynchronous || this.#isWanted || grownBytes >= (partialBytes ?? Infinity)) return waitMs;
    return Math.max(waitMs, shippedAtMs + partialIntervalMs - this.#now());
  }

  async #storeSegment(cargo: Cargo, signal: AbortSignal): Promise<void> {
    const { spool } = cargo;
    const { log } = this.#options;
    const outcome = await pushWal(this.#storage, spool, this.#pushOptions(signal));
    log.debug("segment stored", { wal: spool.name, outcome });
    // Before the server may forget the segment: after a crash in between it is received once more,
    // and the leftover is found.
    if (cargo.mayHavePartial) await this.#removePartial(cargo, signal);
    this.#complete.shift();
    this.#advance(spool.receivedLsn);
    await this.#letGo(spool);
  }

  async #letGo(spool: WalSpool): Promise<void> {
    const { onSegment } = this.#options;
    if (onSegment === undefined || this.#lookedAtCount >= LOOKED_AT_MAX) {
      return await spool[Symbol.asyncDispose]();
    }
    this.#lookedAtCount += 1;
    const look = async (): Promise<void> => {
      await using file = spool;
      await onSegment(file);
    };
    void look()
      .catch((error: unknown) => {
        this.#options.log.warning("a stored segment could not be looked at", {
          wal: spool.name,
          reason: String(error),
        });
      })
      .finally(() => (this.#lookedAtCount -= 1));
  }

  /** A leftover is harmless: it must not keep a stored segment from being confirmed. */
  async #removePartial({ partial, spool }: Cargo, signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    try {
      for (const key of await partial.remove({ signal })) {
        log.warning("a partial segment with other records was kept", { wal: spool.name, key });
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!isTemporary(error)) throw error;
      const reason = reasonOf(error);
      log.warning("a partial segment could not be removed", { wal: spool.name, reason });
    }
  }

  async #storePartial(cargo: Cargo, signal: AbortSignal): Promise<void> {
    const { spool, partial } = cargo;
    const endBytes = spool.receivedBytes;
    this.#isWanted = false;
    // Also if the answer gets lost.
    cargo.mayHavePartial = true;
    const outcome = await partial.ship(endBytes, { signal });
    cargo.isDone = cargo.isFinal && endBytes === spool.receivedBytes;
    if (outcome.kind === "ahead") cargo.neededBytes = outcome.storedEnd;
    if (outcome.kind !== "different") {
      cargo.shippedBytes = endBytes;
      cargo.shippedAtMs = this.#now();
      // What the store has ahead of us begins with all that we have.
      this.#advance(lsn(spool.startLsn + BigInt(endBytes)));
      return;
    }
    cargo.notBeforeMs = this.#now() + RECHECK_MS;
    this.#options.log.error("a partial segment with other records is in the way", {
      wal: spool.name,
      key: outcome.key,
      hint:
        "Another server archives into this repository, or this one lost WAL in a crash. Nothing was " +
        "overwritten; until the object is moved away only complete segments are stored.",
    });
  }

  #advance(storedLsn: Lsn): void {
    if (storedLsn <= this.#storedLsn) return;
    this.#storedLsn = storedLsn;
    this.onStored();
  }

  #now(): number {
    return this.#options.clock.monotonicMs();
  }

  #pushOptions(signal: AbortSignal): PushOptions {
    return { ...this.#options, signal };
  }
}
