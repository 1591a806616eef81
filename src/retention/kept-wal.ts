import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import {
  firstSegment,
  forkWithin,
  lineOfBackup,
  type LineSegment,
  missingOnLine,
  ownParts,
  ownSegments,
} from "../catalogue/wal-line.ts";
import { isOnHistory, type TimelineHistory } from "../postgres/timeline-history.ts";
import { lsn } from "../postgres/lsn.ts";
import type { Survey } from "./survey.ts";

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
  /** Where replay must have got before it may follow another timeline, and on which. */
  readonly consistentLsn: bigint;
  readonly consistentTimeline: number;
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
    const { timeline, segmentNumber, consistentLsn, consistentTimeline, reason } = start;
    this.#keep(timeline, { first: segmentNumber, last: Infinity, reason });
    for (const other of this.#survey.timelines) {
      if (other <= timeline) continue;
      const history = this.#survey.histories.get(other);
      if (history === undefined) {
        this.#keep(other, { first: 0, last: Infinity, reason: unknownReason(other) });
        continue;
      }
      if (isOnHistory(history, consistentTimeline, lsn(consistentLsn))) {
        this.#keepPath(history, timeline, { first: 0, last: Infinity, reason });
      }
    }
  }

  /** What a restore of the backup replays until it is consistent, and no more. */
  keepOwn(backup: CatalogueBackup): void {
    const { name, timeline, startLsn = 0n } = backup;
    const own = ownSegments(this.#survey, backup);
    if (own === undefined) {
      const reason = `WAL from backup ${name} on, whose end is not recorded`;
      const segmentNumber = this.#survey.nameSegment(backup);
      const consistent = { consistentLsn: startLsn, consistentTimeline: timeline };
      this.keepFrom({ timeline, segmentNumber, ...consistent, reason });
      return;
    }
    const reason = `own WAL of backup ${name}`;
    const line = lineOfBackup(this.#survey, backup, own);
    if (missingOnLine(this.#survey, line, own).length === 0) {
      for (const { timeline: holder, ...part } of ownParts(this.#survey, backup, own)) {
        this.#keep(holder, { ...part, reason });
      }
      return;
    }
    // Nobody can tell which of what is there it needs beside what is missing.
    const segments = { ...own, reason };
    this.#keep(timeline, segments);
    for (const { history } of this.#survey.descendants(timeline)) {
      const left = history.ancestors.find((one) => one.timeline === timeline)?.endLsn ?? 0n;
      if (this.#segmentOf(left) >= own.first) this.#keepPath(history, timeline, segments);
    }
  }

  /** Without it the next plan would take the backup for one whose WAL is still to come. */
  keepProof({ name }: CatalogueBackup, { timeline, segmentNumber }: LineSegment): void {
    const reason = `shows that own WAL of backup ${name} is missing, not late`;
    this.#keep(timeline, { first: segmentNumber, last: segmentNumber, reason });
  }

  /**
   * Where a timeline left a backup before that ended, and a replay from another one comes there
   * through its WAL: the first segment behind the fork, and no more.
   */
  keepForks(backups: readonly CatalogueBackup[]): void {
    for (const history of this.#survey.histories.values()) {
      const leading = backups.filter(({ timeline, endTimeline = timeline, finishLsn = 0n }) =>
        isOnHistory(history, endTimeline, lsn(finishLsn)),
      );
      if (leading.length === 0) continue;
      for (const backup of backups) {
        const fork = forkWithin(this.#survey, history, backup);
        if (fork === undefined) continue;
        const { timeline, segmentNumber } = fork;
        if (leading.every((one) => firstSegment(this.#survey, one) >= segmentNumber)) continue;
        const reason =
          `shows that timeline ${timeline}, which left backup ${backup.name} before its end, ` +
          "was archived from there on";
        this.#keep(timeline, { first: segmentNumber, last: segmentNumber, reason });
      }
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
