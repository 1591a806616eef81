import { type Lsn, lsn } from "../postgres/lsn.ts";
import { isOnHistory, switchPoint, type TimelineHistory } from "../postgres/timeline-history.ts";
import { segmentNumberOf, segmentOfEnd, segmentStart } from "../postgres/wal-file.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { CatalogueBackup } from "./catalogue.ts";
import { type BackupsByName, findChainFault } from "./chain.ts";
import {
  firstOnLine,
  forkWithin,
  lastBeforeFork,
  lineOfBackup,
  missingOnLine,
  ownSegments,
  type TimelineRun,
} from "./wal-line.ts";
import { historyOf, missingRuns, type WalView } from "./wal-view.ts";

/** How far one backup can be replayed on its own timeline: to its own end at least, or not. */
export interface BackupReach {
  readonly name: BackupName;
  readonly timeline: number;
  /** Another than `timeline` where a standby followed its primary meanwhile. */
  readonly endTimeline: number;
  readonly startLsn: Lsn;
  readonly finishLsn: Lsn;
  /** Segments that it needs to become consistent and the archive lacks. */
  readonly missing: readonly TimelineRun[];
  /** What speaks against the backup itself or one of its bases, as far as a listing shows. */
  readonly chainFault: string | undefined;
}

/** Positions of one timeline to which a restore can go: all of `[fromLsn, endLsn)`. */
export interface RestoreWindow {
  readonly timeline: number;
  readonly fromLsn: Lsn;
  /** The start of the first segment that is not there: the records may end earlier. */
  readonly endLsn: Lsn;
  /** What it can be reached from, by position. */
  readonly backups: readonly BackupName[];
  readonly end: "hole" | "archive-end";
}

/** Missing segments on the way to a timeline. */
export interface WalHole extends TimelineRun {
  /**
   * The backups before it were kept with just their own WAL, and there is a backup behind it or
   * none that leads there: as retention leaves it.
   */
  readonly isIntended: boolean;
  /** Backups from which nothing behind the hole can be reached. */
  readonly cutBackups: readonly BackupName[];
}

/** What can be restored on one timeline. */
export interface TimelinePlan {
  readonly timeline: number;
  /** 0 for a timeline without known ancestors. */
  readonly parentTimeline: number;
  /** Where it left its parent; 0 without one. */
  readonly forkLsn: Lsn;
  /** Where a newer timeline left it, as far as the archive knows, the first to do so first. */
  readonly leftAt: readonly { readonly timeline: number; readonly lsn: Lsn }[];
  readonly backups: readonly BackupReach[];
  readonly windows: readonly RestoreWindow[];
  readonly holes: readonly WalHole[];
}

/**
 * What can be restored, by the names of what is there. Timelines ascend. Backups whose documents do
 * not say where they began and ended are left out.
 */
export function planWindows(
  view: WalView,
  backups: readonly CatalogueBackup[],
): readonly TimelinePlan[] {
  const byName = new Map(backups.map((backup) => [backup.name, backup]));
  const reaches = backups.flatMap((backup) => reachOf(view, backup, { byName }) ?? []);
  const timelines = new Set([...view.timelines, ...backups.map(({ timeline }) => timeline)]);
  return [...timelines]
    .toSorted((one, other) => one - other)
    .map((timeline) => planTimeline(view, timeline, reaches));
}

function reachOf(
  view: WalView,
  backup: CatalogueBackup,
  backups: BackupsByName,
): BackupReach | undefined {
  const { name, timeline, endTimeline = timeline, startLsn, finishLsn } = backup;
  const needed = ownSegments(view, backup);
  if (startLsn === undefined || finishLsn === undefined || needed === undefined) return undefined;
  return {
    name,
    timeline,
    endTimeline,
    startLsn: lsn(startLsn),
    finishLsn: lsn(finishLsn),
    missing: missingOnLine(view, lineOfBackup(view, backup, needed), needed),
    chainFault: findChainFault(backups, backup),
  };
}

