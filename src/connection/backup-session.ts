import { DatabaseError, RefusedError } from "../errors.ts";
import { type Lsn, parseLsn } from "../postgres/lsn.ts";
import { formatSegmentName, segmentNumberOf } from "../postgres/wal-file.ts";
import {
  booleanColumn,
  integerColumn,
  type QueryOptions,
  type Row,
  type Session,
  textColumn,
} from "./session.ts";

/** Where a backup starts. */
export interface BackupStart {
  readonly startLsn: Lsn;
  /** 24 digits: what the backup is named by. */
  readonly segment: string;
}

/** Where it ends, and the two files that belong into it. */
export interface BackupStop {
  /** End of the last record that a restore must replay. */
  readonly stopLsn: Lsn;
  readonly backupLabel: string;
  /** "" when there are no tablespaces. */
  readonly tablespaceMap: string;
}

interface BackupFunctions {
  readonly since: number;
  readonly start: string;
  readonly stop: string;
}

/**
 * The non-exclusive calls, with a fast checkpoint and without waiting for the archiver: we wait
 * ourselves, for the repository. Newest first.
 */
const FUNCTIONS: readonly BackupFunctions[] = [
  { since: 15, start: "pg_backup_start($1, true)", stop: "pg_backup_stop(false)" },
  { since: 13, start: "pg_start_backup($1, true, false)", stop: "pg_stop_backup(false, false)" },
];

/** "WALN", and 1 for backups. */
const LOCK_KEYS = "1463897166, 1";
const LOCK_FILTER =
  "locktype = 'advisory' AND classid = 1463897166 AND objid = 1 AND objsubid = 2 AND granted";

/**
 * Lets this session be the one that takes a backup of the cluster; until it ends. Rejects with
 * RefusedError, which names the other session, when there is one.
 */
export async function lockBackup(session: Session, options: QueryOptions): Promise<void> {
  const row = await session.row(`SELECT pg_try_advisory_lock(${LOCK_KEYS}) AS is_mine`, options);
  // Advisory locks count in one database; pg_locks shows those of all.
  const [other] = await session.query(
    `SELECT pid, usename, datname, application_name, client_addr, backend_start
       FROM pg_locks JOIN pg_stat_activity USING (pid)
      WHERE ${LOCK_FILTER} AND pid <> pg_backend_pid()
      ORDER BY pid LIMIT 1`,
    options,
  );
  if (other === undefined && booleanColumn(row, "is_mine")) return;
  throw new RefusedError(`another backup of this cluster is running: ${describeSession(other)}`, {
    hint:
      "Wait until it is done. If it hangs, end it: its process, or its session by " +
      "SELECT pg_terminate_backend(<process>).",
  });
}

/**
 * Describes another session that takes a backup, as far as it can be seen: ours by their lock,
 * pg_basebackup's by its progress, those of other tools by their last words.
 */
export async function findOtherBackup(
  session: Session,
  options: QueryOptions,
): Promise<string | undefined> {
  const [other] = await session.query(
    `SELECT pid, usename, datname, application_name, client_addr, backend_start
       FROM pg_stat_activity
      WHERE pid <> pg_backend_pid()
        AND (pid IN (SELECT pid FROM pg_locks WHERE ${LOCK_FILTER})
          OR pid IN (SELECT pid FROM pg_stat_progress_basebackup)
          OR query ~* 'pg_(backup_start|start_backup)')
      ORDER BY pid LIMIT 1`,
    options,
  );
  return other === undefined ? undefined : describeSession(other);
}

function describeSession(other: Row | undefined): string {
  if (other === undefined) return "its session has just ended";
  const { pid, usename, datname, application_name: application, client_addr: address } = other;
  const from = address === null ? "a local socket" : address;
  return (
    `server process ${pid}, role ${usename}, database ${datname}, application ${application}, ` +
    `from ${from}, since ${other["backend_start"]}`
  );
}

/**
 * Begins a backup; it ends with `stopBackup`, or is dropped by the server when the session ends.
 * Takes as long as a checkpoint. `label` is for people only.
 *
 * @source pg_backup_start, src/backend/access/transam/xlogfuncs.c
 */
