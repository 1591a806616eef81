import { sqlStateOf } from "../connection/failure.ts";
import { ReplicationError } from "../connection/replication.ts";
import { DatabaseError, LocalFileError } from "../errors.ts";
import { formatLsn } from "../postgres/lsn.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { HistoryFiles } from "./history-files.ts";
import { isTemporary, Outage } from "./outage.ts";
import { type ReceiveOptions, ReceiveSession, type ReceiveState } from "./receive-session.ts";
import { lostSlot } from "./receive-slot.ts";
import { NOTHING_STORED, WalShipper } from "./wal-shipper.ts";
import { ReceiveDirectory } from "./wal-spool.ts";

export type { ReceiveOptions } from "./receive-session.ts";

/** What no waiting mends at the first attempt: login, rights, wal_level, too few slots. */
const SETUP_SQL_STATES = /^(28|3D|42|0A|53400|55000)/;
const UNDEFINED_FILE = "58P01";
const OBJECT_NOT_IN_PREREQUISITE_STATE = "55000";

/**
 * Receives the WAL of a server through a replication slot and stores it like wal-push, with what is
 * unfinished as `.partial`; RECEIVE.md tells the whole story. Connects again for ever.
 *
 * Rejects with the abort's reason, or with what can't heal: WrongClusterError, ConflictError,
 * RefusedError (a lost slot), FormatError, DamagedError; as long as nothing has been received also
 * with DatabaseError, when the server refuses us.
 */
export async function receiveWal(storage: Storage, options: ReceiveOptions): Promise<never> {
  return await new Receiver(storage, options).run();
}

class Receiver {
  readonly #storage: Storage;
  readonly #options: ReceiveOptions;
  readonly #outage: Outage;
  readonly #state: ReceiveState = {
    system: undefined,
    own: undefined,
    skipTo: undefined,
    promisedLsn: undefined,
    hasReceived: false,
    blockedLsn: undefined,
  };

  constructor(storage: Storage, options: ReceiveOptions) {
    this.#storage = storage;
    this.#options = options;
    this.#outage = new Outage("receiving WAL", options);
  }

  async run(): Promise<never> {
    const { signal } = this.#options;
    for (;;) {
      try {
        await this.#runWithFiles();
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof LocalFileError)) throw error;
        await this.#outage.pauseAfter(error, { signal });
      }
    }
  }

  /** Until a local file fails; then what was received but not stored is received again. */
  async #runWithFiles(): Promise<never> {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#options.signal, stop.signal]);
    await using files = await ReceiveDirectory.make(this.#options.cacheDirectory);
    const state = this.#state;
    await using shipper = new WalShipper(
      this.#storage,
      state.own?.endLsn ?? NOTHING_STORED,
      this.#options,
    );
    const shipping = shipper.run({ signal }).catch((error: unknown) => stop.abort(error));
    const histories = new HistoryFiles(this.#storage, files.path, this.#options);
    const onReceiving = (): void => this.#outage.end();
    const parts = { state, shipper, directory: files.path, histories, onReceiving };
    try {
      for (;;) {
        const session = new ReceiveSession(this.#storage, this.#options, parts);
        await this.#runSession(session, { signal });
      }
    } finally {
      stop.abort();
      await shipping;
      const { own } = state;
      const { storedLsn } = shipper;
      state.own =
        own === undefined || storedLsn === NOTHING_STORED
          ? undefined
          : { ...own, endLsn: storedLsn };
    }
  }

  async #runSession(session: ReceiveSession, { signal }: CallOptions): Promise<void> {
    try {
      await session.run({ signal });
    } catch (error) {
      signal.throwIfAborted();
      if (isGap(error)) this.#skipGap(error);
      else if (!isTemporary(error) || this.#isWrongFromTheStart(error)) throw error;
      await session.end({ signal });
      await this.#outage.pauseAfter(error, { signal });
    }
  }

  /** What we asked for beyond the slot's promise may be gone; what it promises may not. */
  #skipGap(error: unknown): void {
    const { promisedLsn, own } = this.#state;
    const { slot, log } = this.#options;
    if (promisedLsn === undefined || own === undefined || own.endLsn >= promisedLsn) {
      throw lostSlot(slot, error);
    }
    log.error("the server has removed WAL that is not in the archive", {
      from: formatLsn(own.endLsn),
      to: formatLsn(promisedLsn),
      hint:
        "No recovery gets across this gap, unless archive_command has filled it: take a new base " +
        "backup now.",
    });
    this.#state.own = undefined;
    this.#state.skipTo = promisedLsn;
  }

  #isWrongFromTheStart(error: unknown): boolean {
    if (this.#state.hasReceived || !(error instanceof DatabaseError)) return false;
    const sqlState = error instanceof ReplicationError ? error.sqlState : sqlStateOf(error.cause);
    return sqlState !== undefined && SETUP_SQL_STATES.test(sqlState);
  }
}

/** @source WalSndSegmentOpen, StartReplication in walsender.c; ReplicationSlotAcquire, slot.c */
function isGap(error: unknown): boolean {
  if (!(error instanceof ReplicationError)) return false;
  if (error.sqlState === UNDEFINED_FILE) return true;
  return (
    error.sqlState === OBJECT_NOT_IN_PREREQUISITE_STATE &&
    /invalidated|no longer/.test(error.message)
  );
}
