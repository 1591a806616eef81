import type { BackupName } from "./backup-name.ts";

/** Folder of everything that PostgreSQL's archiver handed over. */
export const WAL_FOLDER = "wal_005/";

/** Folder of sentinels, and of one folder a backup. */
export const BACKUPS_FOLDER = "basebackups_005/";

/** The same for backups that bring a standby up (catchup-push). */
export const CATCH_UP_FOLDER = "catchup_005/";

/** Which cluster this repository belongs to: ours, WAL-G neither writes nor reads it. */
export const identityKey = "walnut_005/cluster.json";

/** Says that a segment was acknowledged to PostgreSQL without being stored. Ours. */
export function gapKey(segment: string): string {
  return `walnut_005/gaps/${segment}.json`;
}

/** The segment whose gap has this key; undefined for all other keys. */
export function parseGapKey(key: string): string | undefined {
  return /^walnut_005\/gaps\/([0-9A-F]{24})\.json$/.exec(key)?.[1];
}

/** Folder of all objects that only walnut has. */
export const OWN_FOLDER = "walnut_005/";

/** Folder of all gaps. */
export const GAPS_FOLDER = "walnut_005/gaps/";

/** Which server writes a timeline. Ours; see src/archive/FAILOVER.md. */
export function writerKey(timeline: number): string {
  return `walnut_005/writers/${timeline.toString(16).toUpperCase().padStart(8, "0")}.json`;
}

/** Folder of files that collided. Ours. */
export const QUARANTINE_FOLDER = "walnut_005/quarantine/";

/**
 * Prefix of what is kept of a WAL file that collided with a stored one; `sha256` is of the file.
 * The content has this key with its extension, what is known of it the same with `.json`. Ours.
 */
export function quarantineKey(name: string, sha256: string): string {
  return `${QUARANTINE_FOLDER}${name}/${sha256.slice(0, 16)}`;
}

/** The WAL file that a note in quarantine speaks of; undefined for all other keys. */
export function parseQuarantineNoteKey(key: string): string | undefined {
  return /^walnut_005\/quarantine\/([^/]+)\/[0-9a-f]{16}\.json$/.exec(key)?.[1];
}

/** A file in quarantine, without its note; undefined for all other keys. */
export function parseQuarantinedKey(key: string): WalKey | undefined {
  const match = /^walnut_005\/quarantine\/([^/]+)\/([0-9a-f]{16}(?:\.[^/]+)?)$/.exec(key);
  const [, name, file = ""] = match ?? [];
  if (name === undefined || file.endsWith(".json")) return undefined;
  return { name, extension: splitCompressed(file).extension };
}

/** Folder of our change maps: what a group of segments changed. Ours. */
export const CHANGES_FOLDER = "walnut_005/changes/";

/** `segment` is the first of the group; `extension` without dot, "" for none. */
export function changeMapKey(segment: string, extension: string): string {
  return `${CHANGES_FOLDER}${withExtension(segment, extension)}`;
}

/** The segment and extension of a change map's key; undefined for any other key. */
export function parseChangeMapKey(key: string): WalKey | undefined {
  if (!key.startsWith(CHANGES_FOLDER)) return undefined;
  const { stem, extension } = splitCompressed(key.slice(CHANGES_FOLDER.length));
  return /^[0-9A-F]{24}$/.test(stem) ? { name: stem, extension } : undefined;
}

/** Prefix of what is noted of the commits in archived WAL. Ours; see src/catalogue/INDEX.md. */
export const COMMIT_INDEX_FOLDER = "walnut_005/index/";

/** What is noted of the commits of 64 segments, the first of which is `segment`. */
export function commitIndexKey(segment: string): string {
  return `${COMMIT_INDEX_FOLDER}${segment}.json`;
}

/** What `walnut verify` proved, and when. Ours; may be deleted: then it begins anew. */
export const verifyMemoryKey = "walnut_005/verified.json";

/**
 * Extensions of compressed objects, without dot, of all releases of WAL-G and WAL-E. "" (method
 * none) is not among them. We can't read `lzo`, but have to see that `X.lzo` is named X.
 */
