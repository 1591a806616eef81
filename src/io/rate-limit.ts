import { untilAborted } from "./abort.ts";
import type { ByteStream } from "./bytes.ts";
import type { Clock } from "./clock.ts";

/** What may pass at once after a pause, in time at the full rate. */
const BURST_MS = 250;

/**
 * A token bucket: on average no more than `bytesPerSecond` pass, shared by all that take from it,
 * in the order in which they come. The rate may be changed while some wait: what they still wait
 * for then passes at the new one.
 */
export class RateLimit {
  readonly #clock: Clock;
  /** Infinite where there is no limit. */
  #bytesPerMs: number;
  /** How far the bucket's own count of bytes had come at a time; it runs on at the rate. */
  #passed: { readonly bytes: number; readonly atMs: number };
  /** Where that count will be when all that was taken so far may have passed. */
  #takenBytes = Number.NEGATIVE_INFINITY;
  /** Aborted when the rate changes. */
  #rate = new AbortController();

  /** `bytesPerSecond` undefined = no limit. */
  constructor(bytesPerSecond: number | undefined, clock: Clock) {
    this.#clock = clock;
    this.#bytesPerMs = perMs(bytesPerSecond);
    this.#passed = { bytes: 0, atMs: clock.monotonicMs() };
  }

  /** Undefined = no limit. Throws RangeError for what is no rate, and then nothing has changed. */
  setRate(bytesPerSecond: number | undefined): void {
    const bytesPerMs = perMs(bytesPerSecond);
    if (bytesPerMs === this.#bytesPerMs) return;
    const nowMs = this.#clock.monotonicMs();
    this.#passed = { bytes: this.#passedBytes(nowMs), atMs: nowMs };
    this.#bytesPerMs = bytesPerMs;
    this.#rate.abort();
    this.#rate = new AbortController();
  }

  /** Resolves when `sizeBytes` may pass; gives the milliseconds that it took. */
  async take(sizeBytes: number, { signal }: { readonly signal: AbortSignal }): Promise<number> {
    signal.throwIfAborted();
    const beganMs = this.#clock.monotonicMs();
    if (this.#bytesPerMs === Number.POSITIVE_INFINITY) return 0;
    const earliestBytes = this.#passedBytes(beganMs) - BURST_MS * this.#bytesPerMs;
    const dueBytes = Math.max(this.#takenBytes, earliestBytes) + sizeBytes;
    this.#takenBytes = dueBytes;
    while (!(await this.#wait(dueBytes, signal))) continue;
    return this.#clock.monotonicMs() - beganMs;
  }

  /** Gives false if the rate was changed meanwhile. */
  async #wait(dueBytes: number, signal: AbortSignal): Promise<boolean> {
    const waitMs = (dueBytes - this.#passedBytes(this.#clock.monotonicMs())) / this.#bytesPerMs;
    if (!(waitMs > 0)) return true;
    const changed = this.#rate.signal;
    const over = new AbortController();
    const stop = AbortSignal.any([signal, over.signal]);
    try {
      await untilAborted(this.#clock.sleep(waitMs, { signal: stop }), changed);
      return true;
    } catch (error) {
      signal.throwIfAborted();
      if (changed.aborted) return false;
      throw error;
    } finally {
      over.abort();
    }
  }

  #passedBytes(nowMs: number): number {
    const { bytes, atMs } = this.#passed;
    if (this.#bytesPerMs === Number.POSITIVE_INFINITY) return Math.max(bytes, this.#takenBytes);
    return bytes + (nowMs - atMs) * this.#bytesPerMs;
  }
}

function perMs(bytesPerSecond: number | undefined): number {
  if (bytesPerSecond === undefined) return Number.POSITIVE_INFINITY;
  if (!(bytesPerSecond > 0)) throw new RangeError(`not a rate: ${bytesPerSecond} bytes/s`);
  return bytesPerSecond / 1000;
}

/** Lets bytes pass when it is their time. */
export interface ByteGate {
  take(sizeBytes: number, options: { readonly signal: AbortSignal }): Promise<unknown>;
}

/** Passes `stream` on, no faster than `limit` allows. */
export async function* rateLimited(
  stream: ByteStream,
  limit: ByteGate,
  options: { readonly signal: AbortSignal },
): ByteStream {
  for await (const chunk of stream) {
    await limit.take(chunk.length, options);
    yield chunk;
  }
}
