import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import { type SegmentSet, segmentSets } from "../catalogue/segment-set.ts";
import { firstSegment, type TimelineRun } from "../catalogue/wal-line.ts";
import { RefusedError } from "../errors.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import { surveyAfter } from "./after-plan.ts";
import type { RetentionPlan } from "./plan.ts";
import { isFull, isSound } from "./policy.ts";
import type { Survey } from "./survey.ts";
import { byEnd, findFault, wayToNewest } from "./wholeness.ts";

/** Violations that are named at most. */
const MAX_SHOWN = 5;

/**
 * Looks at the repository as the plan would leave it, and asks of that the same as of any other:
 * not how the plan came about. Throws RefusedError if a kept backup would lose what it needs, if a
 * promised time would not be reachable, or if too few backups would be left. What was broken
 * before is not the plan's fault.
 */
export function checkPlan(plan: RetentionPlan, minimumFulls = 0): void {
  const after = surveyAfter(plan);
  const violations = [
    ...brokenBackups(plan, after),
    ...removedProtected(plan),
    ...missingReplay(plan),
    ...brokenPromise(plan, after),
    ...tooFew(plan, after, minimumFulls),
  ];
  if (violations.length === 0) return;
  const more = violations.length > MAX_SHOWN ? `, and ${violations.length - MAX_SHOWN} more` : "";
  throw new RefusedError(
    `the plan is refused: ${violations.slice(0, MAX_SHOWN).join("; ")}${more}`,
    { hint: "Nothing was removed. This is a fault of walnut's planning: please report it." },
  );
}

function brokenBackups({ survey, backups }: RetentionPlan, after: Survey): readonly string[] {
  return backups.flatMap(({ backup, isKept }) => {
    if (!isKept || findFault(survey, backup) !== undefined) return [];
    const fault = findFault(after, backup);
    return fault === undefined ? [] : `kept backup ${backup.name} would be broken: ${fault}`;
  });
}

function removedProtected({ backups, selection, unfinished }: RetentionPlan): readonly string[] {
  const permanent = backups.filter(({ backup, isKept }) => backup.isPermanent && !isKept);
  const running = unfinished.filter(({ isKept, mayBeRunning }) => mayBeRunning && !isKept);
  return [
    ...(selection.scope.isForced === true ? [] : permanent).map(
      ({ backup }) => `permanent backup ${backup.name} would be removed`,
    ),
    ...running.map(({ unfinished: one }) => `${one.name}, which may run, would be removed`),
  ];
}

/** Removed WAL that a replay could come to which is to stay possible. */
function missingReplay(plan: RetentionPlan): readonly string[] {
  const { survey, selection, wal } = plan;
  const isRemoved = (row: number): boolean => !wal.isKept(row);
  const removed = segmentSets(survey.catalogue.wal, survey.segmentBytes, isRemoved);
  return plan.backups.flatMap(({ backup, isKept }) => {
    const isReplayed = isKept && selection.replayFrom.has(backup.name);
    const lost = isReplayed ? firstLost(survey, backup, removed) : undefined;
    return lost === undefined ? [] : `WAL ${lost} behind ${backup.name} would be removed`;
  });
}

function firstLost(
  survey: Survey,
  backup: CatalogueBackup,
  removed: ReadonlyMap<number, SegmentSet>,
): string | undefined {
  for (const { timeline, first, last } of replayRanges(survey, backup)) {
    const run = removed.get(timeline)?.runs.find((one) => one.last >= first && one.first <= last);
    if (run === undefined) continue;
    return formatSegmentName(timeline, BigInt(Math.max(run.first, first)), survey.segmentBytes);
  }
  return undefined;
}

/** All that a replay from the backup could come to. */
function replayRanges(survey: Survey, backup: CatalogueBackup): readonly TimelineRun[] {
  const size = BigInt(survey.segmentBytes);
  const start = firstSegment(survey, backup);
  const consistent = backup.finishLsn ?? backup.startLsn ?? 0n;
  const { endTimeline: ended = backup.timeline } = backup;
  const ranges = [
    { timeline: backup.timeline, first: start, last: Infinity },
    { timeline: ended, first: start, last: Infinity },
  ];
  for (const { timeline, history } of survey.descendants(ended)) {
    const left = history.ancestors.find((one) => one.timeline === ended)?.endLsn ?? 0n;
    if (left < consistent) continue;
    ranges.push({ timeline, first: 0, last: Infinity });
    for (const { timeline: between, endLsn } of history.ancestors) {
      if (between <= ended) continue;
      ranges.push({ timeline: between, first: 0, last: Number(endLsn / size) });
    }
  }
  for (const timeline of survey.timelines) {
    // It may have left any timeline before it.
    const isUnknown = timeline > ended && !survey.histories.has(timeline);
    if (isUnknown) ranges.push({ timeline, first: 0, last: Infinity });
  }
  return ranges;
}

function brokenPromise(plan: RetentionPlan, after: Survey): readonly string[] {
  const { promise, replayFrom } = plan.selection;
  if (promise === undefined) return [];
  const { backup } = promise;
  const start = after.byName.get(backup);
  if (start === undefined) return [`${backup}, which the promised time needs, would go`];
  if (!replayFrom.has(backup)) return [`the WAL behind ${backup} would not be kept`];
  return lostReach(plan, start);
}

/** What is taken away behind the promise's start although no earlier replay gets where it does. */
function lostReach({ survey, selection, backups }: RetentionPlan, start: CatalogueBackup) {
  // Nobody can tell what leads to a timeline without history, or where replay ends on the way.
  if (!survey.histories.has(survey.timelines.at(-1) ?? 1)) return [];
  const behind = backups.flatMap(({ backup, isKept }) => {
    const way = byEnd(backup, start) < 0 ? undefined : wayToNewest(survey, backup);
    return way === undefined ? [] : [{ backup, isKept, endsAt: way.hole?.segmentNumber }];
  });
  const replayed = behind.filter(
    ({ backup, isKept }) => isKept && selection.replayFrom.has(backup.name),
  );
  return behind
    .filter(
      ({ backup, isKept, endsAt }) =>
        !isKept &&
        isSound(survey, backup) &&
        !replayed.some((one) => one.endsAt === endsAt && byEnd(one.backup, backup) <= 0),
    )
    .map(({ backup }) => `${backup.name}, the first behind missing WAL, would go`);
}

function tooFew(plan: RetentionPlan, after: Survey, minimumFulls: number): readonly string[] {
  const before = countFulls(plan.survey, plan.survey.byName.values());
  const left = countFulls(after, after.byName.values());
  const wanted = Math.min(before, minimumFulls);
  return left >= wanted ? [] : [`${left} full backups would be left, ${wanted} are to stay`];
}

function countFulls(survey: Survey, backups: Iterable<CatalogueBackup>): number {
  return [...backups].filter((backup) => isFull(backup) && isSound(survey, backup)).length;
}
