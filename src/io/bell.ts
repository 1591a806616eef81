import { untilAborted } from "./abort.ts";
import type { Clock } from "./clock.ts";

/** Lets one part of a program wait for another to change something that both can see. */
export class Bell {
  #next = Promise.withResolvers<void>();

  /** Wakes everything that waits now. */
  ring(): void {
    const { resolve } = this.#next;
    this.#next = Promise.withResolvers<void>();
    resolve();
  }

  /** Resolves when the bell rings after this call. */
  async rung({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    await untilAborted(this.#next.promise, signal);
  }

  /** Resolves when the bell rings, after `ms`, or once the signal is aborted. */
  async rungWithin(
    ms: number,
    { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
  ): Promise<void> {
    const over = new AbortController();
    const either = { signal: AbortSignal.any([signal, over.signal]) };
    await Promise.race([
      this.rung(either).catch(() => {}),
      clock.sleep(ms, either).catch(() => {}),
    ]);
    over.abort();
  }

  /** Resolves once `isTrue` says so; it is asked now and at each ring. */
  async until(isTrue: () => boolean, options: { readonly signal: AbortSignal }): Promise<void> {
    options.signal.throwIfAborted();
    while (!isTrue()) await this.rung(options);
  }
}
