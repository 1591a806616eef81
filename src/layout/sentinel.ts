import { FormatError } from "../errors.ts";
import { type BackupName, isIncrementName } from "./backup-name.ts";
import { Fields } from "./fields.ts";
import { formatJson, parseJson } from "./json.ts";
import { type JsonObject, jsonObject, type JsonValue } from "./json-value.ts";
import {
  formatTablespaceSpec,
  parseTablespaceSpec,
  type TablespaceSpec,
} from "./tablespace-spec.ts";
import { formatTimeUtc, type TimeNs } from "./time.ts";

/**
 * Decorative constant of the documents that hold times: how a reader in Python would parse them.
 */
export const DATE_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ";

/** How an increment refers to the backups that it needs. */
export interface IncrementBase {
  /** Start of the direct base; absent in sentinels before WAL-G 0.3. */
  readonly startLsn?: bigint | undefined;
  /** Direct base; "" for a catch-up backup, which has none. */
  readonly name: BackupName;
  /** Root of the chain: a full backup. */
  readonly fullName?: BackupName | undefined;
  /** Steps from the full backup: 1 for the first increment. */
  readonly stepCount?: number | undefined;
}

/** What only we record of a backup; WAL-G passes over it. */
export interface OwnRecord {
  /** How the changed blocks of an increment were found, in words: "page LSNs". */
  readonly changeSource?: string | undefined;
  /** Whether the checksum of every page that was read was verified; absent = nobody looked. */
  readonly isPagesVerified?: boolean | undefined;
  /** Whether it came over the replication protocol; absent = not. */
  readonly isRemote?: boolean | undefined;
  /** Pages of the cluster that were found damaged; absent = none, or nobody looked. */
  readonly corruptPages?: number | undefined;
  /** XXH64 of files_metadata.json, 16 hex digits: nothing else vouches for it. */
  readonly filesMetadataHash?: string | undefined;
  /** The same of our manifest as stored: what compresses it may write a content in several ways. */
  readonly manifestHash?: string | undefined;
  /** Of a full backup that was put together: the newest backup of the chain. */
  readonly mergedFrom?: BackupName | undefined;
  /** Whether it has the name of an earlier try, before its start; absent = not. */
  readonly isResumed?: boolean | undefined;
  /** Of the whole text, as sumSentinel gives it; absent = nothing vouches for its other numbers. */
  readonly sum?: string | undefined;
}

/**
 * The object whose presence makes a backup exist. What is absent was absent in the text: WAL-E and
 * old releases of WAL-G leave most of it out. LSNs are positions in bytes.
 */
export interface Sentinel {
  readonly startLsn?: bigint | undefined;
  /** Absent for a full backup. */
  readonly base?: IncrementBase | undefined;
  /** server_version_num: 170004. */
  readonly pgVersion?: number | undefined;
  readonly finishLsn?: bigint | undefined;
  readonly systemId?: bigint | undefined;
  /** Content of all files, increments as stored; no headers. */
  readonly uncompressedBytes?: number | undefined;
  /** All tar objects as stored. */
  readonly compressedBytes?: number | undefined;
  /** Sum of the sizes of all that was visited, also of what was left out. */
  readonly dataCatalogBytes?: number | undefined;
  /** Absent when there are no tablespaces, except in remote backups. */
  readonly spec?: TablespaceSpec | undefined;
  /** Any JSON, the user's own words. */
  readonly userData?: JsonValue | undefined;
  readonly isFilesMetadataDisabled: boolean;
  /** OrioleDB's checkpoint. */
  readonly checkpointNumber?: number | undefined;
  readonly baseCheckpointNumber?: number | undefined;
  /** 2; 1 and absent before WAL-G 0.3. */
  readonly version?: number | undefined;
  readonly startTimeNs?: TimeNs | undefined;
  readonly finishTimeNs?: TimeNs | undefined;
  readonly hostname?: string | undefined;
  /** The server's data directory with symlinks resolved. */
  readonly dataDirectory?: string | undefined;
  /** As it was when the backup was made: metadata.json holds what counts. */
  readonly isPermanent: boolean;
  /** Files, TarFileSets and DatabasesByNames of a version 1 sentinel, as in files_metadata.json. */
  readonly embeddedFilesMetadata?: JsonObject | undefined;
  readonly own?: OwnRecord | undefined;
}

/** Text of a version 2 sentinel: the bytes that WAL-G would write for these values. */
export function formatSentinel(sentinel: Sentinel): string {
  const { base } = sentinel;
  const object = jsonObject([
    ["LSN", sentinel.startLsn ?? null],
    ["DeltaLSN", base?.startLsn],
    ["DeltaFrom", base?.name],
    ["DeltaFullName", base?.fullName],
    ["DeltaCount", integer(base?.stepCount)],
    ["PgVersion", integer(sentinel.pgVersion ?? 0)],
    ["FinishLSN", sentinel.finishLsn ?? null],
    ["SystemIdentifier", sentinel.systemId],
    ["UncompressedSize", integer(sentinel.uncompressedBytes ?? 0)],
    ["CompressedSize", integer(sentinel.compressedBytes ?? 0)],
    ["DataCatalogSize", integer(sentinel.dataCatalogBytes || undefined)],
    ["Spec", sentinel.spec === undefined ? undefined : formatTablespaceSpec(sentinel.spec)],
    ["UserData", sentinel.userData],
    ["FilesMetadataDisabled", sentinel.isFilesMetadataDisabled || undefined],
    ["ChkpNum", integer(sentinel.checkpointNumber) ?? null],
    ["DeltaChkpNum", integer(sentinel.baseCheckpointNumber)],
    ["Version", 2n],
    ["StartTime", time(sentinel.startTimeNs)],
    ["FinishTime", time(sentinel.finishTimeNs)],
    ["DateFmt", DATE_FORMAT],
    ["Hostname", sentinel.hostname ?? ""],
    ["DataDir", sentinel.dataDirectory ?? ""],
    ["IsPermanent", sentinel.isPermanent],
    ["Walnut", formatOwn(sentinel.own)],
  ]);
  return formatJson(object, { escape: "go" });
}

