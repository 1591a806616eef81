import { lsn } from "../postgres/lsn.ts";
import {
  isAncestor,
  isOnHistory,
  switchPoint,
  type TimelineHistory,
} from "../postgres/timeline-history.ts";
import { segmentNumberOf, segmentOfEnd } from "../postgres/wal-file.ts";
import type { CatalogueBackup } from "./catalogue.ts";
import type { SegmentRun } from "./segment-set.ts";
import { segmentTimeline } from "./wal-integrity.ts";
import { segmentsPerHigh } from "./wal-objects.ts";
import { historyOf, missingRuns, type WalView } from "./wal-view.ts";

/** Segments of one timeline's files. */
export interface TimelineRun extends SegmentRun {
  readonly timeline: number;
}

/** A line of history, cut where another timeline's files take over. */
export function* lineParts(
  { segmentBytes }: Pick<WalView, "segmentBytes">,
  history: TimelineHistory,
  range: SegmentRun,
): Generator<TimelineRun> {
  let { first } = range;
  while (first <= range.last) {
    const timeline = segmentTimeline(history, first, segmentBytes);
    const end = history.ancestors.find((ancestor) => ancestor.timeline === timeline)?.endLsn;
    // The segment in which a timeline is left belongs to the next one.
    const limit = end === undefined ? range.last : Number(end / BigInt(segmentBytes)) - 1;
    const last = Math.max(first, Math.min(range.last, limit));
    yield { timeline, first, last };
    first = last + 1;
  }
}

/** What lines of history are judged by. */
export type LineView = Pick<WalView, "segmentBytes" | "sets" | "histories">;

/** What is missing of a line of history. */
export function missingOnLine(
  view: Pick<WalView, "segmentBytes" | "sets">,
  history: TimelineHistory,
  range: SegmentRun,
): readonly TimelineRun[] {
  return [...lineParts(view, history, range)].flatMap((part) =>
    missingRuns(view.sets.get(part.timeline)?.runs ?? [], part).map((run) => ({
      timeline: part.timeline,
      ...run,
    })),
  );
}

/** What of a backup tells where a restore of it begins to replay. */
export type BackupStart = Pick<CatalogueBackup, "high" | "low" | "startLsn">;

/**
 * The segment in which a restore of the backup begins to replay. Where no start is recorded the
 * name tells, as with WAL-E's; else it may name an earlier one, of which nothing is read: that of
 * the first try of a backup that was resumed, or the one before a start on the border of two.
 *
 * @source XLogReadRecord, src/backend/access/transam/xlogreader.c
 */
export function firstSegment(
  { segmentBytes }: Pick<WalView, "segmentBytes">,
  { high, low, startLsn }: BackupStart,
): number {
  if (startLsn === undefined) return high * segmentsPerHigh(segmentBytes) + low;
  return Number(segmentNumberOf(lsn(startLsn), segmentBytes));
}

/**
 * A backup's own WAL: what a restore of it replays until it is consistent. Undefined where the
 * backup records no end, as WAL-E's do, or none behind its start: then nobody can tell.
 */
export function ownSegments(
  view: Pick<WalView, "segmentBytes">,
  backup: BackupStart & Pick<CatalogueBackup, "finishLsn">,
): SegmentRun | undefined {
  const { startLsn = 0n, finishLsn = 0n } = backup;
  if (finishLsn <= startLsn) return undefined;
  const first = firstSegment(view, backup);
  const last = Number(segmentOfEnd(lsn(finishLsn), view.segmentBytes));
  return last < first ? undefined : { first, last };
}

/** What of a backup tells its line. */
export type BackupSpan = Pick<CatalogueBackup, "timeline" | "endTimeline" | "finishLsn">;

/**
 * The line on which a backup becomes consistent: that of the timeline on which it ended, unless
 * segments of `needed` are missing there and all is there on the way to a newer one. Where that
 * left it in the segment in which the backup ended, the newer timeline's file is the one that was
 * archived.
 */
export function lineOfBackup(
  view: LineView,
  { timeline, endTimeline = timeline, finishLsn = 0n }: BackupSpan,
  needed: SegmentRun,
): TimelineHistory {
  const own = historyOf(view, endTimeline);
  const later = [...view.histories.values()].filter((history) =>
    isOnHistory(history, endTimeline, lsn(finishLsn)),
  );
  const isWhole = (line: TimelineHistory) => missingOnLine(view, line, needed).length === 0;
  return [own, ...later].find(isWhole) ?? own;
}

/**
 * All files of a backup's own WAL: those of its line, and of timelines that left it behind the
 * backup's end, in its last segment. Without these a restore that asks for a newer timeline would
 * take the older one's file instead, and replay in it what was given up.
 *
 * @source XLogFileReadAnyTLI, src/backend/access/transam/xlogrecovery.c
 */