export async function startBackup(
  session: Session,
  { majorVersion, label }: { readonly majorVersion: number; readonly label: string },
  options: QueryOptions,
): Promise<BackupStart> {
  const { start } = functionsOf(majorVersion);
  const row = await session.row(
    `SELECT lsn, pg_walfile_name(lsn) AS segment FROM ${start} AS lsn`,
    { ...options, values: [label] },
  );
  return { startLsn: parseLsn(textColumn(row, "lsn")), segment: textColumn(row, "segment") };
}

/** Where the backup of a standby starts. */
export interface StandbyStart extends BackupStart {
  /** Up to where the standby has replayed, right after the start. */
  readonly replayLsn: Lsn;
}

/**
 * The same on a standby, where it begins at the last restartpoint. It can't name segments: the
 * timeline is that of the restartpoint, which backup_label confirms at the end.
 *
 * @source do_pg_backup_start, src/backend/access/transam/xlog.c
 */
export async function startStandbyBackup(
  session: Session,
  server: {
    readonly majorVersion: number;
    readonly segmentBytes: number;
    /** For people only. */
    readonly label: string;
  },
  options: QueryOptions,
): Promise<StandbyStart> {
  const { start } = functionsOf(server.majorVersion);
  const started = await session.row(`SELECT lsn FROM ${start} AS lsn`, {
    ...options,
    values: [server.label],
  });
  const row = await session.row(
    `SELECT timeline_id, pg_last_wal_replay_lsn() AS replayed FROM pg_control_checkpoint()`,
    options,
  );
  const startLsn = parseLsn(textColumn(started, "lsn"));
  const number = segmentNumberOf(startLsn, server.segmentBytes);
  const segment = formatSegmentName(integerColumn(row, "timeline_id"), number, server.segmentBytes);
  return { startLsn, segment, replayLsn: parseLsn(textColumn(row, "replayed")) };
}

/** Up to where a standby has replayed. */
export async function readReplayPosition(session: Session, options: QueryOptions): Promise<Lsn> {
  const row = await session.row("SELECT pg_last_wal_replay_lsn() AS replayed", options);
  return parseLsn(textColumn(row, "replayed"));
}

/** The timeline on which the backup of a standby ended; right after its stop. */
export async function readStandbyEnd(session: Session, options: QueryOptions): Promise<number> {
  const row = await session.row(
    "SELECT min_recovery_end_timeline FROM pg_control_recovery()",
    options,
  );
  return integerColumn(row, "min_recovery_end_timeline");
}

/**
 * Redo position of a standby's last restartpoint: a backup that it starts now begins there or
 * later.
 */
export async function readRestartpoint(session: Session, options: QueryOptions): Promise<Lsn> {
  const row = await session.row("SELECT redo_lsn FROM pg_control_checkpoint()", options);
  return parseLsn(textColumn(row, "redo_lsn"));
}

/** Ends the backup of this session and has the server switch to a new segment. */
export async function stopBackup(
  session: Session,
  { majorVersion }: { readonly majorVersion: number },
  options: QueryOptions,
): Promise<BackupStop> {
  const { stop } = functionsOf(majorVersion);
  const row = await session.row(`SELECT lsn, labelfile, spcmapfile FROM ${stop}`, options);
  return {
    stopLsn: parseLsn(textColumn(row, "lsn")),
    backupLabel: textColumn(row, "labelfile"),
    tablespaceMap: row["spcmapfile"] ?? "",
  };
}

function functionsOf(majorVersion: number): BackupFunctions {
  const functions = FUNCTIONS.find(({ since }) => majorVersion >= since);
  if (functions !== undefined) return functions;
  throw new DatabaseError(`PostgreSQL ${majorVersion} has no backup functions that we know`);
}

/**
 * Writes a WAL record without effect, so that the next switch of segments has something to switch.
 * Gives the end of the record.
 */
export async function writeWalMessage(session: Session, options: QueryOptions): Promise<Lsn> {
  const row = await session.row(
    "SELECT pg_logical_emit_message(false, 'walnut', 'archive check') AS lsn",
    options,
  );
  return parseLsn(textColumn(row, "lsn"));
}

/**
 * Has the server keep its WAL from now on until the session ends, in a slot that goes away with it.
 * Rejects with DatabaseError where there is no slot left, or the role may not have one.
 */
export async function keepWal(session: Session, options: QueryOptions): Promise<void> {
  await session.query(
    `SELECT pg_create_physical_replication_slot('walnut_' || pg_backend_pid(), true, true)`,
    options,
  );
}
