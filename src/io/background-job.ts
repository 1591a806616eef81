import { untilAborted } from "./abort.ts";

interface JobOptions {
  readonly signal: AbortSignal;
}

/**
 * Work that goes on beside other work, which has to end when this fails: that runs with `failed`
 * among its signals. Disposing ends the work and waits for its end.
 */
export class BackgroundJob<T> implements AsyncDisposable {
  readonly #over = new AbortController();
  readonly #failed = new AbortController();
  readonly #result: Promise<T>;

  constructor(run: (options: JobOptions) => Promise<T>, { signal }: JobOptions) {
    this.#result = run({ signal: AbortSignal.any([signal, this.#over.signal]) });
    this.#result.catch((error: unknown) => {
      if (!this.#over.signal.aborted) this.#failed.abort(error);
    });
  }

  /** Aborted with its error when the work fails; not when it is disposed. */
  get failed(): AbortSignal {
    return this.#failed.signal;
  }

  /** What the work gives, or its error. */
  async result({ signal }: JobOptions): Promise<T> {
    return await untilAborted(this.#result, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort(new Error("nobody waits for it any more"));
    await Promise.allSettled([this.#result]);
  }
}
