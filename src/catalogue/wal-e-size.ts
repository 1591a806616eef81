import { parseBackupName } from "../layout/backup-name.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import { segmentNumberOf } from "../postgres/wal-file.ts";
import type { Catalogue } from "./catalogue.ts";
import type { WalObjects } from "./wal-objects.ts";

/** What PostgreSQL was built with unless told, and all that WAL-E counted with. */
const WAL_E_SEGMENT_BYTES = 16 * 1024 * 1024;
const LAST_LOW = 0xff;

/**
 * 16 MiB where all backups are WAL-E's, whose documents do not tell where they began and whose
 * segments (lzo) can't be read; undefined where there are others, and where any name or history
 * says that the segments have another size: a wrong one would remove WAL that is needed.
 */
export function sizeOfWalE({
  backups,
  wal,
  histories,
}: Pick<Catalogue, "backups" | "wal" | "histories">): number | undefined {
  if (backups.length === 0) return undefined;
  for (const { name, low } of backups) {
    const { offset } = parseBackupName(name);
    if (offset === undefined || low > LAST_LOW) return undefined;
    if (Number.parseInt(offset, 16) >= WAL_E_SEGMENT_BYTES) return undefined;
  }
  if (hasOtherNames(wal)) return undefined;
  const fits = histories.every(({ history }) => history === undefined || isFork(wal, history));
  return fits ? WAL_E_SEGMENT_BYTES : undefined;
}

/** Numbers that segments of 16 MiB do not have, or a count that is full before 256. */
function hasOtherNames(wal: WalObjects): boolean {
  for (const { start, end } of wal.timelineRanges()) {
    for (let row = start; row < end; row += 1) {
      const low = wal.lowAt(row);
      if (low > LAST_LOW) return true;
      const isNextHigh = row > start && low === 0 && wal.highAt(row) === wal.highAt(row - 1) + 1;
      const before = isNextHigh ? wal.lowAt(row - 1) + 1 : 0;
      if (before > 1 && before <= LAST_LOW && Number.isInteger(Math.log2(before))) return true;
    }
  }
  return false;
}

/**
 * A timeline's first segment is the one in which it left the other. Where that was removed, the
 * other's went before it.
 */
function isFork(wal: WalObjects, { timeline, ancestors }: TimelineHistory): boolean {
  const parent = ancestors.at(-1);
  const range = wal.timelineRanges().find((one) => one.timeline === timeline);
  if (range === undefined || parent === undefined) return true;
  const numberAt = (row: number): number => wal.segmentNumberAt(row, WAL_E_SEGMENT_BYTES);
  const fork = Number(segmentNumberOf(parent.endLsn, WAL_E_SEGMENT_BYTES));
  const first = numberAt(range.start);
  if (first <= fork) return first === fork;
  const before = wal.timelineRanges().find((one) => one.timeline === parent.timeline);
  return before === undefined || numberAt(before.end - 1) <= fork;
}