function planTimeline(
  view: WalView,
  timeline: number,
  reaches: readonly BackupReach[],
): TimelinePlan {
  const history = historyOf(view, timeline);
  const parent = history.ancestors.at(-1);
  const inOrder = reaches.toSorted((one, other) => (one.startLsn < other.startLsn ? -1 : 1));
  const onLine = inOrder.filter(({ endTimeline, finishLsn }) =>
    isOnHistory(history, endTimeline, finishLsn),
  );
  const begun = inOrder.filter((reach) => isOnHistory(history, reach.timeline, reach.startLsn));
  const line = { view, history, forkLsn: parent?.endLsn ?? lsn(0n), onLine, begun };
  return {
    timeline,
    parentTimeline: parent?.timeline ?? 0,
    forkLsn: line.forkLsn,
    leftAt: leavers(view, timeline),
    backups: inOrder.filter((reach) => reach.timeline === timeline),
    windows: planTimelineWindows(line),
    holes: planHoles(line),
  };
}

interface Line {
  readonly view: WalView;
  readonly history: TimelineHistory;
  readonly forkLsn: Lsn;
  /** Backups that end on the line, by start. */
  readonly onLine: readonly BackupReach[];
  /** Those that begin on it, wherever they end. */
  readonly begun: readonly BackupReach[];
}

function leavers({ histories }: WalView, timeline: number): TimelinePlan["leftAt"] {
  return [...histories]
    .flatMap(([newer, { ancestors }]) => {
      const parent = ancestors.at(-1);
      return parent?.timeline === timeline ? [{ timeline: newer, lsn: parent.endLsn }] : [];
    })
    .toSorted((one, other) => one.timeline - other.timeline);
}

/** Number of the last whole segment of the line's own timeline; -1 without any. */
function lastOwnSegment({ view, history }: Line): number {
  return view.sets.get(history.timeline)?.runs.at(-1)?.last ?? -1;
}

function planTimelineWindows(line: Line): readonly RestoreWindow[] {
  const { view, history, forkLsn, onLine } = line;
  const { segmentBytes } = view;
  const lastOwn = lastOwnSegment(line);
  const windows: RestoreWindow[] = [];
  for (const reach of onLine) {
    if (reach.chainFault !== undefined) continue;
    const first = Number(segmentNumberOf(reach.startLsn, segmentBytes));
    const last = Math.max(lastOwn, Number(segmentOfEnd(reach.finishLsn, segmentBytes)));
    const [hole] = missingOnLine(view, history, { first, last });
    const endLsn = segmentStart(BigInt(hole?.first ?? last + 1), segmentBytes);
    const fromLsn = reach.finishLsn > forkLsn ? reach.finishLsn : forkLsn;
    if (endLsn <= fromLsn) continue;
    const before = windows.at(-1);
    // Whatever is reached from an older backup ends at the same hole as what is reached from here.
    if (before !== undefined && before.endLsn === endLsn) {
      // Of two at the same time the one that began first may have ended last.
      const earlier = fromLsn < before.fromLsn ? fromLsn : before.fromLsn;
      const names = [...before.backups, reach.name];
      windows[windows.length - 1] = { ...before, fromLsn: earlier, backups: names };
      continue;
    }
    const end = hole === undefined ? "archive-end" : "hole";
    windows.push({ timeline: history.timeline, fromLsn, endLsn, backups: [reach.name], end });
  }
  return windows;
}

function planHoles(line: Line): readonly WalHole[] {
  const { view, history, forkLsn, onLine } = line;
  const { segmentBytes } = view;
  const lastOwn = lastOwnSegment(line);
  const [firstRun] = view.sets.get(history.timeline)?.runs ?? [];
  if (firstRun === undefined) return [];
  const starts = onLine.map(({ startLsn }) => Number(segmentNumberOf(startLsn, segmentBytes)));
  const fork = Number(segmentNumberOf(forkLsn, segmentBytes));
  const first = Math.max(fork, Math.min(firstRun.first, ...starts));
  const own = missingRuns(view.sets.get(history.timeline)?.runs ?? [], { first, last: lastOwn });
  return [
    ...missingBeforeFork(line, fork),
    ...own.map((run) => ({ timeline: history.timeline, ...run })),
  ].map((run) => judgeHole(run, line));
}

