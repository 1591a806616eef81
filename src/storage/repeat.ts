import { withRetry } from "../io/retry.ts";
import type { RetryContext, RetryPolicy } from "../io/retry.ts";

/** What a store needs to repeat the requests of a call that only it can repeat one by one. */
export interface RepeatOptions extends RetryContext {
  readonly retryPolicy: RetryPolicy;
}

/** Repeats a request that failed for a passing reason. */
export type Repeat = <T>(signal: AbortSignal, work: () => Promise<T>) => Promise<T>;

/** How one store repeats its requests. */
export function createRepeat(options: RepeatOptions): Repeat {
  return async (signal, work) => await withRetry(work, options.retryPolicy, { ...options, signal });
}
