import type { Clock } from "../io/clock.ts";
import type { DrainAnswer } from "./drain-protocol.ts";

/** Tells one call of wal-push. */
export type Answer = (answer: DrainAnswer) => void;

const BATCH_FILES = 16;
const LONGEST_MS = 500;

/**
 * Who waits for which file. That one is stored is told when more are done behind it: an archiver
 * that finds none done starts a process for the next one. DRAIN.md has the rule.
 */
export class WaitingCalls {
  readonly #clock: Clock;
  readonly #enough: number;
  readonly #waiting = new Map<string, Answer[]>();
  /** They tell what is true already. */
  #held: (() => void)[] = [];
  #untilMs = 0;

  /** `aheadMax` is how many files may be done before they are asked for. */
  constructor(aheadMax: number, clock: Clock) {
    this.#enough = Math.min(BATCH_FILES, aheadMax / 2);
    this.#clock = clock;
  }

  /** Files that are not done and waited for. */
  get names(): readonly string[] {
    return [...this.#waiting.keys()];
  }

  has(name: string): boolean {
    return this.#waiting.has(name);
  }

  add(name: string, answer: Answer): void {
    this.#waiting.set(name, [...(this.#waiting.get(name) ?? []), answer]);
  }

  tell(name: string, answer: DrainAnswer): void {
    for (const tell of this.#take(name)) tell(answer);
  }

  /** With one of the next calls of `release`. */
  tellStored(name: string, outcome: string): void {
    const answers = this.#take(name);
    if (answers.length === 0) return;
    if (this.#held.length === 0) this.#untilMs = this.#clock.monotonicMs() + LONGEST_MS;
    this.#held.push(() => answers.forEach((tell) => tell({ kind: "stored", outcome })));
  }

  /** How long `release` may be put off; undefined where nobody waits for it. */
  get leftMs(): number | undefined {
    if (this.#held.length === 0) return undefined;
    return Math.max(this.#untilMs - this.#clock.monotonicMs(), 0);
  }

  /** Tells all of them, unless enough files are soon `ahead` and there are as many `left` to do. */
  release({ ahead, left }: { readonly ahead: number; readonly left: number }): void {
    const isWorthWaiting = ahead < this.#enough && left >= BATCH_FILES;
    if (isWorthWaiting && this.leftMs !== 0) return;
    const held = this.#held;
    this.#held = [];
    for (const tell of held) tell();
  }

  #take(name: string): readonly Answer[] {
    const answers = this.#waiting.get(name) ?? [];
    this.#waiting.delete(name);
    return answers;
  }
}
