import { type Lsn, parseLsn } from "../postgres/lsn.ts";
import {
  booleanColumn,
  integerColumn,
  type QueryOptions,
  type Session,
  textColumn,
} from "./session.ts";

/** Where a server stands in its WAL. */
export interface WalPosition {
  /** Of which cluster. */
  readonly systemId: bigint;
  readonly timeline: number;
  /** Written by a primary, received by a standby. */
  readonly lsn: Lsn;
}

/**
 * Asks a primary what it has written, a standby what it has received or, without that, replayed.
 */
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
            END AS timeline,
            (SELECT system_identifier FROM pg_control_system()) AS system_identifier`,
    options,
  );
  return {
    // A signed bigint there, an unsigned one everywhere else.
    systemId: BigInt.asUintN(64, BigInt(textColumn(row, "system_identifier"))),
    timeline: integerColumn(row, "timeline"),
    lsn: parseLsn(textColumn(row, "lsn")),
  };
}

/** How the server's archiver fares. */
export interface ArchiverHealth {
  readonly isArchiving: boolean;
  /** Whether its last attempt failed. */
  readonly isFailing: boolean;
  readonly lastFailedWal: string | undefined;
  /** As the server writes it, with its zone: for people. */
  readonly lastFailedAt: string | undefined;
}

/** Asks the server whether it archives, and whether the last attempt to do so failed. */
export async function readArchiverHealth(
  session: Session,
  options: QueryOptions,
): Promise<ArchiverHealth> {
  const row = await session.row(
    `SELECT current_setting('archive_mode') <> 'off'
            AND (current_setting('archive_command') NOT IN ('', '(disabled)')
                 OR coalesce(current_setting('archive_library', true), '') <> '') AS is_archiving,
            coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)
            AS is_failing,
            last_failed_wal, last_failed_time
       FROM pg_stat_archiver`,
    options,
  );
  return {
    isArchiving: booleanColumn(row, "is_archiving"),
    isFailing: booleanColumn(row, "is_failing"),
    lastFailedWal: row["last_failed_wal"] ?? undefined,
    lastFailedAt: row["last_failed_time"] ?? undefined,
  };
}
