import { Bell } from "../io/bell.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { catchUp, type CatchUpResult, type MirrorPair } from "./mirror-catch-up.ts";
import type { MirrorQueue } from "./mirror-queue.ts";

export interface FollowerOptions {
  readonly clock: Clock;
  readonly log: Log;
}

/** How long a mirror that failed is left alone, and how often others' notes are looked for. */
export const AWAY_MS = 30_000;
/** How long a command that ends waits for a mirror that answers. */
const LINGER_MS = 5000;
/** Another process works the queue off: it may have looked before our note was there. */
const LOCKED_MS = 1000;

/** Works the queue of one mirror off, beside everything else, until it is ended. */
export class MirrorFollower {
  readonly #pair: MirrorPair;
  readonly #queue: MirrorQueue;
  readonly #options: FollowerOptions;
  readonly #bell = new Bell();
  readonly #ending = new AbortController();
  readonly #idle = new Bell();
  #isIdle = false;
  #isRung = false;
  #isAway = false;
  #running: Promise<void> | undefined;

  constructor(pair: MirrorPair, queue: MirrorQueue, options: FollowerOptions) {
    this.#pair = pair;
    this.#queue = queue;
    this.#options = options;
  }

  /** There is a new note, or there may be old ones. Returns at once and never throws. */
  wake(): void {
    this.#isIdle = false;
    this.#isRung = true;
    this.#running ??= this.#run();
    this.#bell.ring();
  }

  /** Waits a little for what is left, unless the mirror is away; the rest stays in the queue. */
  async end(): Promise<void> {
    const { clock } = this.#options;
    const limit = new AbortController();
    const waiting = clock.sleep(LINGER_MS, { signal: limit.signal }).catch(() => {});
    const idle = this.#idle
      .until(() => this.#isIdle || this.#isAway || this.#running === undefined, limit)
      .catch(() => {});
    await Promise.race([waiting, idle]);
    limit.abort();
    this.#ending.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending;
    const { away } = await this.#queue.status().catch(() => ({ away: undefined }));
    const leftMs = away === undefined ? 0 : away.at + AWAY_MS - this.#options.clock.now();
    if (leftMs > 0) await this.#pause(Math.min(leftMs, AWAY_MS), true);
    while (!signal.aborted) {
      this.#isRung = false;
      await this.#pauseAfter(await this.#work());
    }
  }

  /** Never rejects: whatever it is, the notes are still there. */
  async #work(): Promise<CatchUpResult | "locked" | Error> {
    try {
      // Without notes there is nothing that needs a lock, or a directory.
      const { notes, isOverflowing } = await this.#queue.status();
      if (notes === 0 && !isOverflowing) return { copied: 0, removed: 0, failure: undefined };
      const release = await this.#queue.lock();
      if (release === undefined) return "locked";
      try {
        return await catchUp(this.#pair, this.#queue, {
          ...this.#options,
          signal: this.#ending.signal,
        });
      } finally {
        await release();
      }
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  async #pauseAfter(result: CatchUpResult | "locked" | Error): Promise<void> {
    if (this.#ending.signal.aborted) return;
    if (result === "locked") return await this.#pause(LOCKED_MS, false);
    const failure = result instanceof Error ? result : result.failure;
    if (failure !== undefined) {
      if (!this.#isAway) {
        this.#options.log.warning("the mirror could not be caught up; what is missing is noted", {
          mirror: this.#pair.mirror.name,
          reason: failure.message,
        });
      }
      await this.#queue.setAway(failure.message);
      return await this.#pause(AWAY_MS, true);
    }
    if (!(result instanceof Error) && result.copied + result.removed > 0) {
      const { copied, removed } = result;
      this.#options.log.debug("mirror caught up", { copied, removed });
      await this.#queue.setAway(undefined);
    }
    this.#isAway = false;
    if (this.#isRung) return;
    this.#isIdle = true;
    this.#idle.ring();
    await this.#bell.rungWithin(AWAY_MS, { ...this.#options, signal: this.#ending.signal });
  }

  /** What is written meanwhile is noted and waits. */
  async #pause(ms: number, isAway: boolean): Promise<void> {
    this.#isAway = isAway;
    this.#idle.ring();
    await this.#options.clock.sleep(ms, { signal: this.#ending.signal }).catch(() => {});
  }
}
