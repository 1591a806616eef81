import { DeadlineError, OperationError, ServerStopsError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { TimeUp } from "../io/retry.ts";
import { type LastCycle, STOP_HINT, watchLastCycle } from "./last-cycle.ts";

export interface DeadlineOptions {
  /** In all, from the call on. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** What of the same limit was over before the call, for the error. */
  readonly spent?: SpentTime | undefined;
  /** Ends the work earlier where it is what a server waits for to stop. */
  readonly lastCycle?: LastCycle | undefined;
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
  options: DeadlineOptions,
  work: (scope: DeadlineScope) => Promise<T>,
): Promise<T> {
  const { timeoutMs, signal: callersSignal, spent, lastCycle } = options;
  const timeUp = new TimeUp();
  const ended = new AbortController();
  const signal = AbortSignal.any([callersSignal, ended.signal]);
  signal.throwIfAborted();
  const timer = setTimeout(() => ended.abort(timeUp), timeoutMs);
  let silentMs: number | undefined;
  const onVain = (ms: number): void => {
    silentMs = ms;
    ended.abort(timeUp);
  };
  using _watch = lastCycle === undefined ? undefined : watchLastCycle(lastCycle, onVain);

  let step = "the start";
  const begin = (next: string): void => {
    step = next;
  };
  try {
    return await endedOrAbandoned(work({ signal, begin }), signal);
  } catch (error) {
    const isTimeUp = ended.signal.aborted && !callersSignal.aborted;
    if (!isTimeUp || error instanceof OperationError) throw error;
    if (silentMs !== undefined) throw stopError({ step, silentMs }, timeUp);
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
  const told = spent !== undefined && spent.ms >= allMs * TOLD_SHARE ? spent : undefined;
  const before = told === undefined ? "" : `, ${Math.round(told.ms)} of them ${told.by}`;
  const what = `${step} did not finish within ${allMs} ms${before}`;
  const silence = [SILENCE_HINT, told?.hint, RAISE_HINT].filter((one) => one !== undefined);
  if (lastFailure === undefined) return new DeadlineError(what, { hint: silence.join(" ") });
  const { message, hint } = lastFailure;
  return new DeadlineError(`${what}, because of failures; the last one: ${message}`, {
    hint: hint === undefined ? silence.join(" ") : `${hint} PostgreSQL calls again by itself.`,
    cause: lastFailure,
  });
}

function stopError(
  { step, silentMs }: { readonly step: string; readonly silentMs: number },
  { lastFailure }: TimeUp,
): ServerStopsError {
  const failures = lastFailure === undefined ? "" : `; the last failure: ${lastFailure.message}`;
  return new ServerStopsError(
    `${step} was given up: the server has only this to wait for before it stops, and nothing was ` +
      `heard of the store for ${Math.round(silentMs / 1000)} s${failures}`,
    { hint: STOP_HINT, cause: lastFailure },
  );
}

/** Of all the time; less is not worth a word. */
const TOLD_SHARE = 0.1;
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
