import { parseWalKey, walKey } from "../layout/keys.ts";
import type { Lsn } from "../postgres/lsn.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import {
  formatHistoryName,
  formatSegmentName,
  parseSegmentName,
  parseWalFileName,
  segmentNumberOf,
  segmentStart,
} from "../postgres/wal-file.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";

/** How far back is looked, in segments: no server keeps that much without being told to. */
const LOOK_BACK_SEGMENTS = 16_384n;

/**
 * The end of the newest complete segment before `beforeLsn` that the archive holds of this history;
 * undefined if there is none near.
 */
export async function findNewestStored(
  storage: Storage,
  { history, beforeLsn, segmentBytes }: StoredQuery,
  options: CallOptions,
): Promise<Lsn | undefined> {
  const limit = segmentNumberOf(beforeLsn, segmentBytes);
  const from = limit > LOOK_BACK_SEGMENTS ? limit - LOOK_BACK_SEGMENTS : 0n;
  const ends = new Map(history.ancestors.map(({ timeline, endLsn }) => [timeline, endLsn]));
  for (const timeline of [history.timeline, ...[...ends.keys()].toReversed()]) {
    const endLsn = ends.get(timeline) ?? beforeLsn;
    const end = segmentNumberOf(endLsn < beforeLsn ? endLsn : beforeLsn, segmentBytes);
    if (end <= from) return undefined;
    const newest = await findNewest(storage, { timeline, from, end, segmentBytes }, options);
    if (newest !== undefined) return segmentStart(newest + 1n, segmentBytes);
  }
  return undefined;
}

export interface StoredQuery {
  readonly history: TimelineHistory;
  readonly beforeLsn: Lsn;
  readonly segmentBytes: number;
}

interface Range {
  readonly timeline: number;
  /** Numbers of segments, half-open. */
  readonly from: bigint;
  readonly end: bigint;
  readonly segmentBytes: number;
}

async function findNewest(
  storage: Storage,
  { timeline, from, end, segmentBytes }: Range,
  options: CallOptions,
): Promise<bigint | undefined> {
  const prefix = walKey(formatHistoryName(timeline).slice(0, 8), "");
  const startAfter = walKey(formatSegmentName(timeline, from, segmentBytes), "");
  const endKey = walKey(formatSegmentName(timeline, end, segmentBytes), "");
  let newest: bigint | undefined;
  for await (const { key } of storage.list(prefix, { ...options, startAfter })) {
    if (key >= endKey) break;
    const name = parseWalKey(key)?.name ?? "";
    if (parseWalFileName(name)?.kind !== "segment") continue;
    newest = parseSegmentName(name, segmentBytes).segmentNumber;
  }
  return newest;
}
