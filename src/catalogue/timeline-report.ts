import { gapKey, GAPS_FOLDER } from "../layout/keys.ts";
import type { TimeNs } from "../layout/time.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import { formatSegmentName, segmentStart } from "../postgres/wal-file.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { type Catalogue, type CatalogueBackup, lostHistories } from "./catalogue.ts";
import { findOwnFault, isIncrement } from "./chain.ts";
import type { CommitFinder } from "./commit-finder.ts";
import type { CommitPoint } from "./commit-scan.ts";
import { missingText } from "./missing-text.ts";
import { planWindows, type RestoreWindow, type TimelinePlan, type WalHole } from "./wal-windows.ts";
import { historyOf, runLength, type WalView } from "./wal-view.ts";

/** A position, and its time where that is known. */
export interface PlacedTime {
  readonly lsn: Lsn;
  readonly timeNs: TimeNs | undefined;
}

/** A backup on a timeline. */
export interface ReportedBackup {
  readonly name: BackupName;
  /** By its sentinel, or by its name where that can't be read. */
  readonly isIncrement: boolean;
  /** Increments only, where it is known. */
  readonly baseName: BackupName | undefined;
  readonly start: PlacedTime;
  readonly finish: PlacedTime;
  readonly isPermanent: boolean;
  readonly storedBytes: number | undefined;
  readonly contentBytes: number | undefined;
  /** Why a restore from it would fail, as far as names tell; undefined if nothing is missing. */
  readonly problem: string | undefined;
}

/** A span of one timeline to any point of which a restore can go. */
export interface ReportedWindow {
  readonly from: PlacedTime;
  /** The last commit in it; of a window without commits its start. */
  readonly to: PlacedTime;
  readonly lastXid: number | undefined;
  readonly commitIsKnown: boolean;
  readonly segmentCount: number;
  readonly backups: readonly BackupName[];
  readonly end: RestoreWindow["end"];
}

export interface ReportedHole {
  readonly firstSegment: string;
  readonly lastSegment: string;
  readonly segmentCount: number;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
  /** The last commit before and the first behind, where they are known. */
  readonly after: CommitPoint | undefined;
  readonly before: CommitPoint | undefined;
  readonly isIntended: boolean;
  /** Segments of it that walnut acknowledged without storing them. */
  readonly givenUpCount: number;
}

/** A run of archived segments. */
export interface ReportedRun {
  readonly firstSegment: string;
  readonly lastSegment: string;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
  readonly segmentCount: number;
}

export interface ReportedTimeline {
  readonly timeline: number;
  readonly parentTimeline: number;
  readonly forkLsn: Lsn;
  /** No restore from before comes to it: the archive lacks its history. */
  readonly isHistoryLost: boolean;
  readonly backups: readonly ReportedBackup[];
  readonly windows: readonly ReportedWindow[];
  readonly holes: readonly ReportedHole[];
  readonly runs: readonly ReportedRun[];
}

export interface TimelineReport {
  readonly storageName: string;
  readonly systemId: bigint | undefined;
  readonly segmentBytes: number;
  readonly timelines: readonly ReportedTimeline[];
  readonly plans: readonly TimelinePlan[];
}

interface Place {
  readonly catalogue: Catalogue;
  readonly view: WalView;
  readonly finder: CommitFinder;
}

interface Reporting extends Place {
  /** Timelines whose history the archive lacks. */
  readonly lost: ReadonlySet<number>;
}

/** Reads the commits at the edges of what can be restored: a few segments a window. */
export async function reportTimelines(place: Place): Promise<TimelineReport> {
  const { catalogue, view } = place;
  const plans = planWindows(view, catalogue.backups);
  const reporting = { ...place, lost: new Set(lostHistories(catalogue)) };
  const timelines: ReportedTimeline[] = [];
  for (const plan of plans) timelines.push(await reportTimeline(plan, reporting));
  return {
    storageName: catalogue.storageName,
    systemId: catalogue.backups.flatMap(({ systemId }) => systemId ?? [])[0],
    segmentBytes: view.segmentBytes,
    timelines,
    plans,
  };
}

async function reportTimeline(plan: TimelinePlan, place: Reporting): Promise<ReportedTimeline> {
  const { catalogue, view } = place;
  const { timeline, parentTimeline, forkLsn } = plan;
  const windows: ReportedWindow[] = [];
  for (const window of plan.windows) windows.push(await reportWindow(window, place));
  const holes: ReportedHole[] = [];
  for (const hole of plan.holes) holes.push(await reportHole(hole, timeline, place));
  const problems = new Map(plan.backups.map((reach) => [reach.name, problemOf(reach)]));
  return {
    timeline,
    parentTimeline,
    forkLsn,
    isHistoryLost: place.lost.has(timeline),
    backups: catalogue.backups
      .filter((backup) => backup.timeline === timeline)
      .map((backup) => reportBackup(backup, problems)),
    windows,
    holes,
    runs: (view.sets.get(timeline)?.runs ?? []).map((run) => ({
      ...edgesOf({ timeline, ...run }, view),
      segmentCount: runLength(run),
    })),
  };
}

