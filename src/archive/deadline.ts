import { DeadlineError, OperationError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";

export interface DeadlineOptions {
  /** In all, from the call on. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** What the work under a deadline is given. */
export interface DeadlineScope {
  /** Aborted when the time is up, or by the caller's own signal. */
  readonly signal: AbortSignal;
  /** Says what is waited for from now on ("storing X in s3://b"), for the error. */
  readonly begin: (step: string) => void;
}

/** How long the work may take, once it is aborted, to remove what it had begun. */
const CLEAN_UP_MS = 2000;

/**
 * Runs `work` and rejects with DeadlineError, which names the step, when it takes too long: also
 * when a call that it waits for does not honour its signal. Work that succeeds in the end has
 * succeeded.
 */
export async function withinDeadline<T>(
  { timeoutMs, signal: callersSignal }: DeadlineOptions,
  work: (scope: DeadlineScope) => Promise<T>,
): Promise<T> {
  const timer = AbortSignal.timeout(timeoutMs);
  const signal = AbortSignal.any([callersSignal, timer]);
  signal.throwIfAborted();

  let step = "the start";
  const begin = (next: string): void => {
    step = next;
  };
  try {
    return await endedOrAbandoned(work({ signal, begin }), signal);
  } catch (error) {
    if (!timer.aborted || callersSignal.aborted || error instanceof OperationError) throw error;
    throw new DeadlineError(`${step} did not finish within ${timeoutMs} ms`, {
      cause: error,
      hint:
        "The store or the network does not answer in time. PostgreSQL calls again by itself; " +
        "if the time is too short for a healthy store, raise WALNUT_WAL_TIMEOUT.",
    });
  }
}

async function endedOrAbandoned<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  try {
    return await untilAborted(work, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  const patience = AbortSignal.timeout(CLEAN_UP_MS);
  try {
    return await untilAborted(work, patience);
  } catch (error) {
    throw patience.aborted ? signal.reason : error;
  }
}
