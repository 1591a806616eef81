import { type BackupName, parseBackupName } from "../layout/backup-name.ts";
import type { TimeNs } from "../layout/time.ts";
import type { Lsn } from "../postgres/lsn.ts";
import { formatSegmentName, segmentStart } from "../postgres/wal-file.ts";
import { type Catalogue, type CatalogueBackup, lostHistories } from "./catalogue.ts";
import { isIncrement } from "./chain.ts";
import { describeCollisions, type StoredCollision } from "./collisions.ts";
import type { PlacedTime, TimelineReport } from "./timeline-report.ts";
import { missingText } from "./missing-text.ts";
import { describeUnfinished } from "./unfinished-backups.ts";
import type { WalView } from "./wal-view.ts";

/** Bytes and objects of one kind, as stored. */
export interface KindSize {
  readonly objects: number;
  readonly bytes: number;
}

/** What a server says of itself and its archiver; undefined where it was not asked. */
export interface ServerState {
  readonly systemId: bigint;
  readonly versionNumber: number;
  readonly timeline: number;
  readonly lsn: Lsn;
  readonly isInRecovery: boolean;
  readonly isArchiving: boolean;
  /** The slot of wal-receive; undefined when there is none. */
  readonly receiver?: ReceiverState | undefined;
  readonly lastFailedWal: string | undefined;
  readonly lastFailedAt: string | undefined;
  /** Whether the last attempt of the archiver failed. */
  readonly isArchiverFailing: boolean;
}

/** What the server says of the slot through which wal-receive gets its WAL. */
export interface ReceiverState {
  readonly slot: string;
  readonly isReceiving: boolean;
  /** The server has removed WAL that it needs. */
  readonly isLost: boolean;
  /** The server keeps its WAL from here on. */
  readonly restartLsn: Lsn | undefined;
  /** Up to where the archive has what was received, also of an unfinished segment. */
  readonly storedLsn: Lsn | undefined;
}

/** Everything on the one screen. */
export interface RepositoryInfo {
  readonly storageName: string;
  readonly systemId: bigint | undefined;
  readonly pgVersion: number | undefined;
  readonly segmentBytes: number;
  readonly timeline: number | undefined;
  readonly backupCount: number;
  readonly lastBackup: CatalogueBackup | undefined;
  /** Newest whole segment of the newest timeline that has any. */
  readonly lastSegment: string | undefined;
  readonly archivedLsn: Lsn | undefined;
  /** Bytes that the server has written and the archive does not hold. */
  readonly lagBytes: number | undefined;
  readonly restorableTo: PlacedTime | undefined;
  readonly sizes: {
    readonly full: KindSize;
    readonly increments: KindSize;
    readonly unfinished: KindSize;
    readonly wal: KindSize;
  };
  readonly warnings: readonly InfoWarning[];
}

/** What somebody should look at. */
export interface InfoWarning {
  readonly code:
    | "no-backup"
    | "old-backup"
    | "broken-backup"
    | "unreadable-backup"
    | "hole"
    | "gap-without-backup"
    | "lost-history"
    | "unreadable-history"
    | "collision"
    | "unfinished-backup"
    | "archiver-failing"
    | "archiver-off"
    | "receiver-away"
    | "receiver-lost"
    | "archive-behind"
    | "left-behind"
    | "wrong-cluster"
    | "server-unreachable"
    | "nothing-restorable";
  readonly text: string;
}

export interface InfoQuery {
  readonly catalogue: Catalogue;
  /** System identifier of the cluster that the repository belongs to, where that is known. */
  readonly owner: bigint | undefined;
  readonly view: WalView;
  readonly report: TimelineReport;
  readonly collisions: readonly StoredCollision[];
  readonly server: ServerState | { readonly problem: string } | undefined;
  readonly nowNs: TimeNs;
}

/** A day and a bit: nightly backups take their time. */
const BACKUP_AGE_MAX_NS = 26n * 3_600_000_000_000n;
/** A server that writes fast has some segments under way. */
const LAG_SEGMENTS_MAX = 16;
const MIB = 1024 * 1024;
const NS_PER_HOUR = 3_600_000_000_000n;

