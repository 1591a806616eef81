import type { BackupName } from "../layout/backup-name.ts";
import type { TimeNs } from "../layout/time.ts";
import type { Lsn } from "../postgres/lsn.ts";
import { formatSegmentName, segmentStart } from "../postgres/wal-file.ts";
import type { Catalogue, CatalogueBackup } from "./catalogue.ts";
import { isIncrement } from "./chain.ts";
import { describeCollisions, type StoredCollision } from "./collisions.ts";
import type { PlacedTime, TimelineReport } from "./timeline-report.ts";
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
  readonly lastFailedWal: string | undefined;
  readonly lastFailedAt: string | undefined;
  /** Whether the last attempt of the archiver failed. */
  readonly isArchiverFailing: boolean;
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
    | "collision"
    | "unfinished-backup"
    | "archiver-failing"
    | "archiver-off"
    | "archive-behind"
    | "left-behind"
    | "wrong-cluster"
    | "server-unreachable"
    | "nothing-restorable";
  readonly text: string;
}

export interface InfoQuery {
  readonly catalogue: Catalogue;
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
const NS_PER_HOUR = 3_600_000_000_000n;

/** Puts together what is known; pure. */
export function summarizeRepository(query: InfoQuery): RepositoryInfo {
  const { catalogue, view, report, server } = query;
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
  const lagBytes =
    isAsked && archivedLsn !== undefined
      ? Math.max(0, Number(server.lsn - archivedLsn))
      : undefined;
  return {
    storageName: catalogue.storageName,
    systemId: lastBackup?.systemId ?? (isAsked ? server.systemId : undefined),
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
  if (last === undefined) warnings.push({ code: "no-backup", text: "there is no backup" });
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
  for (const { name } of catalogue.unfinished) {
    const text = `${name} is being taken, or was given up`;
    warnings.push({ code: "unfinished-backup", text });
  }
  return warnings;
}

function warnOfWal({ report }: InfoQuery): readonly InfoWarning[] {
  const warnings: InfoWarning[] = [];
  const windows = report.timelines.flatMap(({ windows: some }) => some);
  if (windows.length === 0) {
    warnings.push({ code: "nothing-restorable", text: "nothing can be restored" });
  }
  for (const { holes } of report.timelines) {
    for (const { firstSegment, lastSegment, segmentCount, isIntended, givenUpCount } of holes) {
      if (isIntended) continue;
      const why = givenUpCount > 0 ? `, ${givenUpCount} of them given up by the queue policy` : "";
      const text = `${segmentCount} segments are missing, ${firstSegment} to ${lastSegment}${why}`;
      warnings.push({ code: "hole", text });
    }
  }
  return warnings;
}

function warnOfCollisions({ collisions }: InfoQuery): readonly InfoWarning[] {
  return describeCollisions(collisions).map((text) => ({ code: "collision", text }) as const);
}

function warnOfServer(
  { server, view, catalogue }: InfoQuery,
  lagBytes: number | undefined,
): readonly InfoWarning[] {
  if (server === undefined) return [];
  if ("problem" in server) {
    return [{ code: "server-unreachable", text: `the server was not asked: ${server.problem}` }];
  }
  const warnings: InfoWarning[] = [];
  const owner = catalogue.backups.find(({ systemId }) => systemId !== undefined)?.systemId;
  if (owner !== undefined && owner !== server.systemId) {
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
  if (!server.isArchiving && !server.isInRecovery) {
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