export function* ownParts(
  view: LineView,
  backup: BackupSpan,
  needed: SegmentRun,
): Generator<TimelineRun> {
  yield* lineParts(view, lineOfBackup(view, backup, needed), needed);
  const { timeline, endTimeline = timeline, finishLsn = 0n } = backup;
  for (const history of view.histories.values()) {
    const left = history.ancestors.find((one) => one.timeline === endTimeline)?.endLsn;
    if (left === undefined || left < finishLsn) continue;
    const first = Number(left / BigInt(view.segmentBytes));
    yield* lineParts(view, history, { first, last: needed.last });
  }
}

/** One segment of a line of history, and on which timeline. */
export interface LineSegment {
  readonly timeline: number;
  readonly segmentNumber: number;
}

/**
 * The line's segment in which it leaves a backup that began on it and ended elsewhere. Undefined
 * where it does not, or not behind the backup's first segment: then nothing of the backup's own WAL
 * is on the line.
 */
export function forkWithin(
  view: Pick<WalView, "segmentBytes" | "histories">,
  history: TimelineHistory,
  backup: BackupSpan & { readonly startLsn?: bigint | undefined },
): LineSegment | undefined {
  const { timeline, endTimeline = timeline, startLsn = 0n, finishLsn = 0n } = backup;
  const isLeft =
    isOnHistory(history, timeline, lsn(startLsn)) &&
    !isOnHistory(history, endTimeline, lsn(finishLsn));
  if (!isLeft) return undefined;
  const leftLsn = partingOf(history, historyOf(view, endTimeline));
  const segmentNumber = Number(leftLsn / BigInt(view.segmentBytes));
  if (segmentNumber <= Number(startLsn / BigInt(view.segmentBytes))) return undefined;
  return { timeline: segmentTimeline(history, segmentNumber, view.segmentBytes), segmentNumber };
}

/** Where two lines part; 0 where they have nothing in common. */
function partingOf(one: TimelineHistory, other: TimelineHistory): bigint {
  const timelines = [...one.ancestors.map(({ timeline }) => timeline), one.timeline];
  const last = timelines.findLast((timeline) => isAncestor(other, timeline)) ?? 0;
  const ends = [one, other].flatMap((line) => switchPoint(line, last) ?? []);
  return ends.toSorted((first, second) => (first < second ? -1 : 1))[0] ?? 0n;
}

/**
 * The missing segment, with others behind it, where a replay from segment `first` on ends although
 * the archive has more of the line; undefined where it goes to the archive's end, be that before
 * `first`.
 */
export function firstHoleOnLine(
  view: Pick<WalView, "segmentBytes" | "sets">,
  history: TimelineHistory,
  first: number,
): LineSegment | undefined {
  for (const { timeline, ...part } of partsFrom(view, history, first)) {
    const set = view.sets.get(timeline);
    const missing = set === undefined ? part.first : set.firstMissing(part.first, part.last);
    if (missing !== undefined) return { timeline, segmentNumber: missing };
  }
  return undefined;
}

/** The line's segments from `first` to its last one that is there. */
function partsFrom(
  view: Pick<WalView, "segmentBytes" | "sets">,
  history: TimelineHistory,
  first: number,
): Generator<TimelineRun> {
  return lineParts(view, history, { first, last: lastOnLine(view, history) });
}

/** The first segment of the line, from `first` on, that is there. */
export function firstOnLine(
  view: Pick<WalView, "segmentBytes" | "sets">,
  history: TimelineHistory,
  first: number,
): LineSegment | undefined {
  for (const { timeline, ...part } of partsFrom(view, history, first)) {
    const run = view.sets.get(timeline)?.runs.find(({ last }) => last >= part.first);
    if (run === undefined || run.first > part.last) continue;
    return { timeline, segmentNumber: Math.max(run.first, part.first) };
  }
  return undefined;
}

/** Number of the last segment of the line that is there; -1 without any. */
function lastOnLine(
  view: Pick<WalView, "segmentBytes" | "sets">,
  history: TimelineHistory,
): number {
  return view.sets.get(history.timeline)?.runs.at(-1)?.last ?? lastBeforeFork(view, history);
}

/** The same of what the line has of earlier timelines. */
export function lastBeforeFork(
  { segmentBytes, sets }: Pick<WalView, "segmentBytes" | "sets">,
  { ancestors }: TimelineHistory,
): number {
  for (const ancestor of ancestors.toReversed()) {
    const left = Number(ancestor.endLsn / BigInt(segmentBytes));
    const run = sets.get(ancestor.timeline)?.runs.findLast(({ first }) => first < left);
    if (run !== undefined) return Math.min(run.last, left - 1);
  }
  return -1;
}
