import type { Clock } from "./clock.ts";

export interface WatchdogOptions {
  /** Aborts ours as well, with its reason. */
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Makes the reason of the abort. */
  readonly onTimeout: () => Error;
  /** Told once in each silence that has lasted so long. */
  readonly notice?: { readonly afterMs: number; readonly tell: () => void } | undefined;
}

/**
 * Aborts its signal when nothing was heard for `timeoutMs`: since it was made, or since the last
 * `progress`. Libraries' own time-outs are no substitute: on Bun they never fire while a write
 * stalls. Dispose it when the watched work has ended.
 */
export class Watchdog implements Disposable {
  readonly #options: WatchdogOptions;
  readonly #controller = new AbortController();
  readonly #ended = new AbortController();
  readonly #onAbort: () => void;
  #heardMs: number;
  #isSuspended = false;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#heardMs = options.clock.monotonicMs();
    this.#onAbort = () => this.#controller.abort(options.signal.reason);
    if (options.signal.aborted) {
      this.#onAbort();
      return;
    }
    options.signal.addEventListener("abort", this.#onAbort, { once: true });
    void this.#watch();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The watched work got on; it has the full time again. */
  progress(): void {
    this.#heardMs = this.#options.clock.monotonicMs();
  }

  /** It is not the watched work's turn: time does not count until `resume`. */
  suspend(): void {
    this.#isSuspended = true;
  }

  resume(): void {
    this.#isSuspended = false;
    this.progress();
  }

  [Symbol.dispose](): void {
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    this.#ended.abort();
  }

  async #watch(): Promise<void> {
    const { clock, timeoutMs, onTimeout } = this.#options;
    const { signal } = this.#ended;
    try {
      for (let leftMs = timeoutMs; leftMs > 0; leftMs = this.#leftMs()) {
        await clock.sleep(this.#untilNotice(leftMs), { signal });
      }
    } catch {
      return;
    }
    if (!signal.aborted) this.#controller.abort(onTimeout());
  }

  /** Milliseconds to the notice, if that comes before the end; tells it when it is due. */
  #untilNotice(leftMs: number): number {
    const { notice, clock } = this.#options;
    if (notice === undefined || this.#isSuspended) return leftMs;
    const untilMs = this.#heardMs + notice.afterMs - clock.monotonicMs();
    if (untilMs > 0) return Math.min(untilMs, leftMs);
    // From here on it is slept to the end: only progress gives time for another notice.
    notice.tell();
    return leftMs;
  }

  #leftMs(): number {
    const { clock, timeoutMs } = this.#options;
    return this.#isSuspended ? timeoutMs : this.#heardMs + timeoutMs - clock.monotonicMs();
  }
}