/**
 * The same with the sum that it must have: of its text with sixteen zeros in the place of the sum.
 * `digestOf` gives the XXH64 of bytes as 16 hex digits.
 */
export function sumSentinel(sentinel: Sentinel, digestOf: (bytes: Uint8Array) => string): Sentinel {
  const withSum = (sum: string) => ({ ...sentinel, own: { ...sentinel.own, sum } });
  return withSum(digestOf(Buffer.from(formatSentinel(withSum("0".repeat(16))))));
}

function formatOwn(own: OwnRecord | undefined): JsonObject | undefined {
  const object = jsonObject([
    ["changes", own?.changeSource],
    ["pages_verified", own?.isPagesVerified],
    ["corrupt_pages", integer(own?.corruptPages)],
    ["remote", own?.isRemote],
    ["files_metadata_xxh64", own?.filesMetadataHash],
    ["manifest_xxh64", own?.manifestHash],
    ["merged_from", own?.mergedFrom],
    ["resumed", own?.isResumed],
    ["xxh64", own?.sum],
  ]);
  return object.size === 0 ? undefined : object;
}

function parseOwn(fields: Fields): OwnRecord | undefined {
  const value = fields.object("Walnut");
  if (value === undefined) return undefined;
  const own = new Fields("Walnut in a sentinel", value);
  return {
    changeSource: own.string("changes"),
    isPagesVerified: own.boolean("pages_verified"),
    corruptPages: own.integer("corrupt_pages"),
    isRemote: own.boolean("remote"),
    filesMetadataHash: own.string("files_metadata_xxh64"),
    manifestHash: own.string("manifest_xxh64"),
    mergedFrom: own.string("merged_from"),
    isResumed: own.boolean("resumed"),
    sum: own.string("xxh64"),
  };
}

function integer(value: number | undefined): bigint | undefined {
  return value === undefined ? undefined : BigInt(value);
}

function time(value: TimeNs | undefined): string {
  return value === undefined ? "0001-01-01T00:00:00Z" : formatTimeUtc(value);
}

/**
 * Reads what WAL-G of any release, WAL-E and we wrote: names in any case, unknown names ignored.
 * Throws FormatError, with the backup's name, where a value has the wrong type, and where an
 * increment's names no base: taken for a full backup it would be restored without its base, which
 * retention would remove.
 */
export function parseSentinel(backup: BackupName, text: string): Sentinel {
  const fields = new Fields(`sentinel of ${backup}`, parseJson(text));
  const spec = fields.object("Spec");
  const own = parseOwn(fields);
  const base = parseBase(fields);
  if (base === undefined && isIncrementName(backup)) {
    throw new FormatError(
      `sentinel of ${backup} names no base (DeltaFrom), as an increment's must`,
    );
  }
  return {
    startLsn: fields.uint64("LSN"),
    base,
    pgVersion: fields.integer("PgVersion"),
    finishLsn: fields.uint64("FinishLSN"),
    systemId: fields.uint64("SystemIdentifier"),
    uncompressedBytes: fields.integer("UncompressedSize"),
    compressedBytes: fields.integer("CompressedSize"),
    dataCatalogBytes: fields.integer("DataCatalogSize"),
    spec: spec === undefined ? undefined : parseTablespaceSpec(spec),
    userData: fields.value("UserData"),
    isFilesMetadataDisabled: fields.boolean("FilesMetadataDisabled") ?? false,
    checkpointNumber: fields.integer("ChkpNum"),
    baseCheckpointNumber: fields.integer("DeltaChkpNum"),
    version: fields.integer("Version"),
    startTimeNs: fields.time("StartTime"),
    finishTimeNs: fields.time("FinishTime"),
    hostname: fields.string("Hostname"),
    dataDirectory: fields.string("DataDir"),
    isPermanent: fields.boolean("IsPermanent") ?? false,
    embeddedFilesMetadata: parseEmbedded(fields),
    ...(own === undefined ? {} : { own }),
  };
}

function parseBase(fields: Fields): IncrementBase | undefined {
  const name = fields.string("DeltaFrom");
  if (name === undefined) return undefined;
  return {
    startLsn: fields.uint64("DeltaLSN") ?? fields.uint64("DeltaFromLSN"),
    name,
    fullName: fields.string("DeltaFullName"),
    stepCount: fields.integer("DeltaCount"),
  };
}

function parseEmbedded(fields: Fields): JsonObject | undefined {
  const names = ["Files", "TarFileSets", "DatabasesByNames"] as const;
  const members = names.map((name) => [name, fields.object(name)] as const);
  const embedded = jsonObject(members);
  return embedded.size === 0 ? undefined : embedded;
}
