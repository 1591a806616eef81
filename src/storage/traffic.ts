import { AdaptiveLimit } from "../io/adaptive-limit.ts";
import type { WorkOutcome } from "../io/adaptive-limit.ts";
import type { Clock } from "../io/clock.ts";
import { RateLimit } from "../io/rate-limit.ts";
import { noCounts } from "./counted.ts";
import type { StorageCounts } from "./counted.ts";
import { LifeSign } from "./life-sign.ts";
import type { CallOptions } from "./storage.ts";

/** What passed between this process and its stores until now. */
export interface TrafficCounts {
  /** By the stores' names, in the order in which they were opened. */
  readonly stores: Readonly<Record<string, StoreCounts>>;
  /** Requests and calls that failed and were repeated. */
  readonly retries: number;
  /** In milliseconds, added up over all that waited at the same time. */
  readonly waitedMs: {
    /** Between a failure and the repetition. */
    readonly retry: number;
    /** For the limit of bytes per second. */
    readonly rateLimit: number;
    /** Until others had ended, after answers that told us to slow down. */
    readonly turn: number;
  };
}

/** What passed between this process and one store until now. */
export interface StoreCounts {
  /** Calls of the storage and the bytes of objects; those that were repeated count again. */
  readonly calls: StorageCounts;
  /** Requests by HTTP method, repetitions too; empty for stores that are not reached by HTTP. */
  readonly requests: Readonly<Record<string, number>>;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Answers that told us to slow down (429, 503). */
  readonly slowDowns: number;
  /** The fewest requests that were allowed at once because of them; absent without any. */
  readonly fewestAtOnce?: number;
}

/** More requests at once than this are never sent to one store. */
const MAX_REQUESTS_AT_ONCE = 128;
/** Answers that mean: too much at once. 498 is Swift's. */
const SLOW_DOWN_STATUSES: ReadonlySet<number> = new Set([429, 498, 503]);

/** Who is told that nothing was heard of a request for `afterMs`. */
export interface Silence {
  readonly afterMs: number;
  readonly tell: (origin: string) => void;
}

/** What all stores share. */
interface WholeTraffic {
  readonly clock: Clock;
  readonly waitedMs: { retry: number; rateLimit: number; turn: number };
}

/** The way of one process to one store: all its opened storages share it. */
export class StoreTraffic {
  /** For countedStorage. */
  readonly calls = noCounts();
  /** For heardStorage. */
  readonly life: LifeSign;
  /** For who waits: told of requests that have been silent for long, with where they went. */
  silence: Silence | undefined;
  readonly #whole: WholeTraffic;
  readonly #rate: RateLimit;
  readonly #turns = new AdaptiveLimit(MAX_REQUESTS_AT_ONCE);
  readonly #requests: Record<string, number> = {};
  readonly #sums = { sentBytes: 0, receivedBytes: 0, slowDowns: 0 };

  constructor(whole: WholeTraffic) {
    this.#whole = whole;
    this.#rate = new RateLimit(undefined, whole.clock);
    this.life = new LifeSign(whole.clock);
  }

  /** Bytes per second from now on, for what is under way, too; undefined = no limit. */
  setRate(bytesPerSecond: number | undefined): void {
    this.#rate.setRate(bytesPerSecond);
  }

  /** A copy of the figures as they are now. */
  get counts(): StoreCounts {
    const { slowDowns } = this.#sums;
    return {
      calls: { ...this.calls },
      requests: { ...this.#requests },
      ...this.#sums,
      ...(slowDowns === 0 ? {} : { fewestAtOnce: this.#turns.lowest }),
    };
  }

  /** Resolves when so many bytes may be sent or received. */
  async take(sizeBytes: number, options: CallOptions): Promise<void> {
    this.#whole.waitedMs.rateLimit += await this.#rate.take(sizeBytes, options);
  }

  countSent(sizeBytes: number): void {
    this.life.moved();
    this.#sums.sentBytes += sizeBytes;
  }

  countReceived(sizeBytes: number): void {
    this.life.moved();
    this.#sums.receivedBytes += sizeBytes;
  }

  /**
   * Sends a request when it is its turn. The turn ends with the head of the answer, so that nobody
   * who reads a body slowly, or writes what he reads to the same store, holds others up.
   */
  async exchange<T extends { readonly statusCode: number }>(
    method: string,
    send: () => Promise<T>,
    options: CallOptions,
  ): Promise<T> {
    const { clock, waitedMs } = this.#whole;
    const beganMs = clock.monotonicMs();
    const turn = await this.#turns.begin(options);
    waitedMs.turn += clock.monotonicMs() - beganMs;
    this.#requests[method] = (this.#requests[method] ?? 0) + 1;
    let outcome: WorkOutcome = "unclear";
    try {
      const answer = await send();
      outcome = SLOW_DOWN_STATUSES.has(answer.statusCode) ? "overloaded" : "done";
      if (outcome === "overloaded") this.#sums.slowDowns++;
      return answer;
    } finally {
      turn.end(outcome);
    }
  }
}

/** The ways of one process to all its stores; made once, and handed to whoever opens a storage. */
export class StorageTraffic {
  readonly #whole: WholeTraffic;
  readonly #stores = new Map<string, StoreTraffic>();
  #retries = 0;

  constructor(clock: Clock) {
    this.#whole = { clock, waitedMs: { retry: 0, rateLimit: 0, turn: 0 } };
  }

  /** `name` tells one store (a bucket, a host) from others, without credentials. */
  of(name: string): StoreTraffic {
    const known = this.#stores.get(name);
    if (known !== undefined) return known;
    const store = new StoreTraffic(this.#whole);
    this.#stores.set(name, store);
    return store;
  }

  /** Something failed and is repeated after a pause. */
  countRetry(delayMs: number): void {
    this.#retries++;
    this.#whole.waitedMs.retry += delayMs;
  }

  /** When any of them was last heard of, by the monotonic clock; -Infinity before that. */
  get heardAtMs(): number {
    return Math.max(...[...this.#stores.values()].map(({ life }) => life.heardAtMs));
  }

  /** Whether any of them has ever answered. */
  get hasAnswered(): boolean {
    return [...this.#stores.values()].some(({ life }) => life.hasAnswered);
  }

  /** A copy of the figures as they are now. */
  get counts(): TrafficCounts {
    return {
      stores: Object.fromEntries([...this.#stores].map(([name, { counts }]) => [name, counts])),
      retries: this.#retries,
      waitedMs: { ...this.#whole.waitedMs },
    };
  }
}
