import { connectReplication } from "../connection/replication.ts";
import { sqlStateOf } from "../connection/failure.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import type { WalStream } from "../connection/wal-stream.ts";
import { DatabaseError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { CallOptions } from "../storage/storage.ts";

/** A store that has been away for less may be back before anybody minds. */
const PATIENCE_MS = 5000;
const PROBE_TIMEOUT_MS = 5000;
/** "The database system is shutting down": cannot_connect_now. */
const CANNOT_CONNECT_NOW = "57P03";

/**
 * A server that is told to stop waits for its receivers to confirm everything. While the store is
 * away we can't: then we leave, so that it stops. Its slot keeps what we don't have.
 */
export class ShutdownWatch {
  readonly #stream: WalStream;
  readonly #options: { readonly settings: ConnectionSettings; readonly clock: Clock };
  #isProbing = false;

  constructor(
    stream: WalStream,
    options: { readonly settings: ConnectionSettings; readonly clock: Clock },
  ) {
    this.#stream = stream;
    this.#options = options;
  }

  /** The server wants a confirmation; the store has been away for `outageMs`. */
  askedFor(outageMs: number, { signal }: CallOptions): void {
    if (outageMs < PATIENCE_MS || this.#isProbing) return;
    this.#isProbing = true;
    void this.#probe(signal);
  }

  /** A walsender can't be asked while it streams; a server that stops refuses new sessions. */
  async #probe(signal: AbortSignal): Promise<void> {
    const { settings, clock } = this.#options;
    const either = AbortSignal.any([signal, AbortSignal.timeout(PROBE_TIMEOUT_MS)]);
    try {
      await using session = await connectReplication(settings, { clock, signal: either });
      void session;
    } catch (error) {
      if (error instanceof DatabaseError && sqlStateOf(error.cause) === CANNOT_CONNECT_NOW) {
        this.#stream.abandon(
          new DatabaseError("the server is shutting down, and the store is away"),
        );
      }
    }
    try {
      await clock.sleep(PATIENCE_MS, { signal });
    } catch {
      return;
    }
    this.#isProbing = false;
  }
}
