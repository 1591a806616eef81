import { DeadlineError, OperationError, ServerStopsError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { TimeUp } from "../io/retry.ts";
import { isLastCycle, type LastCycle, STOP_HINT, watchLastCycle } from "./last-cycle.ts";

export interface DeadlineOptions {
  /** From the call on; as much again whenever enough bytes have passed in it. */
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
  /** So many bytes have passed to the store or from it that had not passed before. */
  readonly moved: (sizeBytes: number) => void;
}

/** How long the work may take, once it is aborted, to remove what it had begun. */
const CLEAN_UP_MS = 2000;
/**
 * What has to pass for the work to get as much time again: a line that carries less counts as one
 * that hangs. As bytes count once, the length of what is sent bounds the time in all.
 */
const ENOUGH_BYTES = 1024 * 1024;

/**
 * Runs `work` and rejects with DeadlineError, which names the step, when it takes too long: also
 * when a call that it waits for does not honour its signal. A transfer that gets on has its time
 * again and again; but where a server waits for it to stop, it is given up with ServerStopsError.
 * Work that succeeds in the end has succeeded.
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
  let stopReason: string | undefined;
  const stop = (reason: string): void => {
    stopReason = reason;
    ended.abort(timeUp);
  };
  const onVain = (ms: number): void =>
    stop(`nothing was heard of the store for ${Math.round(ms / 1000)} s`);
  using _watch = lastCycle === undefined ? undefined : watchLastCycle(lastCycle, onVain);

  let movedBytes = 0;
  let rounds = 1;
  const onTime = async (): Promise<void> => {
    const isMoving = movedBytes >= ENOUGH_BYTES;
    if (!isMoving) return ended.abort(timeUp);
    if (lastCycle !== undefined && (await isLastCycle(lastCycle.dataDirectory))) {
      return stop(`it was not done within ${timeoutMs} ms`);
    }
    movedBytes = 0;
    rounds += 1;
    if (!hasEnded) wait();
  };
  let hasEnded = false;
  let timer: NodeJS.Timeout | undefined;
  const wait = (): void => {
    timer = setTimeout(() => void onTime(), timeoutMs);
  };
  wait();

  let step = "the start";
  const begin = (next: string): void => {
    step = next;
  };
  const moved = (sizeBytes: number): void => {
    movedBytes += sizeBytes;
  };
  try {
    return await endedOrAbandoned(work({ signal, begin, moved }), signal);
  } catch (error) {
    const isTimeUp = ended.signal.aborted && !callersSignal.aborted;
    if (!isTimeUp || error instanceof OperationError) throw error;
    if (stopReason !== undefined) throw stopError({ step, stopReason }, timeUp);
    throw deadlineError({ step, timeoutMs, rounds, spent }, timeUp);
  } finally {
    hasEnded = true;
    clearTimeout(timer);
  }
}

/** What failed until the end says more than that the time was short. */
function deadlineError(
  {
    step,
    timeoutMs,
    rounds,
    spent,
  }: Pick<DeadlineOptions, "timeoutMs" | "spent"> & {
    readonly step: string;
    readonly rounds: number;
  },
  { lastFailure }: TimeUp,
): DeadlineError {
  const allMs = Math.round(timeoutMs * rounds + (spent?.ms ?? 0));
  const told = spent !== undefined && spent.ms >= allMs * TOLD_SHARE ? spent : undefined;
  const before = told === undefined ? "" : `, ${Math.round(told.ms)} of them ${told.by}`;
  const slow = rounds === 1 ? "" : `; in the last ${Math.round(timeoutMs)} less than 1 MiB passed`;
  const what = `${step} did not finish within ${allMs} ms${before}${slow}`;
  const silence = [SILENCE_HINT, told?.hint, RAISE_HINT].filter((one) => one !== undefined);
  if (lastFailure === undefined) return new DeadlineError(what, { hint: silence.join(" ") });
  const { message, hint } = lastFailure;
  return new DeadlineError(`${what}, because of failures; the last one: ${message}`, {
    hint: hint === undefined ? silence.join(" ") : `${hint} PostgreSQL calls again by itself.`,
    cause: lastFailure,
  });
}

function stopError(
  { step, stopReason }: { readonly step: string; readonly stopReason: string },
  { lastFailure }: TimeUp,
): ServerStopsError {
  const failures = lastFailure === undefined ? "" : `; the last failure: ${lastFailure.message}`;
  return new ServerStopsError(
    `${step} was given up: the server has only this to wait for before it stops, and ` +
      `${stopReason}${failures}`,
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
