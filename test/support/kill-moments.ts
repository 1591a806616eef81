import type { Random } from "./random.ts";
import type { RunResult } from "./walnut.ts";

/**
 * Moments at which to kill a program: in all of a run, and a little behind its end. A run that was
 * not killed tells how long one takes now: after a slow first one all others would end too early.
 */
export class KillMoments {
  readonly #random: Random;
  #limitMs: number;

  /** `undisturbed` is a run to its end. */
  constructor(random: Random, undisturbed: RunResult) {
    this.#random = random;
    this.#limitMs = undisturbed.tookMs * 1.1;
  }

  /** Milliseconds after the start. */
  next(): number {
    return this.#random.next() * this.#limitMs;
  }

  saw({ signal, tookMs }: RunResult): void {
    if (signal === null) this.#limitMs = Math.min(this.#limitMs, tookMs * 1.1);
  }
}
