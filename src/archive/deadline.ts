import { DeadlineError, OperationError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { TimeUp } from "../io/retry.ts";

export interface DeadlineOptions {
  /** In all, from the call on. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** What of the same limit was over before the call, for the error. */
  readonly spent?: SpentTime | undefined;
}

/** Time that was up before the work began that has to do with the rest. */
export interface SpentTime {
  readonly ms: number;
  /** What it went by with: "waiting for wal-drain". */
  readonly by: string;
  /** A sentence: where to find out why. */
  readonly hint: string;
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
  { timeoutMs, signal: callersSignal, spent }: DeadlineOptions,
  work: (scope: DeadlineScope) => Promise<T>,
): Promise<T> {
  const timeUp = new TimeUp();
  const ended = new AbortController();
  const signal = AbortSignal.any([callersSignal, ended.signal]);
  signal.throwIfAborted();
  const timer = setTimeout(() => ended.abort(timeUp), timeoutMs);

  let step = "the start";
  const begin = (next: string): void => {
    step = next;
  };
  try {
    return await endedOrAbandoned(work({ signal, begin }), signal);
  } catch (error) {
    const isTimeUp = ended.signal.aborted && !callersSignal.aborted;
    if (!isTimeUp || error instanceof OperationError) throw error;
    throw deadlineError({ step, timeoutMs, spent }, timeUp);
  } finally {
    clearTimeout(timer);
  }
}

/** What failed until the end says more than that the time was short. */
function deadlineError(
  { step, timeoutMs, spent }: Omit<DeadlineOptions, "signal"> & { readonly step: string },
  { lastFailure }: TimeUp,
): DeadlineError {
  const allMs = Math.round(timeoutMs + (spent?.ms ?? 0));
  const before = spent === undefined ? "" : `, ${Math.round(spent.ms)} of them ${spent.by}`;
  const what = `${step} did not finish within ${allMs} ms${before}`;
  const silence = [SILENCE_HINT, spent?.hint, RAISE_HINT].filter((one) => one !== undefined);
  if (lastFailure === undefined) return new DeadlineError(what, { hint: silence.join(" ") });
  const { message, hint } = lastFailure;
  return new DeadlineError(`${what}, because of failures; the last one: ${message}`, {
    hint: hint === undefined ? silence.join(" ") : `${hint} PostgreSQL calls again by itself.`,
    cause: lastFailure,
  });
}

const SILENCE_HINT =
  "The store or the network does not answer in time. PostgreSQL calls again by itself.";
const RAISE_HINT = "If the time is too short for a healthy store, raise WALNUT_WAL_TIMEOUT.";

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