/** Puts together what is known; pure. */
export function summarizeRepository(query: InfoQuery): RepositoryInfo {
  const { catalogue, owner, view, report, server } = query;
  const { backups } = catalogue;
  const lastBackup = newestBackup(backups);
  const sets = [...view.sets.values()];
  const newest = sets.at(-1);
  const lastNumber = newest?.runs.at(-1)?.last;
  const hasLast = newest !== undefined && lastNumber !== undefined;
  const archivedLsn = hasLast
    ? segmentStart(BigInt(lastNumber) + 1n, view.segmentBytes)
    : undefined;
  const isAsked = server !== undefined && !("problem" in server);
  const isOwn = isAsked && !isForeign(query, server);
  const storedLsn = hasLast && isOwn ? storedEnd(query, server, lastNumber) : undefined;
  const lagBytes =
    isOwn && storedLsn !== undefined ? Math.max(0, Number(server.lsn - storedLsn)) : undefined;
  return {
    storageName: catalogue.storageName,
    systemId: lastBackup?.systemId ?? owner ?? (isAsked ? server.systemId : undefined),
    pgVersion: lastBackup?.pgVersion,
    segmentBytes: view.segmentBytes,
    timeline: newest?.timeline,
    backupCount: backups.length,
    lastBackup,
    lastSegment: hasLast
      ? formatSegmentName(newest.timeline, BigInt(lastNumber), view.segmentBytes)
      : undefined,
    archivedLsn,
    lagBytes,
    restorableTo: report.timelines.flatMap(({ windows }) => windows).at(-1)?.to,
    sizes: sizesOf(catalogue),
    warnings: [
      ...warnOfBackups(query, lastBackup),
      ...warnOfWal(query),
      ...warnOfCollisions(query),
      ...warnOfServer(query, lagBytes),
    ],
  };
}

/**
 * Where the archive ends: with the newest whole segment, or in the unfinished one behind it. How
 * much of that is stored only wal-receive knows, and tells the server.
 */
function storedEnd(
  { catalogue: { wal }, view: { segmentBytes } }: InfoQuery,
  { receiver }: ServerState,
  lastNumber: number,
): Lsn {
  const endOf = (segmentNumber: number) => segmentStart(BigInt(segmentNumber) + 1n, segmentBytes);
  const archivedLsn = endOf(lastNumber);
  const next = lastNumber + 1;
  const flushLsn = receiver?.storedLsn;
  if (flushLsn === undefined || flushLsn <= archivedLsn) return archivedLsn;
  for (let row = wal.count - 1; row >= 0; row -= 1) {
    if (wal.kindAt(row) !== "partial" || wal.segmentNumberAt(row, segmentBytes) !== next) continue;
    return flushLsn < endOf(next) ? flushLsn : endOf(next);
  }
  return archivedLsn;
}

function newestBackup(backups: readonly CatalogueBackup[]): CatalogueBackup | undefined {
  const timed = backups.filter(({ finishTimeNs }) => finishTimeNs !== undefined);
  const sorted = timed.toSorted((one, other) =>
    (one.finishTimeNs ?? 0n) < (other.finishTimeNs ?? 0n) ? -1 : 1,
  );
  return sorted.at(-1) ?? backups.at(-1);
}

function sizesOf({ backups, unfinished, wal }: Catalogue): RepositoryInfo["sizes"] {
  let walBytes = 0;
  for (let row = 0; row < wal.count; row += 1) walBytes += wal.sizeAt(row);
  return {
    full: sumFolders(backups.filter((backup) => !isIncrement(backup))),
    increments: sumFolders(backups.filter(isIncrement)),
    unfinished: sumFolders(unfinished),
    wal: { objects: wal.count, bytes: walBytes },
  };
}

function sumFolders(backups: readonly Pick<CatalogueBackup, "folder">[]): KindSize {
  return {
    objects: backups.reduce((sum, { folder }) => sum + (folder?.objectCount ?? 0), 0),
    bytes: backups.reduce((sum, { folder }) => sum + (folder?.sizeBytes ?? 0), 0),
  };
}

function warnOfBackups(
  { catalogue, report, nowNs }: InfoQuery,
  last: CatalogueBackup | undefined,
): readonly InfoWarning[] {
  const warnings: InfoWarning[] = [];
  if (last === undefined) {
    const isEmpty = catalogue.wal.count === 0;
    const text = isEmpty
      ? "there is no backup and no WAL: is the prefix the right one, and its file system mounted?"
      : "there is no backup";
    warnings.push({ code: "no-backup", text });
  }
  const finishNs = last?.finishTimeNs;
  if (finishNs !== undefined && nowNs - finishNs > BACKUP_AGE_MAX_NS) {
    const hours = (nowNs - finishNs) / NS_PER_HOUR;
    warnings.push({ code: "old-backup", text: `the last backup is ${hours} hours old` });
  }
  const unreadable = new Set<BackupName>();
  for (const { name, isReadable, problems } of catalogue.backups) {
    if (!isReadable) unreadable.add(name);
    if (problems.length === 0) continue;
    warnings.push({ code: "unreadable-backup", text: `${name}: ${problems.join("; ")}` });
  }
  for (const { name, problem } of report.timelines.flatMap(({ backups }) => backups)) {
    if (problem === undefined || unreadable.has(name)) continue;
    warnings.push({ code: "broken-backup", text: `${name}: ${problem}` });
  }
  for (const text of describeUnfinished(catalogue)) {
    warnings.push({ code: "unfinished-backup", text });
  }
  return warnings;
}

