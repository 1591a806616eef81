import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import { findChainFault } from "../catalogue/chain.ts";
import {
  firstHoleOnLine,
  firstOnLine,
  firstSegment,
  type LineSegment,
  lineOfBackup,
  missingOnLine,
  ownSegments,
} from "../catalogue/wal-line.ts";
import { historyOf } from "../catalogue/wal-view.ts";
import { lsn } from "../postgres/lsn.ts";
import { isOnHistory, type TimelineHistory } from "../postgres/timeline-history.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { Survey } from "./survey.ts";

/**
 * Why the backup could not be restored, as far as a listing shows; undefined if nothing speaks
 * against it. What its objects hold is not looked at.
 */
export function findFault(survey: Survey, backup: CatalogueBackup): string | undefined {
  return findChainFault(survey, backup) ?? findMissingWal(survey, backup);
}

/** What of a backup's own WAL is missing, with a name. */
function findMissingWal(survey: Survey, backup: CatalogueBackup): string | undefined {
  const range = ownSegments(survey, backup);
  if (range === undefined) return undefined;
  const [missing] = missingOnLine(survey, lineOfBackup(survey, backup, range), range);
  if (missing === undefined) return undefined;
  const { timeline, first } = missing;
  const segment = formatSegmentName(timeline, BigInt(first), survey.segmentBytes);
  return `its WAL segment ${segment} is missing`;
}

/** Orders backups by where they can be consistent at the earliest. */
export function byEnd(one: CatalogueBackup, other: CatalogueBackup): number {
  const difference = endOf(one) - endOf(other);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

function endOf({ finishLsn, startLsn = 0n }: CatalogueBackup): bigint {
  return finishLsn ?? startLsn;
}

/** How far a replay gets on the way to the newest timeline. */
export interface WayToNewest {
  /** Segment in which it begins. */
  readonly first: number;
  /** Where it ends before the archive does. */
  readonly hole: LineSegment | undefined;
}

/**
 * On the way to the newest timeline of the repository: undefined if a restore of this backup does
 * not come to its own end there; else how far it gets. Where the newest timeline's history is not
 * known, every backup may be on its way, as far as its own timeline goes.
 */
export function wayToNewest(survey: Survey, backup: CatalogueBackup): WayToNewest | undefined {
  const replay = replayToNewest(survey, backup);
  return replay === undefined || replay.isCut ? undefined : replay;
}

/**
 * Where segments of the backup's own WAL are missing on that way, the first one behind them: it
 * alone tells that they are not just late. Without it the backup would count as one whose WAL is
 * still to come.
 */
export function proofOfLoss(survey: Survey, backup: CatalogueBackup): LineSegment | undefined {
  const replay = replayToNewest(survey, backup);
  if (replay?.hole === undefined || !replay.isCut) return undefined;
  return firstOnLine(survey, replay.line, replay.hole.segmentNumber);
}

interface Replay extends WayToNewest {
  readonly line: TimelineHistory;
  /** Whether the hole is in the backup's own WAL. */
  readonly isCut: boolean;
}

/** Undefined if no line leads from the backup to the newest timeline. */
function replayToNewest(survey: Survey, backup: CatalogueBackup): Replay | undefined {
  const { timeline, endTimeline = timeline, finishLsn, startLsn = 0n } = backup;
  const newest = survey.timelines.at(-1) ?? timeline;
  const known = survey.histories.get(newest);
  const line = known ?? { timeline, ancestors: [] };
  const consistentLsn = lsn(finishLsn ?? startLsn);
  const isOn = known === undefined || isOnHistory(known, endTimeline, consistentLsn);
  if (!isOn) return undefined;
  const own = ownSegments(survey, backup);
  const first = own?.first ?? firstSegment(survey, backup);
  const hole = firstHoleOnLine(survey, line, first);
  const isOwn = hole !== undefined && own !== undefined && hole.segmentNumber <= own.last;
  // Up to where the timeline of its end was left, that one's file of the segment does as well.
  const isElsewhere =
    isOwn && missingOnLine(survey, historyOf(survey, endTimeline), own).length === 0;
  return { first, hole, line, isCut: isOwn && !isElsewhere };
}
