import { DatabaseError } from "../errors.ts";
import { type Lsn, parseLsn } from "../postgres/lsn.ts";
import { booleanColumn, type QueryOptions, type Session, textColumn } from "./session.ts";

/** A replication slot as pg_replication_slots shows it. */
export interface SlotRow {
  readonly isPhysical: boolean;
  /**
   * The server keeps WAL from here on; undefined: none was reserved, or the slot was invalidated.
   */
  readonly restartLsn: Lsn | undefined;
  /** The server has removed WAL that the slot needs. */
  readonly isLost: boolean;
  /** Somebody receives through it. */
  readonly isActive: boolean;
  /** Up to where the receiver has all on disk; undefined: it has not said, or we may not know. */
  readonly flushLsn: Lsn | undefined;
}

/** Whether somebody receives WAL through the slot: it gets to an archive without an archiver. */
export function isReceiving(row: SlotRow | undefined): boolean {
  return row?.isPhysical === true && row.isActive;
}

/** Undefined if there is no such slot. */
export async function readSlotRow(
  session: Session,
  slot: string,
  options: QueryOptions,
): Promise<SlotRow | undefined> {
  const rows = await session.query(
    `SELECT slot_type, active, restart_lsn, coalesce(wal_status, '') AS wal_status, flush_lsn
       FROM pg_replication_slots LEFT JOIN pg_stat_replication ON pid = active_pid
      WHERE slot_name = $1`,
    { ...options, values: [slot] },
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  if (rows.length > 1) throw new DatabaseError(`there are ${rows.length} slots named ${slot}`);
  return {
    isPhysical: textColumn(row, "slot_type") === "physical",
    restartLsn: lsnOrNone(row["restart_lsn"]),
    isLost: textColumn(row, "wal_status") === "lost",
    isActive: booleanColumn(row, "active"),
    flushLsn: lsnOrNone(row["flush_lsn"]),
  };
}

function lsnOrNone(text: string | null | undefined): Lsn | undefined {
  return text === null || text === undefined ? undefined : parseLsn(text);
}
