import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import { isOnHistory, type TimelineHistory } from "../postgres/timeline-history.ts";
import { lsn } from "../postgres/lsn.ts";
import type { Survey } from "./survey.ts";
import { ownSegments } from "./wholeness.ts";

/** Segments `[first, last]` of a timeline, by number, that stay; `last` may be infinite. */
export interface KeptSegments {
  readonly first: number;
  readonly last: number;
  readonly reason: string;
}

/** A place from which a restore may begin, and replay whatever follows. */
export interface ReplayStart {
  readonly timeline: number;
  readonly segmentNumber: number;
  /** Where replay must have got before it may follow another timeline. */
  readonly consistentLsn: bigint;
  readonly reason: string;
}

/** Which segments of each timeline stay, and why. */
export class KeptWal {
  readonly #survey: Survey;
  readonly #byTimeline = new Map<number, KeptSegments[]>();

  constructor(survey: Survey) {
    this.#survey = survey;
  }

  /** Everything that can be replayed from there: later WAL, and that of all timelines behind it. */
  keepFrom(start: ReplayStart): void {
    const { timeline, segmentNumber, reason } = start;
    this.#keep(timeline, { first: segmentNumber, last: Infinity, reason });
    for (const other of this.#survey.timelines) {
      if (other <= timeline) continue;
      const history = this.#survey.histories.get(other);
      if (history === undefined) {
        this.#keep(other, { first: 0, last: Infinity, reason: unknownReason(other) });
        continue;
      }
      if (isOnHistory(history, timeline, lsn(start.consistentLsn))) {
        this.#keepPath(history, timeline, { first: 0, last: Infinity, reason });
      }
    }
  }

  /** What a restore of the backup replays until it is consistent, and no more. */
  keepOwn(backup: CatalogueBackup): void {
    const { name, timeline, startLsn = 0n, finishLsn } = backup;
    const own = ownSegments(this.#survey, backup);
    if (own === undefined || finishLsn === undefined) {
      const reason = `WAL from backup ${name} on, whose end is not recorded`;
      const segmentNumber = this.#survey.nameSegment(backup);
      this.keepFrom({ timeline, segmentNumber, consistentLsn: startLsn, reason });
      return;
    }
    const segments = { ...own, reason: `own WAL of backup ${name}` };
    this.#keep(timeline, segments);
    // A timeline that left within these segments begins with a copy of what was before.
    for (const { history } of this.#survey.descendants(timeline)) {
      const left = history.ancestors.find((one) => one.timeline === timeline)?.endLsn ?? 0n;
      if (this.#segmentOf(left) >= own.first) this.#keepPath(history, timeline, segments);
    }
  }

  /** Keeps all of a timeline. */
  keepTimeline(timeline: number, reason: string): void {
    this.#keep(timeline, { first: 0, last: Infinity, reason });
  }

  /** What stays of a timeline: ascending, without overlaps. */
  segmentsOf(timeline: number): readonly KeptSegments[] {
    const sorted = (this.#byTimeline.get(timeline) ?? []).toSorted(
      (one, other) => one.first - other.first,
    );
    const disjoint: KeptSegments[] = [];
    let covered = -1;
    for (const { first, last, reason } of sorted) {
      if (last <= covered) continue;
      disjoint.push({ first: Math.max(first, covered + 1), last, reason });
      covered = last;
    }
    return disjoint;
  }

  /** On the timelines that a history passes through after `from`, up to where each is left. */
  #keepPath({ timeline, ancestors }: TimelineHistory, from: number, segments: KeptSegments): void {
    this.#keep(timeline, segments);
    for (const ancestor of ancestors) {
      if (ancestor.timeline <= from) continue;
      const left = this.#segmentOf(ancestor.endLsn);
      this.#keep(ancestor.timeline, { ...segments, last: Math.min(segments.last, left) });
    }
  }

  #segmentOf(position: bigint): number {
    return Number(position / BigInt(this.#survey.segmentBytes));
  }

  #keep(timeline: number, segments: KeptSegments): void {
    if (segments.last < segments.first) return;
    const kept = this.#byTimeline.get(timeline) ?? [];
    kept.push(segments);
    this.#byTimeline.set(timeline, kept);
  }
}

function unknownReason(timeline: number): string {
  return `timeline ${timeline} may follow a kept backup: the archive has no history of it`;
}