export const COMPRESSED_EXTENSIONS = ["lz4", "lzma", "gz", "br", "lzo", "zst"] as const;

const SENTINEL_SUFFIX = "_backup_stop_sentinel.json";
const TAR_FOLDER = "tar_partitions/";
const CONTROL_NAME = /^.*?pg_control\.tar(?:\.(.*))?$/;
const LABEL_NAME = /^.*?backup_label\.tar(?:\.(.*))?$/;
const COPY_NAME = /^copy_\d+\.tar(?:\.(.*))?$/;
const PART_NAME = /^.*\.tar(?:\.([^.]*))?$/;

function withExtension(name: string, extension: string): string {
  return extension === "" ? name : `${name}.${extension}`;
}

/** `name` is what PostgreSQL calls the file; `extension` without dot, "" for none. */
export function walKey(name: string, extension: string): string {
  return `${WAL_FOLDER}${withExtension(name, extension)}`;
}

export interface WalKey {
  /** As PostgreSQL calls the file, or what else somebody stored in the folder. */
  readonly name: string;
  /** One of COMPRESSED_EXTENSIONS, or "". */
  readonly extension: string;
}

/**
 * Takes the key of an object in the WAL folder apart; undefined for any other key and for objects
 * in sub-folders. `X.` (method none before WAL-G 3.0.9) has the name X.
 */
export function parseWalKey(key: string): WalKey | undefined {
  if (!key.startsWith(WAL_FOLDER)) return undefined;
  const rest = key.slice(WAL_FOLDER.length);
  if (rest === "" || rest.includes("/")) return undefined;
  const { stem, extension } = splitCompressed(rest);
  return { name: stem, extension };
}

function splitCompressed(name: string): { stem: string; extension: string } {
  const dot = name.lastIndexOf(".");
  if (dot <= 0) return { stem: name, extension: "" };
  const last = name.slice(dot + 1);
  const isExtension = last === "" || COMPRESSED_EXTENSIONS.some((known) => known === last);
  return isExtension
    ? { stem: name.slice(0, dot), extension: last }
    : { stem: name, extension: "" };
}

/** The object whose presence makes the backup exist. */
export function sentinelKey(backup: BackupName): string {
  return `${BACKUPS_FOLDER}${backup}${SENTINEL_SUFFIX}`;
}

/**
 * The backup whose sentinel has this key; undefined for all other keys. As in WAL-G the name ends
 * before the first `_backup`.
 */
export function parseSentinelKey(key: string): BackupName | undefined {
  if (!key.startsWith(BACKUPS_FOLDER) || !key.endsWith(SENTINEL_SUFFIX)) return undefined;
  const rest = key.slice(BACKUPS_FOLDER.length);
  if (rest.includes("/")) return undefined;
  const name = rest.slice(0, rest.indexOf("_backup"));
  return name === "" ? undefined : name;
}

/** Prefix of all objects of a backup but its sentinel. */
export function backupFolder(backup: BackupName): string {
  return `${BACKUPS_FOLDER}${backup}/`;
}

/** Short description; the only document of a backup that is rewritten later (backup-mark). */
export function metadataKey(backup: BackupName): string {
  return `${backupFolder(backup)}metadata.json`;
}

export function filesMetadataKey(backup: BackupName): string {
  return `${backupFolder(backup)}files_metadata.json`;
}

/** Our manifest: JSON lines in zstd frames, whatever the method of the parts is. */
export function manifestKey(backup: BackupName): string {
  return `${backupFolder(backup)}walnut_manifest.jsonl.zst`;
}

/** PostgreSQL's backup_manifest of a remote backup, as the server sent it. Ours. */
export function serverManifestKey(backup: BackupName): string {
  return `${backupFolder(backup)}walnut_backup_manifest.zst`;
}

/**
 * Says since when (milliseconds since 1970) a full backup is being made of a chain; `id` tells two
 * of them apart. Ours; see src/backup/MERGE.md.
 */
export function mergeClaimKey(backup: BackupName, startedMs: number, id: string): string {
  return `${backupFolder(backup)}walnut_merge-${startedMs}-${id}.json`;
}

