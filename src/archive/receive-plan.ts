import { type Lsn, lsn } from "../postgres/lsn.ts";
import { type TimelineHistory, timelineOf } from "../postgres/timeline-history.ts";
import { segmentNumberOf, segmentStart } from "../postgres/wal-file.ts";

/** Where streaming begins. */
export interface ReceiveStart {
  readonly timeline: number;
  /** The start of the segment that holds `positionLsn`: a stored segment is always whole. */
  readonly startLsn: Lsn;
  /** All before it, on the way to the server's timeline, needs not be received again. */
  readonly positionLsn: Lsn;
}

/** WAL that is in the archive, or safely on its way there. */
export interface OwnWal {
  /** Of the timeline that `endLsn` is on. */
  readonly history: TimelineHistory;
  readonly endLsn: Lsn;
}

/** What to do after a connection was made again. */
export type Continuation =
  | { readonly kind: "start"; readonly start: ReceiveStart }
  /**
   * The server's history left ours at `start.positionLsn`; what we have from there on is not in it.
   */
  | { readonly kind: "forked"; readonly start: ReceiveStart }
  /** The server is on an older timeline than the WAL that we have: it was left behind. */
  | { readonly kind: "stale" };

/** Begins at a position of the server's history. */
export function startAt(
  server: TimelineHistory,
  positionLsn: Lsn,
  segmentBytes: number,
): ReceiveStart {
  return {
    timeline: timelineOf(server, positionLsn),
    startLsn: segmentStart(segmentNumberOf(positionLsn, segmentBytes), segmentBytes),
    positionLsn,
  };
}

/** Goes on where we were, or where the server's history left the WAL that we have. */
export function planContinuation(
  server: TimelineHistory,
  own: OwnWal,
  segmentBytes: number,
): Continuation {
  if (server.timeline < own.history.timeline) return { kind: "stale" };
  const commonEnd = endOfCommonWal(server, own);
  const start = startAt(server, commonEnd, segmentBytes);
  return { kind: commonEnd < own.endLsn ? "forked" : "start", start };
}

function endOfCommonWal(server: TimelineHistory, { history, endLsn }: OwnWal): Lsn {
  const ours = [...history.ancestors, { timeline: history.timeline, endLsn }];
  const theirs = [...server.ancestors, { timeline: server.timeline, endLsn: undefined }];
  let commonEnd = lsn(0n);
  for (const [index, one] of ours.entries()) {
    const other = theirs[index];
    if (other?.timeline !== one.timeline) break;
    const isLeftEarlier = other.endLsn !== undefined && other.endLsn < one.endLsn;
    commonEnd = isLeftEarlier ? other.endLsn : one.endLsn;
    if (other.endLsn !== one.endLsn) break;
  }
  return commonEnd;
}
