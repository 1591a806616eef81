import { DeadlineError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";

export interface DrainWidthOptions {
  /** As it is configured. */
  readonly concurrency: number;
  /** For one push. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** More would hold more memory and not more of the line. */
const WIDEST = 8;
/** Of the time of a push, what all that are under way may take by what was measured. */
const FILLED_SHARE = 0.75;
/** Files in a row that are stored before what was too much once is tried again. */
const FILES_TO_FORGET = 64;

/**
 * How many files are pushed at one time: fewer where the line is too slow for all of them to end in
 * their time, because then what each of them has sent is lost, and sent again. The first file is
 * alone, and its time tells; one by one they become more again, up to where it was too much.
 */
export class DrainWidth {
  readonly #options: DrainWidthOptions;
  readonly #countUnderWay: () => number;
  readonly #widest: number;
  #width: number;
  /** At most so many at one time have not been too many of late. */
  #ceiling: number;
  #storedCount = 0;

  constructor(options: DrainWidthOptions, countUnderWay: () => number) {
    this.#options = options;
    this.#countUnderWay = countUnderWay;
    this.#widest = this.#width = this.#ceiling = Math.min(options.concurrency, WIDEST);
  }

  get current(): number {
    return this.#width;
  }

  /** Learns from how a push ends. */
  async learn<T>(push: () => Promise<T>): Promise<T> {
    const { clock } = this.#options;
    const before = { width: this.#width, count: this.#countUnderWay(), ms: clock.monotonicMs() };
    try {
      const outcome = await push();
      const sharers = Math.max(Math.min(before.count, this.#countUnderWay()), 1);
      this.#stored((clock.monotonicMs() - before.ms) / sharers);
      return outcome;
    } catch (error) {
      // One that was alone has waited for something else.
      const isCrowded = error instanceof DeadlineError && this.#countUnderWay() > 1;
      // All that began together fail together.
      if (isCrowded && before.width <= this.#width) this.#narrow();
      throw error;
    }
  }

  #narrow(): void {
    this.#ceiling = Math.max(this.#width - 1, 1);
    this.#width = Math.max(Math.floor(this.#width / 2), 1);
    this.#storedCount = 0;
  }

  /** `fileMs` is what a file takes of the line if it has all of it. */
  #stored(fileMs: number): void {
    const fitting = Math.max(Math.floor((FILLED_SHARE * this.#options.timeoutMs) / fileMs), 1);
    if (fitting < this.#width) {
      this.#width = fitting;
      this.#storedCount = 0;
    }
    this.#storedCount += 1;
    const isForgotten = this.#storedCount >= FILES_TO_FORGET;
    if (isForgotten) this.#ceiling = Math.min(this.#ceiling + 1, this.#widest);
    const isFull = this.#width >= Math.min(this.#ceiling, fitting);
    if (isFull || this.#storedCount < this.#width) return;
    this.#width += 1;
    this.#storedCount = 0;
  }
}
