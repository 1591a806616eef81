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
  /** What one takes at this concurrency, smoothed, and how many there were. */
  readonly levelMs: number;
  readonly levelCount: number;
  /** How many there must have been before recovery's waiting changes the concurrency. */
  readonly levelCountMin: number;
  /** Fetches in a millisecond with fewer at the same time; undefined where nothing was tried. */
  readonly lowerRate: number | undefined;
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
/** After it proved useless to do more at the same time, in fetches. */
const HELD_COUNT = 64;
/** More at the same time must bring so much more. */
const GAIN = 1.1;
/** The weight of the newest value. */
const WEIGHT = 0.25;
/** A store may be slow for so long without recovery noticing. */
const RESERVE_MS = 2000;

export const FIRST_PACE: Pace = {
  fetchMs: undefined,
  replayMs: undefined,
  takenAtMs: undefined,
  trust: 1,
  ...levelOf(FIRST_CONCURRENCY),
  calmCount: 0,
};

/** A segment was fetched. */
export function afterFetch(pace: Pace, fetchMs: number, { ahead }: PaceLimits): Pace {
  return {
    ...pace,
    fetchMs: smoothed(pace.fetchMs, fetchMs),
    levelMs: smoothed(pace.levelCount === 0 ? undefined : pace.levelMs, fetchMs),
    levelCount: pace.levelCount + 1,
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
  const taken = { ...pace, replayMs, takenAtMs: nowMs, calmCount: calmCount + 1 };
  if (taken.calmCount < CALM_SEGMENTS) return taken;
  return { ...taken, ...levelOf(Math.max(concurrency - 1, FIRST_CONCURRENCY)), calmCount: 0 };
}

/**
 * Recovery had to wait for a segment that came too late: more are fetched at the same time, as long
 * as that brings more. Where processors or the line are the limit it only delays the nearest one.
 */
export function afterStall(pace: Pace): Pace {
  const { concurrency, levelMs, levelCount, levelCountMin, lowerRate } = pace;
  const stalled = { ...pace, calmCount: 0 };
  const isKnown = levelCount >= Math.max(levelCountMin, 2 * concurrency);
  if (!isKnown || concurrency >= CONCURRENCY_MAX) return stalled;
  const rate = concurrency / Math.max(levelMs, 1);
  if (lowerRate !== undefined && rate < GAIN * lowerRate) {
    const less = Math.max(concurrency - CONCURRENCY_STEP, FIRST_CONCURRENCY);
    return { ...stalled, ...levelOf(less), levelCountMin: HELD_COUNT };
  }
  return { ...stalled, ...levelOf(concurrency + CONCURRENCY_STEP), lowerRate: rate };
}

/**
 * How many segments to be ahead: those that recovery replays while one is fetched, twice, and two
 * seconds more. All that is allowed while the replay's speed is unknown.
 */
export function reachOf({ fetchMs, replayMs }: Pace, { ahead }: PaceLimits): number {
  if (fetchMs === undefined || replayMs === undefined) return ahead;
  const needed = Math.ceil((2 * fetchMs + RESERVE_MS) / Math.max(replayMs, 1));
  return Math.min(Math.max(needed, 2), ahead);
}

/** How many may be under way: while the archive is not known to have more, few. */
export function widthOf({ concurrency, trust }: Pace): number {
  return Math.min(concurrency, trust);
}

/** Nothing is known yet of a concurrency. */
function levelOf(concurrency: number) {
  return { concurrency, levelMs: 0, levelCount: 0, levelCountMin: 0, lowerRate: undefined };
}

function smoothed(before: number | undefined, value: number): number {
  return before === undefined ? value : before + WEIGHT * (value - before);
}
