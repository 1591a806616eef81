import { connectPostgres } from "../connection/connect.ts";
import { sqlStateOf } from "../connection/failure.ts";
import {
  READ_SLOT_SINCE,
  ReplicationError,
  type ReplicationSession,
  type SlotPosition,
} from "../connection/replication.ts";
import { readSlotRow, type SlotRow } from "../connection/slot.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { DatabaseError, OperationError, RefusedError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import type { Lsn } from "../postgres/lsn.ts";
import type { CallOptions } from "../storage/storage.ts";

export interface SlotOptions extends CallOptions {
  readonly settings: ConnectionSettings;
  readonly slot: string;
  readonly log: Log;
}

export interface ReadySlot {
  /** Undefined when the slot has never held anything back. */
  readonly restartLsn: Lsn | undefined;
  /** Nobody has received anything through it before, as far as we know. */
  readonly isNew: boolean;
  /** It holds nothing back, and nobody could be asked whether it was invalidated. */
  readonly mayBeLost: boolean;
}

const DUPLICATE_OBJECT = "42710";
const INVALID_CATALOG_NAME = "3D000";
const FEATURE_NOT_SUPPORTED = "0A000";

/**
 * The slot as it is, made when it is missing. Rejects with RefusedError when it is a logical one,
 * or when the server has removed WAL that it should have kept.
 */
export async function ensureSlot(
  session: ReplicationSession,
  options: SlotOptions,
): Promise<ReadySlot> {
  const { slot, log } = options;
  const found = await readSlot(session, options);
  if (found !== undefined) {
    const { restartLsn, mayBeLost } = found;
    return { restartLsn, isNew: restartLsn === undefined, mayBeLost };
  }
  try {
    await session.createPhysicalSlot(slot, { isReserved: true, signal: options.signal });
    log.info("replication slot created", { slot });
  } catch (error) {
    if (!(error instanceof ReplicationError) || error.sqlState !== DUPLICATE_OBJECT) throw error;
  }
  const made = await readSlot(session, options);
  return { restartLsn: made?.restartLsn, isNew: true, mayBeLost: false };
}

/** What to do about a slot whose WAL is gone. */
export function lostSlot(slot: string, cause?: unknown): RefusedError {
  return new RefusedError(
    `the server has removed WAL that replication slot ${slot} still needed: there is a gap in what ` +
      "was received",
    {
      cause,
      hint:
        `Drop the slot (SELECT pg_drop_replication_slot('${slot}')), start wal-receive again, and ` +
        "take a new base backup at once: no recovery gets across the gap, unless archive_command " +
        "has filled it. Raise max_slot_wal_keep_size (and idle_replication_slot_timeout, if it is " +
        "set), or make the store faster.",
    },
  );
}

interface FoundSlot extends SlotPosition {
  readonly mayBeLost: boolean;
}

async function readSlot(
  session: ReplicationSession,
  options: SlotOptions,
): Promise<FoundSlot | undefined> {
  const { signal, slot } = options;
  const version = Number(await session.show("server_version_num", { signal }));
  if (version < READ_SLOT_SINCE * 10_000) return checked(await readBySql(options), slot);
  const position = await readByCommand(session, options);
  if (position === undefined) return undefined;
  if (position.restartLsn !== undefined) return { ...position, mayBeLost: false };
  // Only the catalog tells a slot that was never used from one that was invalidated.
  return checked(await readBySqlIfAllowed(options), slot) ?? { ...position, mayBeLost: true };
}

async function readByCommand(
  session: ReplicationSession,
  { slot, signal }: SlotOptions,
): Promise<SlotPosition | undefined> {
  try {
    return await session.readSlot(slot, { signal });
  } catch (error) {
    if (!(error instanceof ReplicationError) || error.sqlState !== FEATURE_NOT_SUPPORTED)
      throw error;
    throw logicalSlot(slot, error);
  }
}

async function readBySql(options: SlotOptions): Promise<SlotRow | undefined> {
  const { settings, slot, signal } = options;
  try {
    await using session = await connectPostgres(settings, { signal });
    return await readSlotRow(session, slot, { signal });
  } catch (error) {
    // A role that only replicates seldom has a database of its name.
    const isNoDatabase =
      error instanceof DatabaseError && sqlStateOf(error.cause) === INVALID_CATALOG_NAME;
    if (!isNoDatabase || settings.database !== undefined) throw error;
    return await readBySql({ ...options, settings: { ...settings, database: "postgres" } });
  }
}

/** A role that only replicates may have no database to log in to. */
async function readBySqlIfAllowed(options: SlotOptions): Promise<SlotRow | undefined> {
  try {
    return await readBySql(options);
  } catch (error) {
    options.signal.throwIfAborted();
    if (!(error instanceof OperationError)) throw error;
    options.log.warning("it can't be told whether the replication slot was invalidated", {
      slot: options.slot,
      reason: error.message,
      hint:
        "It holds no WAL back. Let the role log in to a database: PGDATABASE, and a line for it in " +
        "pg_hba.conf.",
    });
    return undefined;
  }
}

function checked(row: SlotRow | undefined, slot: string): FoundSlot | undefined {
  if (row === undefined) return undefined;
  if (!row.isPhysical) throw logicalSlot(slot);
  if (row.isLost) throw lostSlot(slot);
  return { restartLsn: row.restartLsn, mayBeLost: false };
}

function logicalSlot(slot: string, cause?: unknown): RefusedError {
  return new RefusedError(`replication slot ${slot} is a logical one`, {
    cause,
    hint: "Give wal-receive a slot of its own by WALG_SLOTNAME.",
  });
}
