import { type CatalogueEntry, readCatalogueEntry, requireAccess } from "../backup/catalogue.ts";
import { both, orderedJobs } from "../io/ordered.ts";
import {
  type BackupName,
  isBackupName,
  isIncrementName,
  parseBackupName,
} from "../layout/backup-name.ts";
import type { JsonValue } from "../layout/json-value.ts";
import {
  BACKUPS_FOLDER,
  OWN_FOLDER,
  parseSentinelKey,
  parseWalKey,
  WAL_FOLDER,
} from "../layout/keys.ts";
import type { TimeNs } from "../layout/time.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import type { CallOptions, ObjectInfo, ObjectKey, Storage } from "../storage/storage.ts";
import { type BackupFolder, BackupFolders } from "./backup-folders.ts";
import { withEndTimelines } from "./end-timeline.ts";
import { readStoredHistories, type StoredHistory } from "./histories.ts";
import { readSegmentSize, sizeOfNames } from "./segment-size.ts";
import { sizeOfWalE } from "./wal-e-size.ts";
import { WalObjects } from "./wal-objects.ts";

/** A backup that exists, with what decides about it. Its object's time is not among that. */
export interface CatalogueBackup {
  readonly name: BackupName;
  /** Where its name says that it began; `high` and `low` as in the name of a segment. */
  readonly timeline: number;
  readonly high: number;
  readonly low: number;
  /** Where it ended, if not on `timeline`: a standby's that followed its primary meanwhile. */
  readonly endTimeline?: number | undefined;
  readonly startLsn?: bigint | undefined;
  /** End of the last record that a restore must replay. */
  readonly finishLsn?: bigint | undefined;
  /** As it recorded them itself; absent for WAL-E's. */
  readonly startTimeNs?: TimeNs | undefined;
  readonly finishTimeNs?: TimeNs | undefined;
  /** Direct base; absent for a full backup, "" for a catch-up backup, which has none either. */
  readonly baseName?: BackupName | undefined;
  /** What counts: metadata.json, else the sentinel. True, too, where the first can't be read. */
  readonly isPermanent: boolean;
  readonly systemId?: bigint | undefined;
  readonly pgVersion?: number | undefined;
  readonly userData?: JsonValue | undefined;
  readonly compressedBytes?: number | undefined;
  readonly uncompressedBytes?: number | undefined;
  /** Whether its name is that of an earlier try, and tells less than its start. */
  readonly isResumed?: boolean | undefined;
  /** Pages that were found damaged when it was taken; absent = none, or nobody looked. */
  readonly corruptPages?: number | undefined;
  /** Whether its sentinel could be read: if not, little of the above is known. */
  readonly isReadable: boolean;
  /** What could not be read, and why. */
  readonly problems: readonly string[];
  /** Objects beside its sentinel; absent if there are none. */
  readonly folder?: BackupFolder | undefined;
}

/** A folder without sentinel: a backup on its way, or what is left of one. */
export interface UnfinishedBackup {
  readonly name: BackupName;
  readonly timeline: number;
  readonly high: number;
  readonly low: number;
  /** Increments: second and last eight digits of the segment in which their base began. */
  readonly baseSegment?: string | undefined;
  readonly folder: BackupFolder;
}

/** Everything that a repository holds, as one listing of it showed. */
export interface Catalogue {
  readonly storageName: string;
  /** By timeline, position and name. */
  readonly backups: readonly CatalogueBackup[];
  readonly unfinished: readonly UnfinishedBackup[];
  readonly wal: WalObjects;
  /** Size of a WAL segment; "mixed" if backups of several sizes lie here, undefined if unknown. */
  readonly segmentBytes: number | "mixed" | undefined;
  readonly histories: readonly StoredHistory[];
  /** Our own objects below walnut_005/, in their order. */
  readonly ownKeys: readonly ObjectKey[];
  /** Objects of WAL-G that no segment's 24 digits begin: its notes of 16 segments ("<23>.json"). */
  readonly noteKeys: readonly ObjectKey[];
  /** Objects in our folders that nobody knows. */
  readonly unknownKeys: readonly ObjectKey[];
}

/** Documents of backups that are read at the same time: small ones, so that latency counts. */
const READ_JOBS = 32;
const GROUP_NOTE = /^[0-9A-F]{23}\.json$/;

