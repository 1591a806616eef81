import { RefusedError } from "../errors.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import { type Catalogue, historiesByTimeline } from "./catalogue.ts";
import { type SegmentRun, type SegmentSet, segmentSets } from "./segment-set.ts";

/** What plans over WAL need of a catalogue. */
export interface WalView {
  readonly segmentBytes: number;
  /** Whole segments by timeline, ascending; timelines without any are not there. */
  readonly sets: ReadonlyMap<number, SegmentSet>;
  /** Of every timeline that the archive has a readable history of. */
  readonly histories: ReadonlyMap<number, TimelineHistory>;
  /** Every timeline that some object is named after, ascending. */
  readonly timelines: readonly number[];
}

const DEFAULT_SEGMENT_BYTES = 16 * 1024 * 1024;

/** Rejects an archive of clusters with several segment sizes: their names contradict each other. */
export function walView(catalogue: Catalogue): WalView {
  const { segmentBytes = DEFAULT_SEGMENT_BYTES, wal } = catalogue;
  if (segmentBytes === "mixed") {
    throw new RefusedError(
      `${catalogue.storageName} holds backups with several sizes of WAL segments`,
      { hint: "Several clusters were archived here. Give each a prefix of its own." },
    );
  }
  const named = [...wal.timelineRanges(), ...catalogue.histories].map(({ timeline }) => timeline);
  return {
    segmentBytes,
    sets: segmentSets(wal, segmentBytes),
    histories: historiesByTimeline(catalogue),
    timelines: [...new Set(named)].toSorted((one, other) => one - other),
  };
}

/** The history of a timeline, or one without ancestors where the archive has none. */
export function historyOf(
  { histories }: Pick<WalView, "histories">,
  timeline: number,
): TimelineHistory {
  return histories.get(timeline) ?? { timeline, ancestors: [] };
}

/** How many segments a run holds. */
export function runLength({ first, last }: SegmentRun): number {
  return last - first + 1;
}

/** What of `range` is in none of the runs, which ascend. */
export function missingRuns(
  runs: readonly SegmentRun[],
  { first, last }: SegmentRun,
): readonly SegmentRun[] {
  const missing: SegmentRun[] = [];
  let next = first;
  for (const run of runs) {
    if (run.last < next) continue;
    if (run.first > last) break;
    if (run.first > next) missing.push({ first: next, last: run.first - 1 });
    next = run.last + 1;
  }
  if (next <= last) missing.push({ first: next, last });
  return missing;
}
