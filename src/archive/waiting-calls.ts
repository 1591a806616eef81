import type { DrainAnswer } from "./drain-protocol.ts";

/** Tells one call of wal-push. */
export type Answer = (answer: DrainAnswer) => void;

/** Who waits for which file. */
export class WaitingCalls {
  readonly #waiting = new Map<string, Answer[]>();

  /** Files that are waited for. */
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
    const answers = this.#waiting.get(name) ?? [];
    this.#waiting.delete(name);
    for (const one of answers) one(answer);
  }
}
