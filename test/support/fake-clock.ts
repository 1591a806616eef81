import type { Clock } from "../../src/io/clock.ts";

interface Sleeper {
  readonly atMs: number;
  wake(): void;
}

/** Time that moves when a test moves it. */
export class FakeClock implements Clock {
  #nowMs: number;
  readonly #sleepers = new Set<Sleeper>();
  /** All pauses that were asked for, in milliseconds. */
  readonly sleeps: number[] = [];

  constructor(nowMs = Date.UTC(2026, 10, 21, 6, 45)) {
    this.#nowMs = nowMs;
  }

  /** How many pauses have neither ended nor been given up. */
  get sleeperCount(): number {
    return this.#sleepers.size;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  async sleep(ms: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    this.sleeps.push(ms);
    await new Promise<void>((resolve, reject) => {
      const sleeper = { atMs: this.#nowMs + ms, wake: resolve };
      this.#sleepers.add(sleeper);
      const onAbort = (): void => {
        this.#sleepers.delete(sleeper);
        reject(signal.reason);
      };
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Lets `ms` pass, waking sleepers in their order, and lets what they start run. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await settle();
    for (;;) {
      const [next] = [...this.#sleepers].toSorted((left, right) => left.atMs - right.atMs);
      if (next === undefined || next.atMs > endMs) break;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      this.#sleepers.delete(next);
      next.wake();
      await settle();
    }
    this.#nowMs = endMs;
  }
}

/** A clock whose pauses take no time but are added up: for retries that are not the matter. */
export class SkippingClock extends FakeClock {
  #skippedMs = 0;

  override monotonicMs(): number {
    return super.monotonicMs() + this.#skippedMs;
  }

  override async sleep(ms: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    this.sleeps.push(ms);
    this.#skippedMs += ms;
    await settle();
    signal.throwIfAborted();
  }
}

/** Lets promises that can settle do so. */
async function settle(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}
