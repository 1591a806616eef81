import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { ProgressSink, ProgressState } from "./command.ts";

/** A terminal's line is rewritten this often at most. */
const TERMINAL_INTERVAL_MS = 200;
const LOG_INTERVAL_MS = 60_000;
/** The rate follows the last half minute, not the whole job. */
const RATE_WINDOW_MS = 30_000;

/** A line that stays at the bottom of a terminal until it is replaced. */
export interface StatusLine {
  show(text: string): void;
  clear(): void;
}

/** Chooses the sink when there is something to show: asking for a terminal takes time. */
export function lazyProgress(choose: () => ProgressSink): ProgressSink {
  const chosen: ProgressSink[] = [];
  return {
    update(state) {
      if (chosen.length === 0) chosen.push(choose());
      chosen[0]?.update(state);
    },
    end: () => chosen[0]?.end(),
  };
}

/** One rewritten line on a terminal. */
export function terminalProgress(status: StatusLine, clock: Clock): ProgressSink {
  const rate = new RateMeter(clock);
  const pace = new Pace(clock, TERMINAL_INTERVAL_MS, { isFirstDue: true });
  return {
    update(state) {
      const bytesPerSecond = rate.measure(state);
      if (pace.isDue()) status.show(formatProgress(state, bytesPerSecond));
    },
    end() {
      status.clear();
      rate.reset();
    },
  };
}

/** One line a minute, none for a job that is shorter. */
export function logProgress(log: Log, clock: Clock): ProgressSink {
  const rate = new RateMeter(clock);
  const pace = new Pace(clock, LOG_INTERVAL_MS, { isFirstDue: false });
  return {
    update(state) {
      const bytesPerSecond = rate.measure(state);
      if (pace.isDue()) log.info(formatProgress(state, bytesPerSecond));
    },
    end: () => rate.reset(),
  };
}

/** "backing up: 1.2 GiB of 4.0 GiB (30 %), 310.0 MiB/s, 9 s left" */
export function formatProgress(
  { activity, doneBytes, totalBytes }: ProgressState,
  bytesPerSecond: number | undefined,
): string {
  const total =
    totalBytes === undefined
      ? ""
      : ` of ${formatBytes(totalBytes)}${formatShare(doneBytes, totalBytes)}`;
  const parts = [`${formatBytes(doneBytes)}${total}`];
  if (bytesPerSecond !== undefined) {
    parts.push(`${formatBytes(bytesPerSecond)}/s`);
    const leftBytes = (totalBytes ?? 0) - doneBytes;
    if (leftBytes > 0 && bytesPerSecond > 0) {
      parts.push(`${formatSeconds(leftBytes / bytesPerSecond)} left`);
    }
  }
  return `${activity}: ${parts.join(", ")}`;
}

/** "0 B", "1.5 KiB", "16.0 MiB". */
export function formatBytes(count: number): string {
  if (count < 1024) return `${Math.round(count)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = Math.min(Math.floor(Math.log2(count) / 10), units.length);
  return `${(count / 2 ** (10 * power)).toFixed(1)} ${units[power - 1] ?? ""}`;
}

/** "9 s", "1 min 05 s", "2 h 00 min". */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

function two(number: number): string {
  return String(number).padStart(2, "0");
}

function formatShare(doneBytes: number, totalBytes: number): string {
  if (totalBytes <= 0) return "";
  return ` (${Math.min(100, Math.floor((doneBytes / totalBytes) * 100))} %)`;
}

class Pace {
  readonly #clock: Clock;
  readonly #intervalMs: number;
  #nextMs: number;

  constructor(clock: Clock, intervalMs: number, { isFirstDue }: { readonly isFirstDue: boolean }) {
    this.#clock = clock;
    this.#intervalMs = intervalMs;
    this.#nextMs = clock.monotonicMs() + (isFirstDue ? 0 : intervalMs);
  }

  isDue(): boolean {
    const now = this.#clock.monotonicMs();
    if (now < this.#nextMs) return false;
    this.#nextMs = now + this.#intervalMs;
    return true;
  }
}

class RateMeter {
  readonly #clock: Clock;
  #samples: { readonly atMs: number; readonly doneBytes: number }[] = [];
  #activity = "";

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Bytes per second over the window, undefined until a second has passed. */
  measure({ activity, doneBytes }: ProgressState): number | undefined {
    const isAnew = doneBytes < (this.#samples.at(-1)?.doneBytes ?? 0);
    if (activity !== this.#activity || isAnew) this.reset();
    this.#activity = activity;
    const atMs = this.#clock.monotonicMs();
    const last = this.#samples.at(-1);
    // A sample a second is enough, and keeps the list short.
    if (last === undefined || atMs - last.atMs >= 1000) this.#samples.push({ atMs, doneBytes });
    while ((this.#samples[1]?.atMs ?? atMs) < atMs - RATE_WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0];
    if (first === undefined || atMs - first.atMs < 1000) return undefined;
    return ((doneBytes - first.doneBytes) * 1000) / (atMs - first.atMs);
  }

  reset(): void {
    this.#samples = [];
  }
}
