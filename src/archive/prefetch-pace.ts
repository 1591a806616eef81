/** How fast segments come and go, and what follows for how far ahead to be. */
export interface Pace {
  /** What one fetch takes, smoothed; undefined before the first. */
  readonly fetchMs: number | undefined;
  /** Between two segments that recovery takes, smoothed; undefined before the second. */
  readonly replayMs: number | undefined;
  /** Monotonic. */
  readonly takenAtMs: number | undefined;
  /** Grows from 1 while the archive has more, so that its end costs few requests. */
  readonly trust: number;
  /** Fetches at the same time. */
  readonly concurrency: number;
  /** Segments taken since recovery had to wait. */
  readonly calmCount: number;
}

export interface PaceLimits {
  /** Segments ahead. */
  readonly ahead: number;
}

const FIRST_CONCURRENCY = 2;
const CONCURRENCY_STEP = 2;
/** More would hold more memory and not more of the line. */
const CONCURRENCY_MAX = 16;
const CALM_SEGMENTS = 32;
/** The weight of the newest value. */
const WEIGHT = 0.25;
/** A store may be slow for so long without recovery noticing. */
const RESERVE_MS = 2000;

export const FIRST_PACE: Pace = {
  fetchMs: undefined,
  replayMs: undefined,
  takenAtMs: undefined,
  trust: 1,
  concurrency: FIRST_CONCURRENCY,
  calmCount: 0,
};

/** A segment was fetched. */
export function afterFetch(pace: Pace, fetchMs: number, { ahead }: PaceLimits): Pace {
  return {
    ...pace,
    fetchMs: smoothed(pace.fetchMs, fetchMs),
    trust: Math.min(pace.trust * 2, ahead),
  };
}

/** The archive does not hold the next segment, or can't give it. */
export function afterEnd(pace: Pace): Pace {
  return { ...pace, trust: 1 };
}

/** Recovery took a segment. */
export function afterTake(pace: Pace, nowMs: number): Pace {
  const { takenAtMs, calmCount, concurrency } = pace;
  const replayMs =
    takenAtMs === undefined
      ? pace.replayMs
      : smoothed(pace.replayMs, Math.min(nowMs - takenAtMs, RESERVE_MS));
  const isCalm = calmCount + 1 >= CALM_SEGMENTS;
  return {
    ...pace,
    replayMs,
    takenAtMs: nowMs,
    concurrency: isCalm ? Math.max(concurrency - 1, FIRST_CONCURRENCY) : concurrency,
    calmCount: isCalm ? 0 : calmCount + 1,
  };
}

/** Recovery had to wait for a segment that came too late. */
export function afterStall(pace: Pace): Pace {
  const concurrency = Math.min(pace.concurrency + CONCURRENCY_STEP, CONCURRENCY_MAX);
  return { ...pace, concurrency, calmCount: 0 };
}

/**
 * How many segments to be ahead: those that recovery replays while one is fetched, twice, and two
 * seconds more. All that is allowed while the replay's speed is unknown.
 */
export function reachOf({ fetchMs, replayMs, trust }: Pace, { ahead }: PaceLimits): number {
  if (fetchMs === undefined || replayMs === undefined) return Math.min(trust, ahead);
  const needed = Math.ceil((2 * fetchMs + RESERVE_MS) / Math.max(replayMs, 1));
  return Math.max(1, Math.min(Math.max(needed, 2), trust, ahead));
}

function smoothed(before: number | undefined, value: number): number {
  return before === undefined ? value : before + WEIGHT * (value - before);
}
