import { RefusedError } from "../errors.ts";
import { parseServerVersion, RELEASE_RANGE, RELEASES } from "../postgres/versions.ts";
import {
  booleanColumn,
  integerColumn,
  type QueryOptions,
  type Session,
  textColumn,
} from "./session.ts";

/** What a backup has to know of a server. */
export interface ServerFacts {
  /** server_version_num: 170004. */
  readonly versionNumber: number;
  readonly majorVersion: number;
  /** As the server has it; symlinks are not resolved. */
  readonly dataDirectory: string;
  readonly systemId: bigint;
  readonly timeline: number;
  readonly walSegmentBytes: number;
  readonly blockBytes: number;
  readonly hasDataChecksums: boolean;
  /** Catalog version, which the directories in tablespaces are named by. */
  readonly catalogVersion: number;
  readonly isInRecovery: boolean;
  readonly archiveMode: "off" | "on" | "always";
  /** Whether archive_command, or from 15 on archive_library, is set. */
  readonly hasArchiver: boolean;
  /** Where statistics are kept while the server runs; before 15 only, relative to PGDATA or not. */
  readonly statsDirectory: string | undefined;
}

/** Whether the server hands its WAL to somebody; wal-receive needs no such thing. */
export function isArchivedByServer({ archiveMode, hasArchiver }: ServerFacts): boolean {
  return archiveMode !== "off" && hasArchiver;
}

const FACTS = `
  SELECT current_setting('server_version_num') AS version_number,
         current_setting('data_directory') AS data_directory,
         system.system_identifier, system.catalog_version_no,
         checkpoint.timeline_id,
         init.bytes_per_wal_segment, init.database_block_size, init.data_page_checksum_version,
         pg_is_in_recovery() AS is_in_recovery,
         current_setting('archive_mode') AS archive_mode,
         current_setting('archive_command') AS archive_command,
         coalesce(current_setting('archive_library', true), '') AS archive_library,
         coalesce(current_setting('stats_temp_directory', true), '') AS stats_directory
    FROM pg_control_system() AS system, pg_control_checkpoint() AS checkpoint,
         pg_control_init() AS init`;

/** What the server shows for archive_command while archive_mode is off. */
const DISABLED = "(disabled)";

/**
 * Asks the server. Rejects with RefusedError for a release that we can't back up, and with
 * DatabaseError when the role may not know.
 */
export async function readServerFacts(
  session: Session,
  options: QueryOptions,
): Promise<ServerFacts> {
  await requireKnownRelease(session, options);
  const row = await session.row(FACTS, options);
  const versionNumber = integerColumn(row, "version_number");
  const archiveMode = textColumn(row, "archive_mode");
  const command = textColumn(row, "archive_command");
  const library = textColumn(row, "archive_library");
  const statsDirectory = textColumn(row, "stats_directory");
  return {
    versionNumber,
    majorVersion: parseServerVersion(versionNumber).majorVersion,
    dataDirectory: textColumn(row, "data_directory"),
    systemId: BigInt.asUintN(64, BigInt(textColumn(row, "system_identifier"))),
    timeline: integerColumn(row, "timeline_id"),
    walSegmentBytes: integerColumn(row, "bytes_per_wal_segment"),
    blockBytes: integerColumn(row, "database_block_size"),
    hasDataChecksums: integerColumn(row, "data_page_checksum_version") !== 0,
    catalogVersion: integerColumn(row, "catalog_version_no"),
    isInRecovery: booleanColumn(row, "is_in_recovery"),
    archiveMode: archiveMode === "on" || archiveMode === "always" ? archiveMode : "off",
    hasArchiver: (command !== "" && command !== DISABLED) || library !== "",
    statsDirectory: statsDirectory === "" ? undefined : statsDirectory,
  };
}

/** Older releases lack the functions that the facts come from. */
async function requireKnownRelease(session: Session, options: QueryOptions): Promise<void> {
  const row = await session.row(
    `SELECT current_setting('server_version_num') AS number,
            current_setting('server_version') AS text`,
    options,
  );
  const versionNumber = integerColumn(row, "number");
  const majorVersion = Math.trunc(versionNumber / 10_000);
  if (RELEASES.some((release) => release.majorVersion === majorVersion)) return;
  throw new RefusedError(
    `PostgreSQL at ${session.address} is ${textColumn(row, "text")}; ` +
      `walnut backs up ${RELEASE_RANGE}`,
    { hint: "Upgrade the server, or look for a walnut that knows this release." },
  );
}

/** pg_stat_archiver; what never happened is undefined. */
export interface ArchiverStatistics {
  readonly archivedCount: number;
  readonly lastArchivedWal: string | undefined;
  readonly failedCount: number;
  readonly lastFailedWal: string | undefined;
  /** As the server writes it, with its zone: for people. */
  readonly lastFailedAt: string | undefined;
}

/** How the server's archiver fared since its statistics were reset. */
export async function readArchiverStatistics(
  session: Session,
  options: QueryOptions,
): Promise<ArchiverStatistics> {
  const row = await session.row(
    `SELECT archived_count, last_archived_wal, failed_count, last_failed_wal, last_failed_time
       FROM pg_stat_archiver`,
    options,
  );
  return {
    archivedCount: integerColumn(row, "archived_count"),
    lastArchivedWal: row["last_archived_wal"] ?? undefined,
    failedCount: integerColumn(row, "failed_count"),
    lastFailedWal: row["last_failed_wal"] ?? undefined,
    lastFailedAt: row["last_failed_time"] ?? undefined,
  };
}

/** Sum of the sizes of all tablespaces; undefined when the role may not know. */
export async function estimateClusterBytes(
  session: Session,
  options: QueryOptions,
): Promise<number | undefined> {
  const rows = await session.query(
    `SELECT sum(pg_tablespace_size(oid))::bigint AS bytes FROM pg_tablespace
      WHERE has_tablespace_privilege(oid, 'CREATE')
         OR pg_has_role('pg_read_all_stats', 'USAGE')
     HAVING count(*) = (SELECT count(*) FROM pg_tablespace)`,
    options,
  );
  const [row] = rows;
  return row === undefined ? undefined : integerColumn(row, "bytes");
}
