import { untilAborted } from "./abort.ts";

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

  /** Resolves once `isTrue` says so; it is asked now and at each ring. */
  async until(isTrue: () => boolean, options: { readonly signal: AbortSignal }): Promise<void> {
    options.signal.throwIfAborted();
    while (!isTrue()) await this.rung(options);
  }
}
