import { FormatError } from "../errors.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import { formatSegmentName, parseSegmentName, segmentNumberOf } from "../postgres/wal-file.ts";

/** Where a recovery goes from one segment to the next. */
export interface Lineage {
  readonly segmentBytes: number;
  /** Of the timeline that recovery goes to; absent while no newer one is known. */
  readonly history: TimelineHistory | undefined;
}

/**
 * The segment that recovery asks for after `name`: of the newest timeline of the history that began
 * in or before it, and never of an older one than `name` is of. Undefined behind the last position
 * that there can be. Throws FormatError for names that are none of this segment size.
 *
 * @source XLogFileReadAnyTLI, src/backend/access/transam/xlogrecovery.c
 */
export function followingSegment(
  name: string,
  { segmentBytes, history }: Lineage,
): string | undefined {
  const { timeline, segmentNumber } = parseSegmentName(name, segmentBytes);
  const next = segmentNumber + 1n;
  if (next >= (1n << 64n) / BigInt(segmentBytes)) return undefined;
  return formatSegmentName(
    newestTimelineIn(next, timeline, { segmentBytes, history }),
    next,
    segmentBytes,
  );
}

/** Whether a segment of this size can have the name. */
export function isSegmentName(name: string, segmentBytes: number): boolean {
  try {
    parseSegmentName(name, segmentBytes);
    return true;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

/** The timeline that recovery tries first for a segment, coming from `timeline`. */
export function newestTimelineIn(
  segmentNumber: bigint,
  timeline: number,
  { segmentBytes, history }: Lineage,
): number {
  if (history === undefined) return timeline;
  let newest = timeline;
  for (const [index, ancestor] of history.ancestors.entries()) {
    const child = history.ancestors[index + 1]?.timeline ?? history.timeline;
    if (child > newest && segmentNumberOf(ancestor.endLsn, segmentBytes) <= segmentNumber) {
      newest = child;
    }
  }
  return newest;
}

/** What the prefetcher knows when it chooses. All names are of segments. */
export interface PrefetchState {
  /** The first segment that recovery does not have yet; undefined when there can be none. */
  readonly cursor: string | undefined;
  /** Fetched, and not taken. */
  readonly ready: ReadonlySet<string>;
  readonly underWay: ReadonlySet<string>;
  /** Not to be tried now: absent from the archive, or just failed. Nothing behind it is fetched. */
  readonly isBlocked: (name: string) => boolean;
}

export interface PrefetchLimits {
  /** Segments at and behind the cursor that may be begun. */
  readonly reach: number;
  /** Segments at and behind the cursor that are kept once they are there; at least `reach`. */
  readonly keep: number;
  readonly concurrency: number;
}

export interface PrefetchPlan {
  /** The nearest first. */
  readonly begin: readonly string[];
  /** Ready ones that recovery is not going to ask for. */
  readonly drop: readonly string[];
  /** Under way, for nothing. */
  readonly cancel: readonly string[];
}

/**
 * The next step. Never begins a segment before the cursor, twice, or behind one that is blocked.
 */
export function planPrefetch(
  { cursor, ready, underWay, isBlocked }: PrefetchState,
  { reach, keep, concurrency }: PrefetchLimits,
  following: (name: string) => string | undefined,
): PrefetchPlan {
  const wanted = new Set<string>();
  const reached: string[] = [];
  for (let name = cursor; name !== undefined && wanted.size < keep; name = following(name)) {
    if (isBlocked(name) && !ready.has(name)) break;
    if (wanted.size < reach) reached.push(name);
    wanted.add(name);
  }
  const cancel = [...underWay].filter((name) => !wanted.has(name));
  const room = concurrency - (underWay.size - cancel.length);
  const missing = reached.filter((name) => !ready.has(name) && !underWay.has(name));
  return {
    begin: missing.slice(0, Math.max(room, 0)),
    drop: [...ready].filter((name) => !wanted.has(name)),
    cancel,
  };
}
