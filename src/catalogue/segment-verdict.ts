import { formatLsn, type Lsn, lsn } from "../postgres/lsn.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import { segmentStart } from "../postgres/wal-file.ts";
import type { SegmentReading } from "./segment-reader.ts";
import type { WalView } from "./wal-view.ts";

/** What a segment is measured by. */
export interface SegmentExpectation {
  readonly view: WalView;
  /** Of the repository; undefined where nothing tells. */
  readonly systemId: bigint | undefined;
}

/** What is wrong with a segment that was read; undefined when it is as PostgreSQL wrote it. */
export function judgeSegment(
  reading: SegmentReading,
  { view, systemId }: SegmentExpectation,
): string | undefined {
  const { fault, header, walk, object, plainBytes } = reading;
  if (fault !== undefined) return fault;
  if (header === undefined || walk === undefined) return "it has no header";
  if (systemId !== undefined && header.systemId !== systemId) {
    return `it is of cluster ${header.systemId}, the repository of cluster ${systemId}`;
  }
  if (plainBytes !== header.segmentBytes) {
    return `it has ${plainBytes} bytes, its header says ${header.segmentBytes}`;
  }
  const isPartial = object.name.endsWith(".partial");
  const leftLsn = firstLeft(view, object);
  if (walk.end === "invalid") {
    const endLsn = lsn(header.startLsn + BigInt(walk.endOfRecords));
    if (leftLsn !== undefined && endLsn >= leftLsn) return undefined;
    if (isPartial && leftLsn === undefined) return undefined;
    const needed =
      leftLsn === undefined ? "" : `, the next timeline begins at ${formatLsn(leftLsn)}`;
    return `its records break off at ${formatLsn(endLsn)} (${walk.reason})${needed}`;
  }
  if (walk.end === "switch" && !reading.isTailEmpty && !isPartial) {
    return "what follows its last record is not empty";
  }
  return undefined;
}

/**
 * Where the first newer timeline left this one within the segment. An unfinished one is not needed
 * up to there where that has a whole segment of its own, which begins with the same records.
 */
function firstLeft(view: WalView, object: SegmentReading["object"]): Lsn | undefined {
  const { segmentBytes, histories } = view;
  const isPartial = object.name.endsWith(".partial");
  const from = segmentStart(BigInt(object.number), segmentBytes);
  const end = segmentStart(BigInt(object.number) + 1n, segmentBytes);
  let first: Lsn | undefined;
  for (const history of histories.values()) {
    if (isPartial && isReplaced(view, history, object)) continue;
    const { ancestors } = history;
    for (const { timeline, endLsn } of ancestors) {
      if (timeline !== object.timeline || endLsn < from || endLsn > end) continue;
      if (first === undefined || endLsn < first) first = endLsn;
    }
  }
  return first;
}

/** Whether a recovery along this history finds the segment on a timeline behind the object's. */
function isReplaced(
  { sets }: WalView,
  { ancestors, timeline: newest }: TimelineHistory,
  { timeline, number }: SegmentReading["object"],
): boolean {
  const line = [...ancestors.map((ancestor) => ancestor.timeline), newest];
  return line.some((one) => one > timeline && sets.get(one)?.has(number) === true);
}
