import { OperationError, StorageAccessError, StorageError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { Watchdog } from "../io/watchdog.ts";
import type { CallOptions } from "./storage.ts";

export interface AccessToken {
  readonly token: string;
  /** By our clock, in milliseconds since 1970. */
  readonly expiresAtMs: number;
}

/** Asks whoever gives tokens for a new one. */
export type TokenSource = (options: CallOptions) => Promise<AccessToken>;

export interface TokenCacheOptions {
  readonly clock: Clock;
  /** For one search for credentials, from beginning to end. */
  readonly timeoutMs: number;
  /** For messages: "azure://account.blob.core.windows.net/backups". */
  readonly storage: string;
  /** What to do if there are no credentials. */
  readonly hint: string;
}

/** A new token is asked for so long before the end of the old one, or at half of a short life. */
const RENEWAL_MS = 5 * 60_000;

/** The token of now: one request for a new one at a time, and early enough that none is refused. */
export class TokenCache {
  readonly #source: TokenSource;
  readonly #options: TokenCacheOptions;
  #token: AccessToken | undefined;
  #renewAtMs = 0;
  #asking: Promise<AccessToken> | undefined;

  constructor(source: TokenSource, options: TokenCacheOptions) {
    this.#source = source;
    this.#options = options;
  }

  /** Rejects with StorageAccessError if there are no credentials. */
  async get({ signal }: CallOptions): Promise<string> {
    const token = this.#token;
    const nowMs = this.#options.clock.now();
    if (token !== undefined && nowMs < this.#renewAtMs) return token.token;
    try {
      this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
      return (await untilAborted(this.#asking, signal)).token;
    } catch (error) {
      signal.throwIfAborted();
      // One that is still good outlasts a giver of tokens that is away for a while.
      if (token !== undefined && nowMs < token.expiresAtMs) return token.token;
      throw error;
    }
  }

  /** After a refusal; gives whether there was a token that can be replaced. */
  forget(): boolean {
    const hadToken = this.#token !== undefined;
    this.#token = undefined;
    return hadToken;
  }

  /** For all callers that wait, so that the abort of one does not end it for the others. */
  async #ask(): Promise<AccessToken> {
    const { clock, timeoutMs, storage, hint } = this.#options;
    const signal = new AbortController().signal;
    const onTimeout = () =>
      new StorageError(`no credentials for ${storage} within ${timeoutMs / 1000} s`, {
        isRetryable: true,
        hint,
      });
    using watchdog = new Watchdog({ signal, timeoutMs, clock, onTimeout });
    try {
      const asking = this.#source({ signal: watchdog.signal });
      const token = await untilAborted(asking, watchdog.signal);
      const nowMs = clock.now();
      const lifeMs = token.expiresAtMs - nowMs;
      this.#renewAtMs = nowMs + Math.max(lifeMs - RENEWAL_MS, lifeMs / 2);
      this.#token = token;
      return token;
    } catch (error) {
      if (error instanceof OperationError) throw error;
      const reason = String(error instanceof Error ? error.message : error).replaceAll(/\s+/g, " ");
      throw new StorageAccessError(`no credentials for ${storage}: ${reason}`, {
        hint,
        cause: error,
      });
    }
  }
}
