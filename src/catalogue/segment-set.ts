import { segmentsPerHigh, type TimelineRows, type WalObjects } from "./wal-objects.ts";

/** Consecutive segments of one timeline, by number, both ends included. */
export interface SegmentRun {
  readonly first: number;
  readonly last: number;
}

/** Which whole segments of one timeline there are: as runs, however many segments that is. */
export class SegmentSet {
  readonly timeline: number;
  /** Ascending, with at least one missing segment between two of them. */
  readonly runs: readonly SegmentRun[];

  constructor(timeline: number, runs: readonly SegmentRun[]) {
    this.timeline = timeline;
    this.runs = runs;
  }

  /** First of `[first, last]` that is not there; undefined if all are. */
  firstMissing(first: number, last: number): number | undefined {
    if (last < first) return undefined;
    const run = this.#runOf(first);
    if (run === undefined) return first;
    return run.last >= last ? undefined : run.last + 1;
  }

  has(segmentNumber: number): boolean {
    return this.#runOf(segmentNumber) !== undefined;
  }

  #runOf(segmentNumber: number): SegmentRun | undefined {
    let low = 0;
    let high = this.runs.length;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((this.runs[middle]?.last ?? 0) < segmentNumber) low = middle + 1;
      else high = middle;
    }
    const run = this.runs[low];
    return run !== undefined && run.first <= segmentNumber ? run : undefined;
  }
}

/**
 * The whole segments of each timeline; those that a caller leaves out do not count. What can't be
 * the name of a segment of this size is not among them.
 */
export function segmentSets(
  wal: WalObjects,
  segmentBytes: number,
  isCounted: (row: number) => boolean = () => true,
): ReadonlyMap<number, SegmentSet> {
  const sets = new Map<number, SegmentSet>();
  for (const rows of wal.timelineRanges()) {
    const runs = runsOf(wal, rows, { segmentBytes, isCounted });
    if (runs.length > 0) sets.set(rows.timeline, new SegmentSet(rows.timeline, runs));
  }
  return sets;
}

function runsOf(
  wal: WalObjects,
  { start, end }: TimelineRows,
  {
    segmentBytes,
    isCounted,
  }: { readonly segmentBytes: number; readonly isCounted: (row: number) => boolean },
): readonly SegmentRun[] {
  const perHigh = segmentsPerHigh(segmentBytes);
  const runs: { first: number; last: number }[] = [];
  for (let row = start; row < end; row += 1) {
    if (wal.kindAt(row) !== "segment" || wal.lowAt(row) >= perHigh || !isCounted(row)) continue;
    const segmentNumber = wal.segmentNumberAt(row, segmentBytes);
    const last = runs.at(-1);
    if (last !== undefined && segmentNumber <= last.last + 1) last.last = segmentNumber;
    else runs.push({ first: segmentNumber, last: segmentNumber });
  }
  return runs;
}
