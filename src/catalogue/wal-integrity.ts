import { type Lsn, lsn } from "../postgres/lsn.ts";
import { type TimelineHistory, timelineOf } from "../postgres/timeline-history.ts";
import {
  formatSegmentName,
  segmentNumberOf,
  segmentOfEnd,
  segmentStart,
} from "../postgres/wal-file.ts";
import type { SegmentRun, SegmentSet } from "./segment-set.ts";

/** WAL-G's words for a segment. */
export type SegmentStatus = "FOUND" | "MISSING_DELAYED" | "MISSING_UPLOADING" | "MISSING_LOST";

export type CheckStatus = "OK" | "WARNING" | "FAILURE";

/** Neighbours of one timeline with one status. */
export interface StatusRun extends SegmentRun {
  readonly timeline: number;
  readonly status: SegmentStatus;
}

export interface IntegrityQuery {
  readonly sets: ReadonlyMap<number, SegmentSet>;
  readonly segmentBytes: number;
  /** Of the cluster's timeline. */
  readonly history: TimelineHistory;
  /** Where the cluster writes; the segment of the byte before it is not looked for. */
  readonly currentLsn: Lsn;
  /** The earliest position that has to be there; undefined without any backup. */
  readonly fromLsn: Lsn | undefined;
  /** Segments that may be late, counted from the newest. */
  readonly delayedMax: number;
  /** Segments behind those that may be under way still. */
  readonly uploadingMax: number;
  /** Names of segments that the queue policy gave up: never late, never under way. */
  readonly givenUp: ReadonlySet<string>;
}

export interface IntegrityReport {
  readonly status: CheckStatus;
  /** Ascending. */
  readonly runs: readonly StatusRun[];
}

/**
 * Which timeline's file holds a segment on the way to `history.timeline`: that of its last byte,
 * since a new timeline begins with a copy of the segment in which it left the old one.
 *
 * @source XLogFileReadAnyTLI, src/backend/access/transam/xlogrecovery.c
 */
export function segmentTimeline(
  history: TimelineHistory,
  number: number,
  segmentBytes: number,
): number {
  const lastByte = segmentStart(BigInt(number) + 1n, segmentBytes) - 1n;
  return timelineOf(history, lsn(lastByte));
}

/** WAL-G's check: walks back from the current position, along the history, to `fromLsn`. */
export function checkIntegrity(query: IntegrityQuery): IntegrityReport {
  const { segmentBytes, currentLsn, fromLsn } = query;
  const end = currentLsn === 0n ? 0 : Number(segmentOfEnd(currentLsn, segmentBytes));
  const from = fromLsn === undefined ? 1 : Number(segmentNumberOf(fromLsn, segmentBytes));
  const backwards: StatusRun[] = [];
  const patience = new Patience(query);
  for (let number = end - 1; number >= from; number -= 1) {
    const timeline = segmentTimeline(query.history, number, segmentBytes);
    const isFound = query.sets.get(timeline)?.has(number) === true;
    const name = formatSegmentName(timeline, BigInt(number), segmentBytes);
    const expected = patience.judge(isFound);
    const status = !isFound && query.givenUp.has(name) ? "MISSING_LOST" : expected;
    const last = backwards.at(-1);
    if (last?.timeline === timeline && last.status === status) {
      backwards[backwards.length - 1] = { ...last, first: number };
    } else {
      backwards.push({ timeline, status, first: number, last: number });
    }
  }
  const ascending = backwards.toReversed();
  return { status: judgeRuns(ascending, fromLsn !== undefined), runs: ascending };
}

/** The newest segments may be late, those before them under way, and the rest is lost. */
class Patience {
  #delayed: number;
  #uploading: number;

  constructor({ delayedMax, uploadingMax }: IntegrityQuery) {
    this.#delayed = delayedMax;
    this.#uploading = uploadingMax;
  }

  judge(isFound: boolean): SegmentStatus {
    if (this.#delayed > 0) {
      this.#delayed = isFound ? 0 : this.#delayed - 1;
      return isFound ? "FOUND" : "MISSING_DELAYED";
    }
    const isUploading = this.#uploading > 0;
    this.#uploading -= 1;
    if (isFound) return "FOUND";
    return isUploading ? "MISSING_UPLOADING" : "MISSING_LOST";
  }
}

function judgeRuns(runs: readonly StatusRun[], hasBackup: boolean): CheckStatus {
  const firstFound = runs.findIndex(({ status }) => status === "FOUND");
  // What went before the first backup was taken is nobody's loss.
  const wanted = hasBackup || firstFound === -1 ? runs : runs.slice(firstFound);
  const lostIn = (some: readonly StatusRun[]) =>
    some.some(({ status }) => status === "MISSING_LOST");
  if (hasBackup ? lostIn(runs) : firstFound !== -1 && lostIn(wanted)) return "FAILURE";
  return runs.some(({ status }) => status !== "FOUND") ? "WARNING" : "OK";
}

/**
 * WAL-G's other check: the highest timeline in the archive's names is the cluster's. `timelines`
 * ascend. OK only if no history is `lost`.
 */
export function checkTimeline(
  timelines: readonly number[],
  currentTimeline: number,
  lost: readonly number[],
): { readonly status: CheckStatus; readonly highestTimeline: number } {
  const highestTimeline = timelines.at(-1) ?? 0;
  if (highestTimeline === 0) return { status: "WARNING", highestTimeline };
  if (highestTimeline !== currentTimeline) return { status: "FAILURE", highestTimeline };
  return { status: lost.length === 0 ? "OK" : "WARNING", highestTimeline };
}
