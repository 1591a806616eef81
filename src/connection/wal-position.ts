import { type Lsn, parseLsn } from "../postgres/lsn.ts";
import { integerColumn, type QueryOptions, type Session, textColumn } from "./session.ts";

/** Where a server stands in its WAL. */
export interface WalPosition {
  readonly timeline: number;
  /** Written by a primary, received by a standby. */
  readonly lsn: Lsn;
}

/** Asks a primary what it has written, a standby what it has received or, without that, replayed. */
export async function readWalPosition(
  session: Session,
  options: QueryOptions,
): Promise<WalPosition> {
  const row = await session.row(
    `SELECT CASE WHEN pg_is_in_recovery()
                 THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                 ELSE pg_current_wal_lsn() END AS lsn,
            CASE WHEN pg_is_in_recovery()
                 THEN (SELECT timeline_id FROM pg_control_checkpoint())
                 ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
            END AS timeline`,
    options,
  );
  return { timeline: integerColumn(row, "timeline"), lsn: parseLsn(textColumn(row, "lsn")) };
}
