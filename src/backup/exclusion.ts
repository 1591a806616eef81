import { isRebuiltByRecovery, parseRelationPath } from "../postgres/relation-file.ts";

/**
 * What becomes of something in the data directory: "keep" it; "empty": a directory without its
 * content; "skip" it altogether.
 */
export type Fate = "keep" | "empty" | "skip";

/** Directories in the data directory whose content does not belong into a backup. */
const EMPTIED: ReadonlySet<string> = new Set([
  "pg_wal",
  "pg_dynshmem",
  "pg_notify",
  "pg_replslot",
  "pg_serial",
  "pg_snapshots",
  "pg_stat_tmp",
  "pg_subtrans",
  // As WAL-G: logs are no data.
  "log",
  "pg_log",
  "pg_xlog",
]);

/**
 * Files in the data directory that a restored server must not find: those of the running server, of
 * an earlier backup or restore, and what would start a recovery of another kind.
 */
const SKIPPED: ReadonlySet<string> = new Set([
  "postmaster.pid",
  "postmaster.opts",
  "postgresql.auto.conf.tmp",
  "current_logfiles.tmp",
  "backup_label",
  "backup_label.old",
  "tablespace_map",
  "tablespace_map.old",
  "backup_manifest",
  "backup_manifest.tmp",
  "standby.signal",
  "recovery.signal",
  "recovery.conf",
  "global/pg_control.walnut",
  "walnut_catchup",
  "walnut_catchup.tmp",
]);

/** Read last, into an object of its own. */
export const CONTROL_FILE = "global/pg_control";

/** Names that begin like this are temporary, wherever they are. */
const TEMPORARY_PREFIXES = ["pgsql_tmp", "pg_internal.init"] as const;

export interface ExclusionOptions {
  /** Further directories to be emptied, relative to the data directory. */
  readonly emptied?: ReadonlySet<string>;
}

/**
 * Decides by the path relative to the data directory, with "/"; what lies in a tablespace has the
 * path "pg_tblspc/<oid>/...". What is below an emptied or skipped directory is not asked for.
 * `unlogged` holds the keys of the unlogged relations in the same directory.
 *
 * @source excludeDirContents, excludeFiles and sendDir, src/backend/backup/basebackup.c
 */
export function fateOf(
  path: string,
  unlogged: ReadonlySet<string>,
  { emptied }: ExclusionOptions = {},
): Fate {
  if (EMPTIED.has(path) || emptied?.has(path) === true) return "empty";
  if (SKIPPED.has(path)) return "skip";
  const name = path.slice(path.lastIndexOf("/") + 1);
  if (TEMPORARY_PREFIXES.some((prefix) => name.startsWith(prefix))) return "skip";
  const relation = parseRelationPath(path);
  return relation !== undefined && isRebuiltByRecovery(relation, unlogged) ? "skip" : "keep";
}

/**
 * Directories that have to be in an emptied one, by the major version: the server makes them
 * itself, but not every release does.
 *
 * @source sendDir, src/backend/backup/basebackup.c ("pg_wal/archive_status", "pg_wal/summaries")
 */
export function neededInEmptied(path: string, majorVersion: number): readonly string[] {
  if (path !== "pg_wal") return [];
  return majorVersion >= 17 ? ["archive_status", "summaries"] : ["archive_status"];
}

/** PostgreSQL's own directories: a symbolic link in them is followed, for it leads to data. */
const DATA_DIRECTORY = /^(?:base|global|pg_[a-z_]+)(?:\/|$)/;

/** Whether what a symbolic link at this path leads to is data of the cluster. */
export function isClusterData(path: string): boolean {
  return DATA_DIRECTORY.test(path);
}
