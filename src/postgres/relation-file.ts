/**
 * Which of a relation's files: data, free space map, visibility map, empty copy of an unlogged one.
 */
export type RelationFork = "main" | "fsm" | "vm" | "init";

/** What the name of a file in a database's directory tells. */
export interface RelationFileName {
  readonly relfilenode: number;
  readonly fork: RelationFork;
  /** 0 for the file without a suffix; segment k begins with block k * relationSegmentBlocks. */
  readonly relationSegment: number;
  /** "t3_16384": belongs to one session and is removed at the next start. */
  readonly isTemporary: boolean;
}

/** A relation file with its place in the cluster. */
export interface RelationFile extends RelationFileName {
  readonly tablespaceOid: number;
  /** 0 for what all databases share. */
  readonly databaseOid: number;
}

/** @source src/include/catalog/pg_tablespace.dat */
export const DEFAULT_TABLESPACE_OID = 1663;
export const GLOBAL_TABLESPACE_OID = 1664;

const OID_MAX = 0xffff_ffff;
const FILE_NAME =
  /^(?:(t)[0-9]{1,10}_)?([1-9][0-9]{0,9})(?:_(fsm|vm|init))?(?:\.([1-9][0-9]{0,9}))?$/;
const DIRECTORY =
  /^(?:(global)|base\/([1-9][0-9]{0,9})|pg_tblspc\/([1-9][0-9]{0,9})\/PG_[0-9]+_[0-9]+\/([1-9][0-9]{0,9}))\/([^/]+)$/;

/**
 * Reads a relation file's name without its directory: "16384", "16384_vm", "16384.1", "t3_16384".
 * Undefined for every other file (pg_control, PG_VERSION, pg_internal.init, ...).
 *
 * @source parse_filename_for_nontemp_relation, src/backend/storage/file/reinit.c;
 *   looks_like_temp_rel_name, src/backend/storage/file/fd.c
 */
export function parseRelationFileName(name: string): RelationFileName | undefined {
  const match = FILE_NAME.exec(name);
  if (match === null) return undefined;
  const [, temporary, relfilenode, fork, relationSegment = "0"] = match;
  if (Number(relfilenode) > OID_MAX) return undefined;
  return {
    relfilenode: Number(relfilenode),
    fork: fork === "fsm" || fork === "vm" || fork === "init" ? fork : "main",
    relationSegment: Number(relationSegment),
    isTemporary: temporary !== undefined,
  };
}

/**
 * Writes the name back. The session's number, which we do not keep, is needed for temporary ones.
 */
export function formatRelationFileName(file: Omit<RelationFileName, "isTemporary">): string {
  const fork = file.fork === "main" ? "" : `_${file.fork}`;
  const segment = file.relationSegment === 0 ? "" : `.${file.relationSegment}`;
  return `${file.relfilenode}${fork}${segment}`;
}

/**
 * Reads a path relative to the data directory, with "/": "base/5/16384_vm", "global/1262",
 * "pg_tblspc/16390/PG_15_202209061/5/16384.1". Undefined for every other path.
 *
 * @source GetRelationPath, src/common/relpath.c
 */
export function parseRelationPath(path: string): RelationFile | undefined {
  const match = DIRECTORY.exec(path);
  if (match === null) return undefined;
  const [, global, baseDatabase, tablespace, tablespaceDatabase, name = ""] = match;
  const file = parseRelationFileName(name);
  if (file === undefined) return undefined;
  if (global !== undefined) {
    return { tablespaceOid: GLOBAL_TABLESPACE_OID, databaseOid: 0, ...file };
  }
  if (baseDatabase !== undefined) {
    return { tablespaceOid: DEFAULT_TABLESPACE_OID, databaseOid: Number(baseDatabase), ...file };
  }
  return { tablespaceOid: Number(tablespace), databaseOid: Number(tablespaceDatabase), ...file };
}

/**
 * Equal for all files of one relation: "1663/5/16384". Temporary relations have none of their own.
 */
export function relationKey(file: RelationFile): string {
  return `${file.tablespaceOid}/${file.databaseOid}/${file.relfilenode}`;
}

/**
 * The keys of the unlogged relations among `files`: those with an init fork. Recovery removes their
 * other forks and copies the init fork over the main one, so that a backup needs only that.
 *
 * @source ResetUnloggedRelationsInDbspaceDir, src/backend/storage/file/reinit.c
 */
export function unloggedRelations(files: Iterable<RelationFile>): Set<string> {
  const keys = new Set<string>();
  for (const file of files) {
    if (file.fork === "init" && !file.isTemporary) keys.add(relationKey(file));
  }
  return keys;
}

/** Whether recovery throws this file away: a temporary relation, or an unlogged one's data. */
export function isRebuiltByRecovery(file: RelationFile, unlogged: ReadonlySet<string>): boolean {
  return file.isTemporary || (file.fork !== "init" && unlogged.has(relationKey(file)));
}