/**
 * What the archive lacks between the last segment of the timelines before and the fork: an old
 * primary that died had not archived it, and no timeline's own files show that (P08).
 */
function missingBeforeFork({ view, history }: Line, fork: number): readonly TimelineRun[] {
  const last = lastBeforeFork(view, history);
  return last < 0 ? [] : missingOnLine(view, history, { first: last + 1, last: fork - 1 });
}

function judgeHole(hole: TimelineRun, line: Line): WalHole {
  const { view, onLine, begun } = line;
  const { segmentBytes } = view;
  const holeStart = segmentStart(BigInt(hole.first), segmentBytes);
  const holeEnd = segmentStart(BigInt(hole.last) + 1n, segmentBytes);
  const before = onLine.filter(({ startLsn }) => startLsn < holeStart);
  const isFollowed = begun.some(({ startLsn }) => startLsn >= holeEnd);
  const ownEnds = before.map(({ finishLsn }) => Number(segmentOfEnd(finishLsn, segmentBytes)));
  const isNeeded = onLine.some(
    ({ startLsn, finishLsn }) => startLsn < holeEnd && finishLsn > holeStart,
  );
  const end = replayEnd(hole, before, line);
  const isLeftSo = isFollowed
    ? before.length === 0 ||
      ownEnds.some((last) => last + 1 === end) ||
      isBehindFork(hole, end, line)
    : isBehindLeaver(hole, line);
  return { ...hole, isIntended: isLeftSo && !isNeeded, cutBackups: before.map(({ name }) => name) };
}

/**
 * Whether replay ends right behind the segment in which the line leaves a backup's own WAL, and
 * what follows the hole begins with a backup: retention keeps that segment only to show that it was
 * archived.
 */
function isBehindFork(hole: TimelineRun, end: number, { view, history, begun }: Line): boolean {
  const next = firstOnLine(view, history, hole.last + 1)?.segmentNumber;
  const isToNext = begun.some(
    ({ startLsn }) => Number(segmentNumberOf(startLsn, view.segmentBytes)) === next,
  );
  if (!isToNext) return false;
  return begun.some((reach) => {
    const fork = reach.missing.length === 0 ? forkWithin(view, history, reach) : undefined;
    return fork !== undefined && fork.segmentNumber + 1 === end;
  });
}

/**
 * Whether no backup leads along the line, and all that is there before the hole is the whole own
 * WAL of one that left it: retention keeps nothing between that and the newest timeline.
 */
function isBehindLeaver(hole: TimelineRun, { view, history, onLine, begun }: Line): boolean {
  if (onLine.length > 0 || hole.timeline === history.timeline) return false;
  const end = lastBeforeFork(view, history) + 1;
  return begun.some(({ timeline, missing }) => {
    const left = switchPoint(history, timeline);
    if (left === undefined || missing.length > 0) return false;
    return Number(segmentNumberOf(left, view.segmentBytes)) === end;
  });
}

/**
 * Where replay ends before a hole, from whichever backup: at the hole, or earlier, behind which
 * nobody comes to it. The backup that begins last gets furthest.
 */
function replayEnd(
  hole: TimelineRun,
  before: readonly BackupReach[],
  { view, history }: Line,
): number {
  const last = before.at(-1);
  if (last === undefined) return hole.first;
  const first = Number(segmentNumberOf(last.startLsn, view.segmentBytes));
  const [missing] = missingOnLine(view, history, { first, last: hole.first });
  return missing?.first ?? hole.first;
}
