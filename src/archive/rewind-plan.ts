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
  /** Names in its pg_wal. */
  readonly local: Iterable<string>;
}

/**
 * The segments of a server's history from the fork up to its newest one that its pg_wal lacks.
 * Empty when it holds no segment at all behind the fork.
 */
export function missingSegments(state: RewindState): readonly string[] {
  const { history, fork, segmentBytes } = state;
  const local = new Set(state.local);
  const first = segmentNumberOf(fork, segmentBytes);
  let newest = first - 1n;
  for (const name of local) {
    if (parseWalFileName(name)?.kind !== "segment") continue;
    const { timeline, segmentNumber } = parseSegmentName(name, segmentBytes);
    if (timeline === history.timeline && segmentNumber > newest) newest = segmentNumber;
  }
  const missing: string[] = [];
  for (let number = first; number <= newest; number += 1n) {
    // A segment in which a timeline was left is read under the name of the next one.
    const lastByte = lsn((number + 1n) * BigInt(segmentBytes) - 1n);
    const name = formatSegmentName(timelineOf(history, lastByte), number, segmentBytes);
    if (!local.has(name)) missing.push(name);
  }
  return missing;
}
