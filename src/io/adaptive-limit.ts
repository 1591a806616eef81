import { untilAborted } from "./abort.ts";

/** How a piece of work went, for who decides how many may run at once. */
export type WorkOutcome =
  /** The other side took it as usual. */
  | "done"
  /** The other side said that it has too much to do. */
  | "overloaded"
  /** It says nothing about that. */
  | "unclear";

/** Leave to do one piece of work. */
export interface Turn {
  /** To be called once, when the work has ended. */
  end(outcome: WorkOutcome): void;
}

/**
 * How many pieces of work may run at once: half as many after each sign of overload, one more after
 * each round that went well ("additive increase, multiplicative decrease"), between 1 and `max`.
 * Those that wait come in their order.
 */
export class AdaptiveLimit {
  readonly #max: number;
  #limit: number;
  #lowest: number;
  #usedCount = 0;
  /** What went well since the limit changed. */
  #doneCount = 0;
  /** Of the last decrease: what was begun before it says nothing new. */
  #round = 0;
  readonly #waiting = new Set<() => void>();

  constructor(max: number) {
    if (!(max >= 1)) throw new RangeError(`not a limit: ${max}`);
    this.#max = max;
    this.#limit = max;
    this.#lowest = max;
  }

  /** How many may run now. */
  get current(): number {
    return this.#limit;
  }

  /** The fewest that there were at any time. */
  get lowest(): number {
    return this.#lowest;
  }

  /** Whether `begin` would wait. */
  get isTaken(): boolean {
    return this.#usedCount >= this.current;
  }

  /** Resolves when it is the caller's turn; rejects with the signal's reason. */
  async begin({ signal }: { readonly signal: AbortSignal }): Promise<Turn> {
    signal.throwIfAborted();
    if (this.isTaken || this.#waiting.size > 0) await this.#wait(signal);
    else this.#usedCount++;
    const round = this.#round;
    return { end: (outcome) => this.#end(outcome, round) };
  }

  /** Who wakes us has counted us already. */
  async #wait(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    try {
      await untilAborted(promise, signal);
    } catch (error) {
      if (!this.#waiting.delete(resolve)) {
        this.#usedCount--;
        this.#wake();
      }
      throw error;
    }
  }

  #end(outcome: WorkOutcome, round: number): void {
    if (outcome === "overloaded" && round === this.#round) {
      this.#round++;
      this.#doneCount = 0;
      this.#limit = Math.max(1, Math.floor(Math.min(this.#limit, this.#usedCount) / 2));
      this.#lowest = Math.min(this.#lowest, this.#limit);
    } else if (outcome === "done" && this.#limit < this.#max) {
      this.#doneCount++;
      if (this.#doneCount === this.#limit) {
        this.#doneCount = 0;
        this.#limit++;
      }
    }
    this.#usedCount--;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting) {
      if (this.isTaken) return;
      this.#waiting.delete(resolve);
      this.#usedCount++;
      resolve();
    }
  }
}
