import { formatSegmentName, segmentNumberOf } from "../postgres/wal-file.ts";
import { lsn } from "../postgres/lsn.ts";
import type { CatalogueBackup } from "./catalogue.ts";
import type { SegmentRun } from "./segment-set.ts";
import { historyOf, missingRuns, runLength, type WalView } from "./wal-view.ts";

/** One timeline as `wal-show` prints it. */
export interface ShownTimeline {
  readonly timeline: number;
  /** 0 where the archive does not know it. */
  readonly parentTimeline: number;
  /** 0 where the archive does not know it. */
  readonly switchLsn: bigint;
  readonly startSegment: string;
  readonly endSegment: string;
  /** From the first to the last, whether they are there or not. */
  readonly rangeCount: number;
  readonly segmentCount: number;
  /** Names, at most MISSING_NAMES_MAX. */
  readonly missing: readonly string[];
  /** Names, by position. */
  readonly backups: readonly string[];
}

/** Names of missing segments that are told of one timeline; the counts tell of the others. */
export const MISSING_NAMES_MAX = 100_000;

/** Every timeline of which there are whole segments. */
export function showTimelines(
  view: WalView,
  backups: readonly CatalogueBackup[],
): readonly ShownTimeline[] {
  const { segmentBytes } = view;
  return [...view.sets.values()].flatMap(({ timeline, runs }) => {
    const [firstRun, lastRun] = [runs[0], runs.at(-1)];
    if (firstRun === undefined || lastRun === undefined) return [];
    const range = { first: firstRun.first, last: lastRun.last };
    const parent = historyOf(view, timeline).ancestors.at(-1);
    const nameOf = (number: number) => formatSegmentName(timeline, BigInt(number), segmentBytes);
    return [
      {
        timeline,
        parentTimeline: parent?.timeline ?? 0,
        switchLsn: parent?.endLsn ?? 0n,
        startSegment: nameOf(range.first),
        endSegment: nameOf(range.last),
        rangeCount: runLength(range),
        segmentCount: runs.reduce((sum, run) => sum + runLength(run), 0),
        missing: firstNumbers(missingRuns(runs, range)).map(nameOf),
        backups: backups
          .filter((backup) => isWithin(backup, { timeline, range, segmentBytes }))
          .map(({ name }) => name),
      },
    ];
  });
}

function firstNumbers(runs: readonly SegmentRun[]): readonly number[] {
  const numbers: number[] = [];
  for (const { first, last } of runs) {
    const end = Math.min(last, first + MISSING_NAMES_MAX - numbers.length - 1);
    for (let number = first; number <= end; number += 1) numbers.push(number);
  }
  return numbers;
}

interface Place {
  readonly timeline: number;
  readonly range: SegmentRun;
  readonly segmentBytes: number;
}

function isWithin(backup: CatalogueBackup, { timeline, range, segmentBytes }: Place): boolean {
  const { startLsn, finishLsn = startLsn } = backup;
  if (startLsn === undefined || finishLsn === undefined) return false;
  const first = Number(segmentNumberOf(lsn(startLsn), segmentBytes));
  const last = Number(segmentNumberOf(lsn(finishLsn), segmentBytes));
  return backup.timeline === timeline && range.first <= first && last <= range.last;
}