/**
 * Lists a repository once and reads the documents of its backups and all its histories. Rejects
 * with DamagedError only for what can't be passed over; what else is wrong stands in `problems`.
 */
export async function readCatalogue(storage: Storage, options: CallOptions): Promise<Catalogue> {
  // WAL last: it is there before the backups that need it.
  const listed = await listBackupsFolder(storage, options);
  const ownKeys: ObjectKey[] = [];
  for await (const { key } of storage.list(OWN_FOLDER, options)) ownKeys.push(key);
  const [listedWal, named] = await both(
    (inner) => listWalFolder(storage, inner),
    (inner) => readBackups(storage, listed, inner),
    options,
  );
  const { wal, historyKeys, noteKeys } = listedWal;
  const starts = named.flatMap(({ startLsn, high, low, isResumed }) =>
    startLsn === undefined || isResumed === true ? [] : { startLsn, high, low },
  );
  const histories = await readStoredHistories(storage, historyKeys, options);
  const backups = await withEndTimelines(storage, { backups: named, histories }, options);
  return {
    storageName: storage.name,
    backups,
    unfinished: unfinishedOf(listed),
    wal,
    segmentBytes:
      sizeOfNames(starts) ??
      (await readSegmentSize(storage, wal, options)) ??
      sizeOfWalE({ backups, wal, histories }),
    histories,
    ownKeys,
    noteKeys,
    unknownKeys: [...listed.unknownKeys, ...listedWal.unknownKeys],
  };
}

/** The history of each timeline that has a readable one. */
export function historiesByTimeline({
  histories,
}: Pick<Catalogue, "histories">): ReadonlyMap<number, TimelineHistory> {
  const byTimeline = new Map<number, TimelineHistory>();
  for (const { timeline, history } of histories) {
    if (history !== undefined) byTimeline.set(timeline, history);
  }
  return byTimeline;
}

/**
 * Timelines with WAL whose history is not in the archive, ascending: nobody who comes from an
 * earlier one finds them. Of the first in a repository there may never have been one here.
 */
export function lostHistories({
  backups,
  histories,
  wal,
}: Pick<Catalogue, "backups" | "histories" | "wal">): readonly number[] {
  const known = new Set(histories.map(({ timeline }) => timeline));
  const archived = wal.timelineRanges().map(({ timeline }) => timeline);
  const first = Math.min(...archived, ...backups.map(({ timeline }) => timeline));
  return archived.filter((timeline) => timeline > first && !known.has(timeline));
}

/**
 * Ascending by timeline, position in it (an increment before a full backup, which may have been
 * merged from it), and name: never by a clock's time.
 */
export function compareBackups(
  one: Pick<CatalogueBackup, "timeline" | "high" | "low" | "name">,
  other: Pick<CatalogueBackup, "timeline" | "high" | "low" | "name">,
): number {
  return (
    one.timeline - other.timeline ||
    one.high - other.high ||
    one.low - other.low ||
    Number(isIncrementName(other.name)) - Number(isIncrementName(one.name)) ||
    (one.name < other.name ? -1 : Number(one.name > other.name))
  );
}

type SentinelObject = ObjectInfo & { readonly name: BackupName };

interface ListedBackups {
  readonly sentinels: readonly SentinelObject[];
  readonly folders: BackupFolders;
  readonly unknownKeys: readonly ObjectKey[];
}

async function listBackupsFolder(storage: Storage, options: CallOptions): Promise<ListedBackups> {
  const sentinels: SentinelObject[] = [];
  const folders = new BackupFolders();
  const unknownKeys: ObjectKey[] = [];
  for await (const info of storage.list(BACKUPS_FOLDER, options)) {
    const { key, sizeBytes } = info;
    const name = parseSentinelKey(key);
    if (name !== undefined && isBackupName(name)) sentinels.push({ ...info, name });
    else if (!isBackupName(folderName(key)) || !folders.add(key, sizeBytes)) unknownKeys.push(key);
  }
  return { sentinels, folders, unknownKeys };
}

function folderName(key: ObjectKey): string {
  const rest = key.slice(BACKUPS_FOLDER.length);
  return rest.slice(0, Math.max(0, rest.indexOf("/")));
}