/** When the merge began whose claim has this key below the backup's folder; undefined for others. */
export function parseMergeClaim(relativeKey: string): number | undefined {
  const match = /^walnut_merge-(\d{1,15})-[0-9a-f]{16}\.json$/.exec(relativeKey);
  return match === null ? undefined : Number(match[1]);
}

/** Below the folder of a backup on its way: what it takes to resume it. Ours; see RESUME.md. */
const RESUME_FOLDER = "walnut_resume/";

/** Prefix of what it takes to resume a backup that is interrupted. Ours. */
export function resumeFolder(backup: BackupName): string {
  return `${backupFolder(backup)}${RESUME_FOLDER}`;
}

/** What a part holds; `part` is the last component of its key. */
export function partRecordKey(backup: BackupName, part: string): string {
  return `${resumeFolder(backup)}${part}.jsonl.zst`;
}

/** Name of the part whose record has this key below the backup's folder; undefined for others. */
export function parsePartRecord(relativeKey: string): string | undefined {
  return /^walnut_resume\/([^/]+)\.jsonl\.zst$/.exec(relativeKey)?.[1];
}

/** Says who takes the backup since when (milliseconds since 1970); `id` tells two runs apart. */
export function runClaimKey(backup: BackupName, startedMs: number, id: string): string {
  return `${resumeFolder(backup)}run-${startedMs}-${id}.json`;
}

/** When the run began whose claim has this key below the backup's folder; undefined for others. */
export function parseRunClaim(relativeKey: string): number | undefined {
  const match = /^walnut_resume\/run-(\d{1,15})-[0-9a-f]{16}\.json$/.exec(relativeKey);
  return match === null ? undefined : Number(match[1]);
}

/** Prefix of the parts of a backup. */
export function tarFolder(backup: BackupName): string {
  return `${backupFolder(backup)}${TAR_FOLDER}`;
}

/** `index` counts from 1; gaps are legal. `extension` without dot, "" for none. */
export function partKey(backup: BackupName, index: number, extension: string): string {
  return `${tarFolder(backup)}${partName(index, extension)}`;
}

/** Last component of `partKey`: the name of a part in metadata and in our manifest. */
export function partName(index: number, extension: string): string {
  return withExtension(`part_${String(index).padStart(3, "0")}.tar`, extension);
}

/** Last component of the key of a part that was copied from another backup; counts from 0. */
export function copyName(index: number, extension: string): string {
  return withExtension(`copy_${index}.tar`, extension);
}

/** Holds pg_control alone, so that a restore can write it last. */
export function controlKey(backup: BackupName, extension: string): string {
  return `${tarFolder(backup)}${withExtension("pg_control.tar", extension)}`;
}

/** Holds backup_label and tablespace_map. */
export function labelKey(backup: BackupName, extension: string): string {
  return `${tarFolder(backup)}${withExtension("backup_label.tar", extension)}`;
}

export interface PartKey {
  readonly backup: BackupName;
  /** Last component of the key. */
  readonly name: string;
  readonly kind: "part" | "control" | "label" | "copy";
  /**
   * Without dot; "" where nothing is compressed, also for `x.tar.` (none before WAL-G 3.0.9) and
   * `copy_0.tar.tar` (the copy of an uncompressed part). May be one that nobody knows.
   */
  readonly extension: string;
}

/** Takes the key of a tar in a backup apart; undefined for all other keys. */
export function parsePartKey(key: string): PartKey | undefined {
  if (!key.startsWith(BACKUPS_FOLDER)) return undefined;
  const [backup, folder, name, ...deeper] = key.slice(BACKUPS_FOLDER.length).split("/");
  if (backup === undefined || backup === "" || name === undefined || deeper.length > 0) {
    return undefined;
  }
  if (`${folder}/` !== TAR_FOLDER) return undefined;
  for (const [kind, pattern] of PART_KINDS) {
    const match = pattern.exec(name);
    if (match === null) continue;
    const extension = match[1] ?? "";
    return { backup, name, kind, extension: extension === "tar" ? "" : extension };
  }
  return undefined;
}

const PART_KINDS = [
  ["control", CONTROL_NAME],
  ["label", LABEL_NAME],
  ["copy", COPY_NAME],
  ["part", PART_NAME],
] as const;
