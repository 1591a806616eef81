import type { ByteStream } from "./bytes.ts";
import type { Clock } from "./clock.ts";

/** What may pass at once after a pause, in time at the full rate. */
const BURST_MS = 250;

/**
 * A token bucket: on average no more than `bytesPerSecond` pass, shared by all that take from it,
 * in the order in which they come.
 */
export class RateLimit {
  readonly #bytesPerMs: number;
  readonly #clock: Clock;
  /** When all that was taken so far will have passed. */
  #freeAtMs = Number.NEGATIVE_INFINITY;

  constructor(bytesPerSecond: number, clock: Clock) {
    if (!(bytesPerSecond > 0)) throw new RangeError(`not a rate: ${bytesPerSecond} bytes/s`);
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#clock = clock;
  }

  /** Resolves when `sizeBytes` may pass. */
  async take(sizeBytes: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    const nowMs = this.#clock.monotonicMs();
    const beginMs = Math.max(this.#freeAtMs, nowMs - BURST_MS);
    this.#freeAtMs = beginMs + sizeBytes / this.#bytesPerMs;
    const waitMs = this.#freeAtMs - nowMs;
    if (waitMs > 0) await this.#clock.sleep(waitMs, { signal });
  }
}

/** Passes `stream` on, no faster than `limit` allows. */
export async function* rateLimited(
  stream: ByteStream,
  limit: RateLimit,
  options: { readonly signal: AbortSignal },
): ByteStream {
  for await (const chunk of stream) {
    await limit.take(chunk.length, options);
    yield chunk;
  }
}
