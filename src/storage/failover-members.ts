import { ObjectExistsError, ObjectNotFoundError, OperationError, StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { Health, HealthSubject, Work } from "./failover-health.ts";
import type { CallOptions, Storage } from "./storage.ts";

/** One of several stores. */
export interface Member extends HealthSubject {
  /** For messages, without credentials: "s3://backups/main". */
  readonly title: string;
  /** Gives up soon, because there is another one. */
  readonly brisk: Storage;
  /** Repeats as long as for a store that is the only one. */
  readonly patient: Storage;
}

export interface MembersOptions {
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
  /** Dead stores are taken for empty ones, instead of failing what needs them. */
  readonly leavesOutDead: boolean;
  /** Only these count, whatever becomes of them; chosen when the stores were opened. */
  readonly chosen?: readonly Member[] | undefined;
  /** The one that groups are put into, and the only one that they are read from. */
  readonly pinned?: Member | undefined;
}

const AWAY_HINT =
  "A storage that does not answer may hold it, so nothing is known yet. If it will never come back, " +
  "name the one to use with --target-storage, or take it out of the settings.";

/** How long the end of a command may wait for a check that runs beside. */
const CLOSING_PATIENCE_MS = 5000;

/** The stores, in their order, and what is known of them. */
export class Members {
  readonly all: readonly Member[];
  readonly title: string;
  readonly pinned: Member | undefined;
  readonly leavesOutDead: boolean;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
  readonly #chosen: readonly Member[] | undefined;

  /** `all`: at least one. */
  constructor(all: readonly Member[], options: MembersOptions) {
    this.all = all;
    this.title = options.pinned?.title ?? all.map(({ title }) => title).join(" or ");
    this.pinned = options.pinned;
    this.leavesOutDead = options.leavesOutDead;
    this.health = options.health;
    this.clock = options.clock;
    this.log = options.log;
    this.#chosen = options.chosen;
  }

  /** Those that count for reading; dead ones last, if at all. */
  readers(): readonly Member[] {
    if (this.#chosen !== undefined) return this.#chosen;
    for (const member of this.all) this.health.recheckIfDue(member, "read");
    const [alive, dead] = this.#divided("read");
    if (!this.leavesOutDead || alive.length === 0) return [...alive, ...dead];
    // Without its own store a backup is lost: what that one has is not "missing".
    return [...alive, ...dead.filter((member) => member === this.pinned)];
  }

  /** Names of those that were left out when the stores were opened. */
  get unseen(): readonly string[] {
    const chosen = this.#chosen;
    if (chosen === undefined) return [];
    return this.all.filter((member) => !chosen.includes(member)).map(({ name }) => name);
  }

  /** In the order in which a put tries them. */
  writers(): readonly Member[] {
    for (const member of this.all) this.health.recheckIfDue(member, "write");
    const [alive, dead] = this.#divided("write");
    return [...alive, ...dead];
  }

  firstWriter(): Member {
    const [first] = this.writers();
    if (first === undefined) throw new RangeError("there is no store");
    return first;
  }

  /** With patience for one that is alive, where nobody else can do its work. */
  storeOf(member: Member, work: Work, isReplaceable: boolean): Storage {
    if (member === this.pinned) return member.patient;
    const isBrisk = isReplaceable || !this.isAlive(member, work);
    return isBrisk ? member.brisk : member.patient;
  }

  /** What can't be read is no place to write to: nobody could tell what is there already. */
  isAlive(member: Member, work: Work): boolean {
    return this.health.isAlive(member, "read") && this.health.isAlive(member, work);
  }

  succeeded(member: Member, work: Work): void {
    this.health.note(member, work, true);
  }

  async close(): Promise<void> {
    await this.health.close(CLOSING_PATIENCE_MS);
    for (const { brisk, patient } of this.all) {
      await brisk[Symbol.asyncDispose]();
      await patient[Symbol.asyncDispose]();
    }
  }

  #divided(work: Work): readonly [readonly Member[], readonly Member[]] {
    const alive = this.all.filter((member) => this.isAlive(member, work));
    return [alive, this.all.filter((member) => !alive.includes(member))];
  }
}

/** One call's try with one store. */
export interface Attempt {
  succeed(): void;
  /**
   * Resolves when the call may go on with the next store; rejects with what no other store helps
   * against.
   */
  fail(error: unknown): Promise<void>;
}

/** The stores of which one call has no answer. */
export class AwayErrors {
  readonly #members: Members;
  readonly #work: Work;
  readonly #signal: AbortSignal;
  readonly #errors: { readonly member: Member; readonly error: OperationError }[] = [];
  /** Whether a store did answer. */
  #hasAnswer = false;

  constructor(members: Members, work: Work, { signal }: CallOptions) {
    this.#members = members;
    this.#work = work;
    this.#signal = signal;
  }

  attempt(member: Member): Attempt {
    const { health, clock } = this.#members;
    const startMs = clock.monotonicMs();
    return {
      succeed: () => this.#members.succeeded(member, this.#work),
      fail: async (error) => {
        this.#signal.throwIfAborted();
        if (error instanceof ObjectNotFoundError) {
          this.#hasAnswer = true;
          return;
        }
        if (!(error instanceof OperationError) || error instanceof ObjectExistsError) throw error;
        const tookMs = clock.monotonicMs() - startMs;
        const signal = this.#signal;
        await health.judge(member, this.#work, { tookMs, reason: error.message, signal });
        this.#errors.push({ member, error });
      },
    };
  }

  /** Throws if a store that counts did not answer. */
  requireNone(what: string): void {
    const error = this.verdict(undefined, what);
    if (error !== undefined) throw error;
  }

  /**
   * What the call fails with: `missing` only if all stores that count have said so, else an error
   * that names those that did not answer.
   */
  verdict<T extends OperationError | undefined>(missing: T, what: string): T | OperationError {
    const counting = this.#members.readers();
    const errors =
      this.#work === "write"
        ? this.#errors
        : this.#errors.filter(({ member }) => counting.includes(member));
    const [first] = errors;
    if (first === undefined) return missing;
    const reasons = errors.map(({ member, error }) => `${member.name}: ${error.message}`);
    const hint = this.#work === "read" ? AWAY_HINT : first.error.hint;
    const others = this.#hasAnswer ? ", and the others do not have it" : "";
    return new StorageError(`${what} failed in ${reasons.join("; ")}${others}`, {
      isRetryable: false,
      ...(hint === undefined ? {} : { hint }),
      cause: first.error,
    });
  }
}