function problemOf({ missing, chainFault }: TimelinePlan["backups"][number]): string | undefined {
  if (chainFault !== undefined) return chainFault;
  const count = missing.reduce((sum, run) => sum + runLength(run), 0);
  return count === 0 ? undefined : `${missingText(count)} that it needs`;
}

function reportBackup(
  backup: CatalogueBackup,
  problems: ReadonlyMap<BackupName, string | undefined>,
): ReportedBackup {
  const { name, baseName, startLsn, finishLsn, startTimeNs, finishTimeNs } = backup;
  const isPlaced = startLsn !== undefined && finishLsn !== undefined;
  return {
    name,
    isIncrement: isIncrement(backup),
    baseName: baseName === "" ? undefined : baseName,
    start: { lsn: lsn(startLsn ?? 0n), timeNs: startTimeNs },
    finish: { lsn: lsn(finishLsn ?? 0n), timeNs: finishTimeNs },
    isPermanent: backup.isPermanent,
    storedBytes: backup.compressedBytes,
    contentBytes: backup.uncompressedBytes,
    problem: isPlaced
      ? problems.get(name)
      : (findOwnFault(backup) ?? "it does not say where it began and ended"),
  };
}

function edgesOf(
  { timeline, first, last }: { timeline: number; first: number; last: number },
  { segmentBytes }: WalView,
) {
  return {
    firstSegment: formatSegmentName(timeline, BigInt(first), segmentBytes),
    lastSegment: formatSegmentName(timeline, BigInt(last), segmentBytes),
    startLsn: segmentStart(BigInt(first), segmentBytes),
    endLsn: segmentStart(BigInt(last) + 1n, segmentBytes),
  };
}

async function reportWindow(window: RestoreWindow, place: Place): Promise<ReportedWindow> {
  const { catalogue, view, finder } = place;
  const { timeline, fromLsn, endLsn, backups, end } = window;
  const history = historyOf(view, timeline);
  const size = BigInt(view.segmentBytes);
  const range = { first: Number(fromLsn / size), last: Number(endLsn / size) - 1 };
  const partial =
    end === "archive-end" ? await finder.partialCommits(history, range.last + 1) : undefined;
  const last = partial?.last ?? (await finder.lastCommit(history, range, fromLsn));
  const first = catalogue.backups.find(
    (backup) => backup.finishLsn === fromLsn && backups.includes(backup.name),
  );
  // A window that begins where the timeline does begins in time with its first commit.
  const fromNs = first?.finishTimeNs ?? (await firstCommitNs(history, { range, fromLsn }, finder));
  return {
    from: { lsn: fromLsn, timeNs: fromNs },
    to: { lsn: last?.lsn ?? fromLsn, timeNs: last?.timeNs ?? fromNs },
    lastXid: last?.xid,
    commitIsKnown: last !== undefined,
    segmentCount: runLength(range),
    backups,
    end,
  };
}

async function firstCommitNs(
  history: Parameters<CommitFinder["firstCommit"]>[0],
  { range, fromLsn }: { range: { first: number; last: number }; fromLsn: Lsn },
  finder: CommitFinder,
): Promise<TimeNs | undefined> {
  const [head] = [await finder.summary(history, range.first)];
  if (head?.last !== undefined && head.last.lsn >= fromLsn) {
    const only = { first: range.first, last: range.first };
    for await (const { end } of finder.ends(history, only)) {
      if (end.kind === "commit" && end.lsn >= fromLsn) return end.timeNs;
    }
  }
  const rest = { first: range.first + 1, last: range.last };
  return (await finder.firstCommit(history, rest))?.timeNs;
}

/** `line`: the timeline whose history the hole is in, which may have it from an older one. */
async function reportHole(hole: WalHole, line: number, place: Place): Promise<ReportedHole> {
  const { catalogue, view, finder } = place;
  const { first, last, isIntended } = hole;
  const history = historyOf(view, line);
  const edges = edgesOf(hole, view);
  const lower = { first: Math.max(0, first - 1), last: first - 1 };
  const upper = { first: last + 1, last: last + 1 };
  const givenUpCount = countGivenUp(hole, catalogue, view);
  return {
    ...edges,
    segmentCount: runLength(hole),
    after: first === 0 ? undefined : await finder.lastCommit(history, lower, lsn(0n)),
    before: await finder.firstCommit(history, upper),
    isIntended: isIntended && givenUpCount === 0,
    givenUpCount,
  };
}

/** How many segments of a hole walnut acknowledged without storing them. */
export function countGivenUp(
  { timeline, first, last }: WalHole,
  { ownKeys }: Catalogue,
  { segmentBytes }: WalView,
): number {
  const gaps = new Set(ownKeys.filter((key) => key.startsWith(GAPS_FOLDER)));
  let count = 0;
  for (let number = first; number <= last && count < gaps.size; number += 1) {
    if (gaps.has(gapKey(formatSegmentName(timeline, BigInt(number), segmentBytes)))) count += 1;
  }
  return count;
}
