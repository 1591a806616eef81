import { segmentsPerHigh, type TimelineRows, type WalObjects } from "../catalogue/wal-objects.ts";
import type { ObjectKey } from "../storage/storage.ts";
import type { KeptSegments, KeptWal } from "./kept-wal.ts";
import type { Survey } from "./survey.ts";

/** Segments that share one of WAL-G's lists of changed blocks, and one of its notes. */
const GROUP_SEGMENTS = 16;

/** For each object of the WAL folder whether it stays: four bytes each. */
export interface WalDecisions {
  readonly removedCount: number;
  readonly removedBytes: number;
  isKept(row: number): boolean;
  /** Why the object stays; undefined when it goes. */
  reasonAt(row: number): string | undefined;
  /** By the first 23 digits: whether something of the group stays, or all there is goes. */
  readonly groups: ReadonlyMap<string, "kept" | "removed">;
}

const REMOVED = 0;

/** Decides for each object; without `isAsked` all stay. `held` stays for the reasons given. */
export function decideWal(
  survey: Survey,
  {
    kept,
    isAsked,
    held,
  }: {
    readonly kept: KeptWal;
    readonly isAsked: boolean;
    readonly held: ReadonlyMap<ObjectKey, string>;
  },
): WalDecisions {
  const { wal } = survey.catalogue;
  const decisions = new Decisions(wal, held);
  for (const rows of wal.timelineRanges()) {
    if (!isAsked) decisions.keepAll(rows, "WAL is not asked for");
    else decideTimeline(survey, decisions, rows, kept.segmentsOf(rows.timeline));
  }
  const groups = isAsked ? groupsOf(survey, decisions) : new Map<string, "kept" | "removed">();
  return {
    removedCount: decisions.removedCount,
    removedBytes: decisions.removedBytes,
    groups,
    isKept: (row) => decisions.reasonAt(row) !== undefined,
    reasonAt: (row) => decisions.reasonAt(row),
  };
}

class Decisions {
  removedCount = 0;
  removedBytes = 0;
  readonly #wal: WalObjects;
  readonly #codes: Uint32Array;
  readonly #reasons: string[] = [];
  readonly #codeByReason = new Map<string, number>();

  readonly #held: ReadonlyMap<ObjectKey, string>;

  constructor(wal: WalObjects, held: ReadonlyMap<ObjectKey, string>) {
    this.#wal = wal;
    this.#held = held;
    this.#codes = new Uint32Array(wal.count);
  }

  keep(row: number, reason: string): void {
    const known = this.#codeByReason.get(reason);
    const code = known ?? this.#reasons.push(reason);
    if (known === undefined) this.#codeByReason.set(reason, code);
    this.#codes[row] = code;
  }

  keepAll({ start, end }: TimelineRows, reason: string): void {
    for (let row = start; row < end; row += 1) this.keep(row, reason);
  }

  remove(row: number): void {
    const hold = this.#held.size === 0 ? undefined : this.#held.get(this.#wal.keyAt(row));
    if (hold !== undefined) {
      this.keep(row, hold);
      return;
    }
    this.removedCount += 1;
    this.removedBytes += this.#wal.sizeAt(row);
  }

  reasonAt(row: number): string | undefined {
    const code = this.#codes[row] ?? REMOVED;
    return code === REMOVED ? undefined : this.#reasons[code - 1];
  }
}

function decideTimeline(
  survey: Survey,
  decisions: Decisions,
  { start, end }: TimelineRows,
  segments: readonly KeptSegments[],
): void {
  const { wal } = survey.catalogue;
  const perHigh = segmentsPerHigh(survey.segmentBytes);
  let next = 0;
  for (let row = start; row < end; row += 1) {
    const kind = wal.kindAt(row);
    if (kind === "unknown" || wal.lowAt(row) >= perHigh) {
      decisions.keep(row, "not ours to judge: its name is not known");
      continue;
    }
    const segmentNumber = wal.segmentNumberAt(row, survey.segmentBytes);
    while ((segments[next]?.last ?? Infinity) < segmentNumber) next += 1;
    const found = segments[next];
    // A list of changed blocks speaks of the segments behind it, too.
    const last = kind === "delta" ? segmentNumber + GROUP_SEGMENTS - 1 : segmentNumber;
    if (found !== undefined && found.first <= last) decisions.keep(row, found.reason);
    else decisions.remove(row);
  }
}

/** Only groups of which something goes matter. */
function groupsOf(survey: Survey, decisions: Decisions): ReadonlyMap<string, "kept" | "removed"> {
  const { wal, noteKeys } = survey.catalogue;
  const groups = new Map<string, "kept" | "removed">();
  if (noteKeys.length === 0) return groups;
  for (let row = 0; row < wal.count; row += 1) {
    const group = wal.segmentNameAt(row).slice(0, 23);
    if (decisions.reasonAt(row) !== undefined) groups.set(group, "kept");
    else if (!groups.has(group)) groups.set(group, "removed");
  }
  return groups;
}
