import type { Catalogue, CatalogueBackup, UnfinishedBackup } from "../catalogue/catalogue.ts";
import { historiesByTimeline } from "../catalogue/catalogue.ts";
import { type SegmentSet, segmentSets } from "../catalogue/segment-set.ts";
import { segmentsPerHigh } from "../catalogue/wal-objects.ts";
import { RefusedError } from "../errors.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";

/** A catalogue with what planning asks of it again and again. */
export interface Survey {
  readonly catalogue: Catalogue;
  readonly byName: ReadonlyMap<BackupName, CatalogueBackup>;
  readonly segmentBytes: number;
  /** Whole segments by timeline. */
  readonly sets: ReadonlyMap<number, SegmentSet>;
  /** Of each timeline whose history is known; timeline 1 has one without ancestors. */
  readonly histories: ReadonlyMap<number, TimelineHistory>;
  /** Every timeline that an object or a backup is named after, ascending. */
  readonly timelines: readonly number[];
  /** The number of the segment in a backup's name. */
  nameSegment(backup: Pick<UnfinishedBackup, "high" | "low">): number;
  /** Known timelines that have this one among their ancestors. */
  descendants(timeline: number): readonly KnownTimeline[];
}

export interface KnownTimeline {
  readonly timeline: number;
  readonly history: TimelineHistory;
}

/**
 * Prepares a catalogue for planning. Throws RefusedError where the size of the segments is not
 * known or not the same everywhere: then nobody can say which WAL a backup needs.
 */
export function surveyOf(catalogue: Catalogue): Survey {
  const segmentBytes = requireSegmentSize(catalogue);
  const histories = new Map(historiesByTimeline(catalogue));
  if (!histories.has(1)) histories.set(1, { timeline: 1, ancestors: [] });
  const known = [...histories].map(([timeline, history]) => ({ timeline, history }));
  const named = [
    ...catalogue.wal.timelineRanges(),
    ...catalogue.histories,
    ...catalogue.backups,
    ...catalogue.unfinished,
  ];
  const descendants = new Map<number, readonly KnownTimeline[]>();
  const findDescendants = (timeline: number): readonly KnownTimeline[] =>
    known.filter(({ history }) => history.ancestors.some((one) => one.timeline === timeline));
  return {
    catalogue,
    byName: new Map(catalogue.backups.map((backup) => [backup.name, backup])),
    segmentBytes,
    sets: segmentSets(catalogue.wal, segmentBytes),
    histories,
    timelines: [...new Set(named.map(({ timeline }) => timeline))].toSorted((a, b) => a - b),
    nameSegment: ({ high, low }) => high * segmentsPerHigh(segmentBytes) + low,
    descendants(timeline) {
      const found = descendants.get(timeline) ?? findDescendants(timeline);
      descendants.set(timeline, found);
      return found;
    },
  };
}

/** What an archive has whose segments nobody can ask: no rule depends on it there. */
const DEFAULT_SEGMENT_BYTES = 16 * 1024 * 1024;

function requireSegmentSize({ segmentBytes, storageName, backups, wal }: Catalogue): number {
  if (segmentBytes === "mixed") {
    throw new RefusedError(
      `${storageName} holds backups with several sizes of WAL segments: which WAL a backup needs ` +
        "can't be told",
      { hint: "Several clusters were archived here. Nothing was removed: sort them apart first." },
    );
  }
  if (segmentBytes !== undefined) return segmentBytes;
  if (backups.length === 0 || wal.count === 0) return DEFAULT_SEGMENT_BYTES;
  throw new RefusedError(`the size of the WAL segments in ${storageName} can't be found out`, {
    hint:
      "Neither the backups' names nor the newest segments tell it. If the segments are encrypted, " +
      "configure the key. Nothing was removed.",
  });
}
