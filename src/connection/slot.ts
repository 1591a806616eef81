import { DatabaseError } from "../errors.ts";
import { type Lsn, parseLsn } from "../postgres/lsn.ts";
import { type QueryOptions, type Session, textColumn } from "./session.ts";

/** A replication slot as pg_replication_slots shows it. */
export interface SlotRow {
  readonly isPhysical: boolean;
  /**
   * The server keeps WAL from here on; undefined: none was reserved, or the slot was invalidated.
   */
  readonly restartLsn: Lsn | undefined;
  /** The server has removed WAL that the slot needs. */
  readonly isLost: boolean;
}

/** Undefined if there is no such slot. */
export async function readSlotRow(
  session: Session,
  slot: string,
  options: QueryOptions,
): Promise<SlotRow | undefined> {
  const rows = await session.query(
    `SELECT slot_type, restart_lsn, coalesce(wal_status, '') AS wal_status
       FROM pg_replication_slots WHERE slot_name = $1`,
    { ...options, values: [slot] },
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  if (rows.length > 1) throw new DatabaseError(`there are ${rows.length} slots named ${slot}`);
  const restart = row["restart_lsn"] ?? undefined;
  return {
    isPhysical: textColumn(row, "slot_type") === "physical",
    restartLsn: restart === undefined ? undefined : parseLsn(restart),
    isLost: textColumn(row, "wal_status") === "lost",
  };
}
