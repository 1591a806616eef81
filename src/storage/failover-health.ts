import { StorageError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { bytesSource } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { randomHex } from "../io/random.ts";
import { Watchdog } from "../io/watchdog.ts";
import { type HealthMemory, type Status, readHealth, writeHealth } from "./failover-memory.ts";
import type { CallOptions, ObjectKey, Storage } from "./storage.ts";

/** What is asked of a store. */
export type Work = "read" | "write";

/** By which numbers a store dies and comes back: FAILOVER_STORAGES.md. */
export interface HealthRules {
  /** False: nothing is checked or remembered, and every store counts as alive. */
  readonly isChecked: boolean;
  readonly checkTimeoutMs: number;
  /** Of the object that a check for writing stores. */
  readonly checkBytes: number;
  /** How long what is known of a dead store is good for. */
  readonly lifetimeMs: number;
  /** Of an aliveness between 0 and 1. */
  readonly aliveLimit: number;
  readonly deadLimit: number;
  readonly alphaAlive: AlphaRange;
  readonly alphaDead: AlphaRange;
}

/** How far one result moves the aliveness: `max` at 0, `min` at 1. */
export interface AlphaRange {
  readonly min: number;
  readonly max: number;
}

/** A store as its health sees it. */
export interface HealthSubject {
  /** Tells it, with its settings, from all others: the key in the file. */
  readonly id: string;
  /** For messages: "default". */
  readonly name: string;
  /** Without retries. */
  readonly store: Storage;
}

export interface HealthOptions {
  readonly rules: HealthRules;
  readonly clock: Clock;
  readonly log: Log;
  /** The file; absent where nothing is remembered. */
  readonly path?: string | undefined;
  /** Prefix of the objects that checks for writing store. */
  readonly probeFolder: string;
}

/**
 * Of the time for a check, that part is given to the requests and repetitions of a call before the
 * next store is tried.
 */
export const BRISK_SHARE = 1 / 3;

const HEALTHY: Pick<Status, "aliveness" | "isAlive"> = { aliveness: 1, isAlive: true };
/** Smaller changes of the aliveness are not worth a file. */
const WORTH_WRITING = 0.005;
const STALE_PROBE_MS = 3_600_000;

/** The next status after one result, by an exponential moving average. */
export function afterResult(
  { aliveness, isAlive }: Pick<Status, "aliveness" | "isAlive">,
  isSuccess: boolean,
  rules: HealthRules,
): Pick<Status, "aliveness" | "isAlive"> {
  const { min, max } = isAlive ? rules.alphaAlive : rules.alphaDead;
  const alpha = max - (max - min) * aliveness;
  const next = aliveness + alpha * ((isSuccess ? 1 : 0) - aliveness);
  return {
    aliveness: next,
    isAlive: isAlive ? next >= rules.deadLimit : next >= rules.aliveLimit,
  };
}

/** Knows which stores are alive, from what they did and from checks. */
export class Health {
  readonly #options: HealthOptions;
  readonly #statuses: HealthMemory;
  readonly #checks = new Map<string, Promise<boolean>>();
  readonly #background = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();
  #saving: Promise<void> = Promise.resolve();

  private constructor(options: HealthOptions, statuses: HealthMemory) {
    this.#options = options;
    this.#statuses = statuses;
  }

  /** Reads what is remembered. Never rejects. */
  static async open(options: HealthOptions): Promise<Health> {
    const { path, rules } = options;
    const isRemembered = rules.isChecked && path !== undefined;
    return new Health(
      options,
      isRemembered ? await readHealth(path, options.clock.now()) : new Map(),
    );
  }

  /** Whether the store was not seen dead lately. */
  isAlive({ id }: HealthSubject, work: Work): boolean {
    const status = this.#statuses.get(`${id} ${work}`);
    return !this.#options.rules.isChecked || status === undefined || status.isAlive;
  }

  /** A dead store whose time has come is checked beside the work that goes on. */
  recheckIfDue(subject: HealthSubject, work: Work): void {
    const key = `${subject.id} ${work}`;
    const status = this.#statuses.get(key);
    const { clock, rules } = this.#options;
    if (status === undefined || status.isAlive || !rules.isChecked) return;
    if (this.#checks.has(key)) return;
    const ageMs = clock.now() - status.updatedMs;
    if (ageMs >= 0 && ageMs < rules.lifetimeMs) return;
    // Other processes need not do the same.
    this.#statuses.set(key, { ...status, updatedMs: clock.now() });
    this.#begin(this.#save());
    this.#begin(this.check(subject, work, { signal: this.#closing.signal }));
  }

  /** One call succeeded, or one attempt failed. */
  note({ id }: HealthSubject, work: Work, isSuccess: boolean): void {
    const { rules, clock } = this.#options;
    if (!rules.isChecked) return;
    const known = this.#statuses.get(`${id} ${work}`);
    // The usual case, and nothing to remember.
    if (known === undefined && isSuccess) return;
    const next = afterResult(known ?? HEALTHY, isSuccess, rules);
    const isNews =
      known === undefined ||
      known.isAlive !== next.isAlive ||
      Math.abs(known.aliveness - next.aliveness) > WORTH_WRITING;
    // A dead store has its time from when it was seen dead, or it would never be checked again.
    const updatedMs =
      known !== undefined && !known.isAlive && !next.isAlive ? known.updatedMs : clock.now();
    this.#statuses.set(`${id} ${work}`, { ...next, updatedMs });
    if (isNews) this.#begin(this.#save());
  }

  /** Goes on beside the work; `close` waits for it. */
  #begin(work: Promise<unknown>): void {
    const ended = work.finally(() => this.#background.delete(ended));
    this.#background.add(ended);
  }

  /**
   * A call failed for good, and took so long: checks the store, unless that says enough. Gives
   * whether it is alive.
   */
  async judge(
    subject: HealthSubject,
    work: Work,
    { tookMs, reason, ...options }: CallOptions & { tookMs: number; reason: string },
  ): Promise<boolean> {
    const { rules } = this.#options;
    if (!rules.isChecked) return true;
    if (tookMs < rules.checkTimeoutMs * BRISK_SHARE)
      return await this.check(subject, work, options);
    await this.#decide(subject, work, { isAlive: false, reason });
    return false;
  }

  /** Asks the store itself. Rejects only when the signal is aborted. */
  async check(subject: HealthSubject, work: Work, options: CallOptions): Promise<boolean> {
    const key = `${subject.id} ${work}`;
    const running = this.#checks.get(key);
    if (running !== undefined) {
      try {
        return await untilAborted(running, options.signal);
      } catch {
        options.signal.throwIfAborted();
        // Whoever began it was aborted.
        return await this.check(subject, work, options);
      }
    }
    const check = this.#check(subject, work, options);
    this.#checks.set(key, check);
    try {
      return await check;
    } finally {
      this.#checks.delete(key);
    }
  }

  /** Writes what is known; waits so long for checks beside the work. */
  async close(patienceMs: number): Promise<void> {
    const { clock } = this.#options;
    const ended = Promise.allSettled(this.#background);
    if (this.#checks.size > 0) {
      const waiting = new AbortController();
      const timer = clock.sleep(patienceMs, { signal: waiting.signal }).catch(() => {});
      await Promise.race([ended, timer]);
      waiting.abort();
    }
    this.#closing.abort(new StorageError("the stores are closed", { isRetryable: false }));
    await ended;
  }

  async #check(subject: HealthSubject, work: Work, { signal }: CallOptions): Promise<boolean> {
    const { clock, rules } = this.#options;
    const seconds = rules.checkTimeoutMs / 1000;
    using watchdog = new Watchdog({
      signal,
      clock,
      timeoutMs: rules.checkTimeoutMs,
      onTimeout: () =>
        new StorageError(`the check did not end within ${seconds} s`, { isRetryable: true }),
    });
    let reason = "";
    try {
      const probe =
        work === "read"
          ? this.#probeRead(subject.store, watchdog.signal)
          : this.#probeWrite(subject.store, watchdog.signal);
      await untilAborted(probe, watchdog.signal);
    } catch (error) {
      const isEnding = signal.aborted && !this.#closing.signal.aborted;
      if (isEnding) throw error;
      reason = error instanceof Error ? error.message : String(error);
    }
    await this.#decide(subject, work, { isAlive: reason === "", reason });
    return reason === "";
  }

  async #probeRead(store: Storage, signal: AbortSignal): Promise<void> {
    for await (const _ of store.list("", { signal })) break;
  }

  async #probeWrite(store: Storage, signal: AbortSignal): Promise<void> {
    const { rules, probeFolder } = this.#options;
    const key = `${probeFolder}${randomHex(16)}`;
    await store.put(key, bytesSource(Buffer.alloc(rules.checkBytes)), { signal });
    try {
      await store.delete([key, ...(await this.#staleProbes(store, signal))], { signal });
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      this.#options.log.debug("the object of a check was not deleted", { key, reason });
    }
  }

  async #staleProbes(store: Storage, signal: AbortSignal): Promise<readonly ObjectKey[]> {
    const { probeFolder, clock } = this.#options;
    const stale: ObjectKey[] = [];
    for await (const { key, modifiedAt } of store.list(probeFolder, { signal })) {
      if (clock.now() - modifiedAt.getTime() > STALE_PROBE_MS) stale.push(key);
    }
    return stale;
  }

  async #decide(
    { id, name }: HealthSubject,
    work: Work,
    { isAlive, reason }: { readonly isAlive: boolean; readonly reason: string },
  ): Promise<void> {
    const { clock, log } = this.#options;
    const wasAlive = this.#statuses.get(`${id} ${work}`)?.isAlive ?? true;
    const status = { aliveness: isAlive ? 1 : 0, isAlive, updatedMs: clock.now() };
    this.#statuses.set(`${id} ${work}`, status);
    // What takes objects and lists them answers those who read, too.
    if (isAlive && work === "write") this.#statuses.set(`${id} read`, status);
    if (wasAlive && !isAlive)
      log.warning("a storage is dead", { storage: name, for: work, reason });
    if (!wasAlive && isAlive) log.info("a storage is alive again", { storage: name, for: work });
    await this.#save();
  }

  /** One after the other: all write under one temporary name. */
  async #save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#write());
    await this.#saving;
  }

  async #write(): Promise<void> {
    const { path, log, rules, clock } = this.#options;
    if (path === undefined || !rules.isChecked) return;
    try {
      await writeHealth(path, this.#statuses, clock.now());
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log.debug("it is not remembered which storages are alive", { path, reason });
    }
  }
}
