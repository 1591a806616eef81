import { StorageError } from "../errors.ts";
import type { Clock } from "./clock.ts";
import { randomFraction } from "./random.ts";

/** How often and how long a call is tried again. */
export interface RetryPolicy {
  /** In all, the first one included. */
  readonly attempts: number;
  /** Longest pause before the second attempt; it doubles with each further one ... */
  readonly baseMs: number;
  /** ... up to this. */
  readonly capMs: number;
  /** No attempt is begun later than this after the first failure. */
  readonly totalMs: number;
}

/** Outlasts a store that is away for ten minutes. */
export const STORAGE_RETRY_POLICY: RetryPolicy = {
  attempts: 100,
  baseMs: 100,
  capMs: 20_000,
  totalMs: 15 * 60_000,
};

/** Numbers in [0, 1). */
export type Random = () => number;

export const systemRandom: Random = () => randomFraction();

/** One attempt that failed and will be repeated. */
export interface RetryEvent {
  readonly error: StorageError;
  /** How many attempts have failed by now. */
  readonly failures: number;
  readonly delayMs: number;
  /** How much longer it would be repeated by its policy, after the delay. */
  readonly leftMs: number;
}

export interface RetryContext {
  readonly clock: Clock;
  readonly random: Random;
  /** Told before each pause. */
  readonly onRetry?: (event: RetryEvent) => void;
}

/**
 * Milliseconds to wait after so many failures: evenly random up to the doubled base ("full jitter",
 * so that many clients of a store that comes back do not come at once), but never less than the
 * store asked for.
 */
export function retryDelayMs(
  policy: RetryPolicy,
  failures: number,
  random: Random,
  retryAfterMs = 0,
): number {
  const limitMs = Math.min(policy.capMs, policy.baseMs * 2 ** (failures - 1));
  return Math.max(random() * limitMs, retryAfterMs);
}

/**
 * Why work is aborted whose time is up. Whoever was repeating something then notes what had failed,
 * because that is the reason why the time did not do.
 */
export class TimeUp extends Error {
  lastFailure: StorageError | undefined;

  constructor() {
    super("the time is up");
    this.name = "TimeUp";
  }
}

/** Counts the failures of one call and decides after each whether it is tried again. */
export class Retries {
  readonly #policy: RetryPolicy;
  readonly #context: RetryContext;
  #failures = 0;
  #beganMs: number;
  #firstFailureMs = 0;
  #lastFailure: StorageError | undefined;

  constructor(policy: RetryPolicy, context: RetryContext) {
    this.#policy = policy;
    this.#context = context;
    this.#beganMs = context.clock.monotonicMs();
  }

  /** The call got further than before: failures are counted from now on. */
  reset(): void {
    if (this.#failures > 0) this.#beganMs = this.#context.clock.monotonicMs();
    this.#failures = 0;
  }

  /**
   * Resolves when the next attempt is due. Rejects with `error` if it is none that another attempt
   * helps against (only a StorageError that says so is); with the signal's reason if that is
   * aborted; and when the policy is used up with a StorageError that is not retryable any more, so
   * that a retrying caller of this one does not multiply the attempts.
   */
  async afterFailure(error: unknown, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    if (error instanceof StorageError) this.#lastFailure = error;
    try {
      signal.throwIfAborted();
      await this.#pause(error, signal);
    } catch (reason) {
      if (reason instanceof TimeUp) reason.lastFailure ??= this.#lastFailure;
      throw reason;
    }
  }

  async #pause(error: unknown, signal: AbortSignal): Promise<void> {
    if (!(error instanceof StorageError) || !error.isRetryable) throw error;

    const { clock, random, onRetry } = this.#context;
    const nowMs = clock.monotonicMs();
    if (this.#failures === 0) this.#firstFailureMs = nowMs;
    this.#failures++;

    const elapsedMs = nowMs - this.#firstFailureMs;
    const delayMs = retryDelayMs(this.#policy, this.#failures, random, error.retryAfterMs);
    const isUsedUp = this.#failures >= this.#policy.attempts;
    const leftMs = this.#policy.totalMs - elapsedMs - delayMs;
    if (isUsedUp || leftMs < 0) throw gaveUp(error, this.#failures, nowMs - this.#beganMs);
    onRetry?.({ error, failures: this.#failures, delayMs, leftMs });
    await clock.sleep(delayMs, { signal });
  }
}

/** Calls `work` until it succeeds or `Retries.afterFailure` rejects. */
export async function withRetry<T>(
  work: () => Promise<T>,
  policy: RetryPolicy,
  context: RetryContext & { readonly signal: AbortSignal },
): Promise<T> {
  const retries = new Retries(policy, context);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      await retries.afterFailure(error, context);
    }
  }
}

function gaveUp(error: StorageError, failures: number, elapsedMs: number): StorageError {
  const effort =
    failures === 1
      ? "not tried again"
      : `gave up after ${failures} attempts in ${(elapsedMs / 1000).toFixed(1)} s`;
  return new StorageError(`${error.message} (${effort})`, {
    isRetryable: false,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  });
}