function warnOfWal({ catalogue, report }: InfoQuery): readonly InfoWarning[] {
  const warnings: InfoWarning[] = [];
  const windows = report.timelines.flatMap(({ windows: some }) => some);
  if (windows.length === 0) {
    warnings.push({ code: "nothing-restorable", text: "nothing can be restored" });
  }
  for (const timeline of lostHistories(catalogue)) {
    const text = `the history of timeline ${timeline} is lost: no restore from before comes to it`;
    warnings.push({ code: "lost-history", text });
  }
  for (const { key, problem } of catalogue.histories) {
    if (problem === undefined) continue;
    warnings.push({ code: "unreadable-history", text: `${key}: ${problem}` });
  }
  for (const { holes } of report.timelines) {
    for (const { firstSegment, lastSegment, segmentCount, isIntended, givenUpCount } of holes) {
      if (isIntended) continue;
      const why = givenUpCount > 0 ? `, ${givenUpCount} of them given up by the queue policy` : "";
      const range = segmentCount === 1 ? firstSegment : `${firstSegment} to ${lastSegment}`;
      const text = `${missingText(segmentCount)}, ${range}${why}`;
      warnings.push({ code: "hole", text });
    }
  }
  return [...warnings, ...warnOfGap(catalogue, report)];
}

/** One for all gaps: the backup that is missing is one, too. */
function warnOfGap({ backups }: Catalogue, { timelines }: TimelineReport): readonly InfoWarning[] {
  const gaps = timelines
    .flatMap(({ holes }) => holes)
    .filter(({ givenUpCount }) => givenUpCount > 0);
  const last = gaps
    .map(({ lastSegment }) => lastSegment)
    .toSorted()
    .at(-1);
  if (last === undefined) return [];
  const sound = backups.filter(({ problems }) => problems.length === 0);
  if (sound.some(({ name }) => parseBackupName(name).segment > last)) return [];
  const text =
    `no backup begins behind ${last}, the last segment that was given up: what was committed since ` +
    "can't be restored. The server that gave it up begins one by itself, `walnut gap-backup --status` " +
    "there tells how far it is; where that is turned off, take one now: `walnut backup-push --full`";
  return [{ code: "gap-without-backup", text }];
}

function warnOfCollisions({ collisions }: InfoQuery): readonly InfoWarning[] {
  return describeCollisions(collisions).map((text) => ({ code: "collision", text }) as const);
}

function warnOfServer(query: InfoQuery, lagBytes: number | undefined): readonly InfoWarning[] {
  const { server, view, owner } = query;
  if (server === undefined) return [];
  if ("problem" in server) {
    return [{ code: "server-unreachable", text: `the server was not asked: ${server.problem}` }];
  }
  const warnings: InfoWarning[] = [];
  if (isForeign(query, server)) {
    const text = `the server is cluster ${server.systemId}, the repository of cluster ${owner}`;
    warnings.push({ code: "wrong-cluster", text });
  }
  const newest = [...view.sets.values()].at(-1)?.timeline ?? 0;
  if (!server.isInRecovery && server.timeline < newest) {
    const text =
      `the server writes timeline ${server.timeline}, but another one was promoted to ` +
      `${newest}: what this one writes is lost to it (docs/failover.md)`;
    warnings.push({ code: "left-behind", text });
  }
  warnings.push(...warnOfReceiver(server));
  if (!server.isArchiving && !server.isInRecovery && server.receiver?.isReceiving !== true) {
    warnings.push({ code: "archiver-off", text: "the server has no archive_command in use" });
  }
  if (server.isArchiverFailing) {
    const text = `archive_command fails, last for ${server.lastFailedWal} at ${server.lastFailedAt}`;
    warnings.push({ code: "archiver-failing", text });
  }
  if (lagBytes !== undefined && lagBytes > LAG_SEGMENTS_MAX * view.segmentBytes) {
    const segments = Math.floor(lagBytes / view.segmentBytes);
    const text = `the archive is ${segments} segments behind the server`;
    warnings.push({ code: "archive-behind", text });
  }
  return warnings;
}

/** Whether positions of the server say nothing about the repository. */
function isForeign({ owner }: InfoQuery, { systemId }: ServerState): boolean {
  return owner !== undefined && owner !== systemId;
}

function warnOfReceiver({ receiver, lsn }: ServerState): readonly InfoWarning[] {
  if (receiver === undefined || receiver.isReceiving) return [];
  const { slot, isLost, restartLsn } = receiver;
  if (isLost) {
    const text =
      `replication slot ${slot} was invalidated: drop it, start wal-receive, and take a base backup ` +
      "if nothing else archives";
    return [{ code: "receiver-lost", text }];
  }
  const kept =
    restartLsn === undefined ? "" : `, which keeps ${formatKept(lsn - restartLsn)} of WAL`;
  const text = `nobody receives through replication slot ${slot}${kept}: start wal-receive, or drop it`;
  return [{ code: "receiver-away", text }];
}

function formatKept(bytes: bigint): string {
  return `${(Math.max(0, Number(bytes)) / MIB).toFixed(1)} MiB`;
}
