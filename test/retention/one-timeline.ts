/** Repositories of one timeline, told by a few numbers. */
import type { MemoryStorage } from "../support/memory-storage.ts";
import { objectsOf, segmentName, storageOf, type WorldBackup } from "./world.ts";

export const HOUR_MS = 3_600_000;
export const FIRST_MS = Date.UTC(2026, 9, 1);

/** A backup: the segment in which it starts, and that of its base. */
export interface Wanted {
  readonly segment: number;
  readonly base?: number;
  readonly isPermanent?: boolean;
  readonly corruptPages?: number;
  readonly isSentinelThere?: boolean;
  readonly timeline?: number;
}

export const nameOf = ({ segment, base, timeline = 1 }: Wanted): string =>
  `base_${segmentName(timeline, segment)}${base === undefined ? "" : `_D_${segmentName(timeline, base)}`}`;

function backupsOf(wanted: readonly Wanted[]): readonly WorldBackup[] {
  return wanted.map((one) => {
    const startMs = FIRST_MS + one.segment * HOUR_MS;
    const base = wanted.find(({ segment }) => segment === one.base);
    return {
      name: nameOf(one),
      timeline: one.timeline ?? 1,
      segment: one.segment,
      lastSegment: one.segment,
      base: base === undefined ? undefined : nameOf(base),
      startMs,
      finishMs: startMs + HOUR_MS / 2,
      isPermanent: one.isPermanent ?? false,
      corruptPages: one.corruptPages ?? 0,
      hasControl: true,
      isSentinelThere: one.isSentinelThere ?? true,
    };
  });
}

/** Segments 1 to 99 and these backups. */
export function objectsOfOneTimeline(wanted: readonly Wanted[]): Map<string, string> {
  const timeline = {
    id: 1,
    parent: 0,
    forkSegment: 1,
    endSegment: 100,
    holes: [],
    hasHistory: false,
  };
  return objectsOf({ timelines: [timeline], backups: backupsOf(wanted) });
}

/** The same in memory. */
export async function repository(...wanted: readonly Wanted[]): Promise<MemoryStorage> {
  return await storageOf(objectsOfOneTimeline(wanted));
}

/** The numbers of the backups that a list shows. */
export function listed({ keys }: Pick<MemoryStorage, "keys">): readonly number[] {
  return keys.flatMap((key) => {
    const match =
      /^basebackups_005\/base_\d{8}[0-9A-F]{8}([0-9A-F]{8}).*_backup_stop_sentinel/.exec(key);
    return match === null ? [] : Number.parseInt(match[1] ?? "", 16);
  });
}

/** The numbers of the segments. */
export function segments({ keys }: Pick<MemoryStorage, "keys">): readonly number[] {
  return keys.flatMap((key) => {
    const match = /^wal_005\/[0-9A-F]{16}([0-9A-F]{8})\.zst$/.exec(key);
    return match === null ? [] : Number.parseInt(match[1] ?? "", 16);
  });
}

/** Both ends included. */
export const range = (first: number, last: number): readonly number[] =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);
