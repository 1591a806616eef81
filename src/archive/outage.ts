import {
  DatabaseError,
  DeadlineError,
  OperationError,
  StorageAccessError,
  StorageError,
} from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";

const FIRST_PAUSE_MS = 250;
/** The longest pause between two attempts. */
export const LONGEST_PAUSE_MS = 10_000;
/** Of one outage; more would be noise. */
const REASONS_MAX = 5;

/**
 * Something that fails and is tried again for ever, with pauses that grow: each reason is said once
 * in an outage, and when it is over.
 */
export class Outage {
  readonly #what: string;
  readonly #log: Log;
  readonly #clock: Clock;
  #sinceMs: number | undefined;
  #attemptCount = 0;
  readonly #reasons = new Set<string>();

  /**
   * `what` is said of both ends: "storing WAL" → "storing WAL failed", "storing WAL works again".
   */
  constructor(what: string, { log, clock }: { readonly log: Log; readonly clock: Clock }) {
    this.#what = what;
    this.#log = log;
    this.#clock = clock;
  }

  /** For how long it has failed; 0 while all is well. */
  get durationMs(): number {
    return this.#sinceMs === undefined ? 0 : this.#clock.monotonicMs() - this.#sinceMs;
  }

  /** Takes note of a failure and waits before the next attempt. */
  async pauseAfter(error: unknown, options: { readonly signal: AbortSignal }): Promise<void> {
    this.#attemptCount += 1;
    this.#sinceMs ??= this.#clock.monotonicMs();
    const reason = error instanceof Error ? error.message : String(error);
    if (!this.#reasons.has(reason) && this.#reasons.size < REASONS_MAX) {
      this.#reasons.add(reason);
      this.#log.warning(`${this.#what} failed; it is tried again until it works`, {
        reason,
        hint: error instanceof OperationError ? error.hint : undefined,
      });
    }
    await this.#clock.sleep(pauseMsAfter(this.#attemptCount), options);
  }

  /** Takes note of a success. */
  end(): void {
    if (this.#sinceMs === undefined) return;
    this.#log.info(`${this.#what} works again`, {
      seconds: Math.round(this.durationMs / 1000),
      attempts: this.#attemptCount,
    });
    this.#sinceMs = undefined;
    this.#attemptCount = 0;
    this.#reasons.clear();
  }
}

/**
 * What may be different the next time: a store, a network or a server that is away, and credentials
 * that somebody renews meanwhile.
 */
export function isTemporary(error: unknown): boolean {
  return (
    error instanceof StorageError ||
    error instanceof StorageAccessError ||
    error instanceof DeadlineError ||
    error instanceof DatabaseError
  );
}

/** How long to wait after so many failures in a row, at least one, in ms. */
export function pauseMsAfter(failureCount: number): number {
  return Math.min(FIRST_PAUSE_MS * 2 ** (failureCount - 1), LONGEST_PAUSE_MS);
}

/** What a failure says, for a log line. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
