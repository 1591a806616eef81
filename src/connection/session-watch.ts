import { DatabaseError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import type { Session } from "./session.ts";

export interface SessionWatchOptions {
  /** How often the session is asked; longer ones are cut to 5 s; 0 = never. */
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/**
 * A restart has to be noticed within 10 s, also where the end of a connection does not reach us.
 */
const MAX_INTERVAL_MS = 5000;

/** A server under load may answer late; one that is gone never does. */
const ANSWER_TIMEOUT_MS = 120_000;

/**
 * Watches a session that has to live as long as something else runs: asks it for a sign of life at
 * each interval. Queries of others on the session have to end within two minutes meanwhile.
 * Disposing ends the watch, not the session.
 */
export class SessionWatch implements AsyncDisposable {
  readonly #session: Session;
  readonly #lost = new AbortController();
  readonly #over = new AbortController();
  readonly #done: Promise<void>;

  constructor(session: Session, options: SessionWatchOptions) {
    this.#session = session;
    if (session.lost.aborted) this.#onLost();
    session.lost.addEventListener("abort", this.#onLost, { once: true });
    const until = AbortSignal.any([options.signal, session.lost, this.#over.signal]);
    this.#done =
      options.intervalMs === 0
        ? Promise.resolve()
        : keepAsking(session, { ...options, signal: until }).catch((error: unknown) => {
            if (!until.aborted) this.#lost.abort(error);
          });
  }

  /** Aborted with a DatabaseError when the session is lost before the watch ends. */
  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#session.lost.removeEventListener("abort", this.#onLost);
    this.#over.abort();
    await this.#done;
  }

  readonly #onLost = (): void => this.#lost.abort(this.#session.lost.reason);
}

async function keepAsking(
  session: Session,
  { intervalMs, clock, signal }: SessionWatchOptions,
): Promise<void> {
  for (;;) {
    await clock.sleep(Math.min(intervalMs, MAX_INTERVAL_MS), { signal });
    const late = new AbortController();
    const answer = session.query("SELECT 1", { signal });
    const deadline = clock
      .sleep(ANSWER_TIMEOUT_MS, { signal: AbortSignal.any([signal, late.signal]) })
      .then(() => {
        throw new DatabaseError(
          `PostgreSQL at ${session.address} has not answered for ${ANSWER_TIMEOUT_MS / 1000} s`,
          { hint: "Is its host still there, and the network between?" },
        );
      });
    deadline.catch(() => {});
    try {
      await untilAborted(Promise.race([answer, deadline]), signal);
    } finally {
      late.abort();
      answer.catch(() => {});
    }
  }
}
