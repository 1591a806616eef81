import type { DrainOptions } from "./drain-options.ts";

/** How the drainer compresses while the level is chosen by need. */
export interface LevelState {
  readonly level: 1 | 3;
  /** Files in a row that were stored while there was next to no backlog. */
  readonly calmCount: number;
  /** The smallest backlog of the time that began at `sinceMs`. */
  readonly lowBacklog: number;
  readonly sinceMs: number;
}

/** What is looked at after each stored file. */
export interface LevelSample {
  /** Ready files that the store has not acknowledged. */
  readonly backlog: number;
  /** Monotonic. */
  readonly nowMs: number;
}

/** zstd's own default while the archive keeps up. */
export const FIRST_LEVEL: LevelState = { level: 3, calmCount: 0, lowBacklog: 0, sinceMs: 0 };

const FAST_BACKLOG = 16;
/** A backlog that doubles is growth only from here on. */
const GROWTH_BACKLOG = 4;
const GROWTH_WINDOW_MS = 10_000;
const CALM_BACKLOG = 1;
const CALM_FILES = 20;

/**
 * The next level: fast at once when the backlog is long or has doubled within ten seconds, slow
 * again only after a row of files without one, so that it does not swing.
 */
export function nextLevel(state: LevelState, { backlog, nowMs }: LevelSample): LevelState {
  const isWindowOver = nowMs - state.sinceMs > GROWTH_WINDOW_MS;
  const lowBacklog = isWindowOver ? backlog : Math.min(state.lowBacklog, backlog);
  const sinceMs = isWindowOver ? nowMs : state.sinceMs;
  const calmCount = backlog <= CALM_BACKLOG ? state.calmCount + 1 : 0;

  const isGrowing = backlog >= GROWTH_BACKLOG && backlog >= 2 * Math.max(lowBacklog, 1);
  if (backlog >= FAST_BACKLOG || isGrowing) return { level: 1, calmCount, lowBacklog, sinceMs };
  const level = calmCount >= CALM_FILES ? 3 : state.level;
  return { level, calmCount: level === 3 ? 0 : calmCount, lowBacklog, sinceMs };
}

/** The level of one drainer: the given one, or the one that the backlog needs. */
export class DrainLevel {
  readonly #options: Pick<DrainOptions, "level" | "isLevelByNeed" | "log" | "clock">;
  #state = FIRST_LEVEL;

  constructor(options: Pick<DrainOptions, "level" | "isLevelByNeed" | "log" | "clock">) {
    this.#options = options;
  }

  /** The codec's own if it is undefined. */
  get current(): number | undefined {
    return this.#options.isLevelByNeed ? this.#state.level : this.#options.level;
  }

  /** For the status: nothing where the settings say it. */
  get byNeed(): { readonly level?: number } {
    return this.#options.isLevelByNeed ? { level: this.#state.level } : {};
  }

  /** A file was stored, and `backlog` are left. */
  stored(backlog: number): void {
    const { clock, isLevelByNeed, log } = this.#options;
    const before = this.#state.level;
    this.#state = nextLevel(this.#state, { backlog, nowMs: clock.monotonicMs() });
    const { level } = this.#state;
    if (isLevelByNeed && before !== level) log.info("zstd level changed", { level, backlog });
  }
}