async function listWalFolder(storage: Storage, options: CallOptions) {
  const wal = new WalObjects();
  const historyKeys: ObjectKey[] = [];
  const noteKeys: ObjectKey[] = [];
  const unknownKeys: ObjectKey[] = [];
  for await (const object of storage.list(WAL_FOLDER, options)) {
    if (wal.add(object)) continue;
    const { key } = object;
    const name = parseWalKey(key)?.name ?? "";
    if (parseWalFileName(name)?.kind === "history") historyKeys.push(key);
    else if (GROUP_NOTE.test(name)) noteKeys.push(key);
    else unknownKeys.push(key);
  }
  return { wal, historyKeys, noteKeys, unknownKeys };
}

async function readBackups(
  storage: Storage,
  { sentinels, folders }: ListedBackups,
  { signal }: CallOptions,
): Promise<readonly CatalogueBackup[]> {
  const read = async ({ name, modifiedAt }: ListedBackups["sentinels"][number]) => {
    const folder = folders.get(name);
    const hasMetadata = folder?.has("metadata.json") ?? false;
    const entry = await readCatalogueEntry(storage, name, { hasMetadata, modifiedAt, signal });
    return { backup: toBackup(entry, { folder, hasMetadata }), denied: entry.denied };
  };
  const results: Awaited<ReturnType<typeof read>>[] = [];
  for await (const result of orderedJobs(sentinels, READ_JOBS, read, { signal })) {
    results.push(result);
  }
  requireAccess(results);
  return results.map(({ backup }) => backup).toSorted(compareBackups);
}

function toBackup(
  { name, sentinel, metadata, problems }: CatalogueEntry,
  {
    folder,
    hasMetadata,
  }: { readonly folder: BackupFolder | undefined; readonly hasMetadata: boolean },
): CatalogueBackup {
  const isMetadataLost = hasMetadata && metadata === undefined;
  return {
    name,
    ...positionOf(name),
    startLsn: sentinel?.startLsn ?? metadata?.startLsn,
    finishLsn: sentinel?.finishLsn ?? metadata?.finishLsn,
    startTimeNs: recorded(sentinel?.startTimeNs, metadata?.startTimeNs),
    finishTimeNs: recorded(sentinel?.finishTimeNs, metadata?.finishTimeNs),
    baseName: sentinel?.base?.name,
    isPermanent: metadata?.isPermanent ?? (isMetadataLost || sentinel?.isPermanent === true),
    systemId: sentinel?.systemId ?? metadata?.systemId,
    pgVersion: sentinel?.pgVersion ?? metadata?.pgVersion,
    userData: sentinel?.userData ?? metadata?.userData,
    compressedBytes: sentinel?.compressedBytes,
    uncompressedBytes: sentinel?.uncompressedBytes,
    isResumed: sentinel?.own?.isResumed,
    corruptPages: sentinel?.own?.corruptPages,
    isReadable: sentinel !== undefined,
    problems,
    folder,
  };
}

/** Years before 1 are Go's zero time: nothing was recorded. */
const NOTHING_RECORDED_NS = -62_135_510_400n * 1_000_000_000n;

function recorded(...times: readonly (TimeNs | undefined)[]): TimeNs | undefined {
  return times.find((timeNs) => timeNs !== undefined && timeNs > NOTHING_RECORDED_NS);
}

function positionOf(name: BackupName): { timeline: number; high: number; low: number } {
  const { segment } = parseBackupName(name);
  const numbers = [0, 8, 16].map((start) => Number.parseInt(segment.slice(start, start + 8), 16));
  return { timeline: numbers[0] ?? 0, high: numbers[1] ?? 0, low: numbers[2] ?? 0 };
}

function unfinishedOf({ sentinels, folders }: ListedBackups): readonly UnfinishedBackup[] {
  const finished = new Set(sentinels.map(({ name }) => name));
  return [...folders.all()]
    .filter(({ name }) => !finished.has(name))
    .map((folder) => {
      const { name } = folder;
      const { baseSegment } = parseBackupName(name);
      return { name, ...positionOf(name), folder, baseSegment };
    })
    .toSorted(compareBackups);
}
