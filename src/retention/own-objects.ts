import { GROUP_SEGMENTS } from "../catalogue/commit-index.ts";
import { COMMIT_INDEX_FOLDER, parseChangeMapKey, parseGapKey } from "../layout/keys.ts";
import { parseContentSumKey } from "../layout/content-sum.ts";
import { DELTA_GROUP_SEGMENTS } from "../layout/wal-delta.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import type { ObjectKey } from "../storage/storage.ts";
import type { KeptWal } from "./kept-wal.ts";
import type { Survey } from "./survey.ts";

/**
 * Our own objects that speak of segments of which nothing stays: records of gaps, change maps,
 * indexes of commits, sums of notes of backups. What else is ours stays: WAL in quarantine waits
 * for a person.
 */
export function ownKeysOfNothing(survey: Survey, kept: KeptWal): readonly ObjectKey[] {
  return survey.catalogue.ownKeys.filter((key) => {
    const spoken = segmentsOf(key);
    const file = parseWalFileName(spoken?.name ?? "");
    if (spoken === undefined || file?.kind !== "segment") return false;
    const start = survey.nameSegment(file);
    const end = start + spoken.count - 1;
    return !kept.segmentsOf(file.timeline).some(({ first, last }) => first <= end && start <= last);
  });
}

/** The first of the segments that the object speaks of, and how many there are from there on. */
function segmentsOf(key: ObjectKey): { readonly name: string; readonly count: number } | undefined {
  const gap = parseGapKey(key);
  if (gap !== undefined) return { name: gap, count: 1 };
  const map = parseChangeMapKey(key);
  if (map !== undefined) return { name: map.name, count: DELTA_GROUP_SEGMENTS };
  const summed = parseWalFileName(parseContentSumKey(key) ?? "");
  if (summed?.kind === "backup-label") return { name: summed.segment, count: 1 };
  if (!key.startsWith(COMMIT_INDEX_FOLDER) || !key.endsWith(".json")) return undefined;
  return { name: key.slice(COMMIT_INDEX_FOLDER.length, -".json".length), count: GROUP_SEGMENTS };
}
