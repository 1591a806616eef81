import { RefusedError } from "../errors.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import { timelineOf, type TimelineHistory } from "../postgres/timeline-history.ts";
import {
  formatSegmentName,
  parseSegmentName,
  parseWalFileName,
  segmentNumberOf,
} from "../postgres/wal-file.ts";

/**
 * Where two histories part: the first position that is not on both. Throws RefusedError when one
 * goes on where the other ends, because then nothing has to be rewound.
 *
 * @source findCommonAncestorTimeline, src/bin/pg_rewind/pg_rewind.c
 */
export function findFork(one: TimelineHistory, other: TimelineHistory): Lsn {
  const [ones, others] = [spans(one), spans(other)];
  for (const [index, span] of ones.entries()) {
    const counterpart = others[index];
    if (counterpart === undefined || counterpart.timeline !== span.timeline) break;
    if (counterpart.endLsn === span.endLsn && span.endLsn !== undefined) continue;
    const ends = [span.endLsn, counterpart.endLsn].filter((end) => end !== undefined);
    const [first, second = first] = ends;
    if (first === undefined || second === undefined) break;
    return first < second ? first : second;
  }
  throw new RefusedError(
    `timelines ${one.timeline} and ${other.timeline} do not part: there is nothing to rewind`,
    { hint: "The first directory is the old primary's, the second the new primary's." },
  );
}

/** Each timeline with its end; the own one has none yet. */
function spans({ timeline, ancestors }: TimelineHistory) {
  return [...ancestors, { timeline, endLsn: undefined }];
}

export interface RewindState {
  /** Of the server whose directory it is. */
  readonly history: TimelineHistory;
  readonly fork: Lsn;
  readonly segmentBytes: number;
  /** Where its pg_control's checkpoint stands: its WAL reaches at least there. */
  readonly checkpointLsn: Lsn;
  /** Names in its pg_wal. */
  readonly local: Iterable<string>;
}

/**
 * The segments of a server's history from the fork up to its newest one that its pg_wal lacks.
 * Undefined when it wrote nothing behind the fork.
 */
export function missingSegments(state: RewindState): readonly string[] | undefined {
  const { history, fork, segmentBytes, checkpointLsn } = state;
  const local = new Set(state.local);
  const first = segmentNumberOf(fork, segmentBytes);
  let newest = checkpointLsn < fork ? first - 1n : segmentNumberOf(checkpointLsn, segmentBytes);
  for (const name of local) {
    if (parseWalFileName(name)?.kind !== "segment") continue;
    const { timeline, segmentNumber } = parseSegmentName(name, segmentBytes);
    if (timeline === history.timeline && segmentNumber > newest) newest = segmentNumber;
  }
  if (newest < first) return undefined;
  const missing: string[] = [];
  for (let number = first; number <= newest; number += 1n) {
    const name = segmentNameOn(history, number, segmentBytes);
    if (!local.has(name)) missing.push(name);
  }
  return missing;
}

/** A segment's name where one follows a history: that of the timeline that reaches its end. */
export function segmentNameOn(
  history: TimelineHistory,
  segmentNumber: bigint,
  segmentBytes: number,
): string {
  const lastByte = lsn((segmentNumber + 1n) * BigInt(segmentBytes) - 1n);
  return formatSegmentName(timelineOf(history, lastByte), segmentNumber, segmentBytes);
}
