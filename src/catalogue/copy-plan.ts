import type { Catalogue, CatalogueBackup } from "./catalogue.ts";
import { type BackupsByName, chainOf, findChainFault } from "./chain.ts";
import { RefusedError } from "../errors.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { parseContentSumKey } from "../layout/content-sum.ts";
import { GAPS_FOLDER, sentinelKey } from "../layout/keys.ts";
import { ENCRYPTION_MARK_KEY } from "../layout/secrecy.ts";
import { isOnHistory } from "../postgres/timeline-history.ts";
import { lsn } from "../postgres/lsn.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { ObjectKey } from "../storage/storage.ts";
import {
  firstSegment,
  lineOfBackup,
  missingOnLine,
  ownParts,
  ownSegments,
  type TimelineRun,
} from "./wal-line.ts";
import { historyOf, type WalView, walView } from "./wal-view.ts";

/** What is copied, in this order; a repository that lacks the rest holds no broken backup. */
export interface CopyPlan {
  /** Parts, WAL and histories. */
  readonly payload: readonly ObjectKey[];
  /** Backups that have a manifest of ours. */
  readonly described: readonly BackupName[];
  /** JSON documents and our manifest. */
  readonly documents: readonly ObjectKey[];
  /** Bases before what is based on them. */
  readonly sentinels: readonly ObjectKey[];
}

export interface CopyWish {
  /** Backups by name, with their bases; undefined = all. */
  readonly names?: readonly BackupName[] | undefined;
  /** All WAL behind the backups, too. */
  readonly isWithHistory: boolean;
}

/**
 * Decides what to copy: chosen backups, their bases, the WAL that makes each of these consistent,
 * all histories. Throws RefusedError if something of that is missing. Pure.
 */
export function planCopy(catalogue: Catalogue, wish: CopyWish): CopyPlan {
  const view = walView(catalogue);
  const chosen = chooseBackups(catalogue, wish.names);
  const wal = new Set<number>();
  for (const backup of chosen) {
    for (const row of ownRows(catalogue, view, backup)) wal.add(row);
  }
  if (wish.isWithHistory) for (const row of rowsBehind(catalogue, view, chosen)) wal.add(row);
  const folderKeys = chosen.flatMap(({ folder }) => [...(folder?.keys() ?? [])]);
  return {
    described: chosen.flatMap(({ name, folder }) =>
      folder?.has("walnut_manifest.jsonl.zst") === true ? name : [],
    ),
    payload: [
      ...catalogue.ownKeys.filter((key) => isCopied(key, wish)),
      ...catalogue.histories.map(({ key }) => key),
      ...[...wal].toSorted((one, other) => one - other).map((row) => catalogue.wal.keyAt(row)),
      ...folderKeys.filter((key) => key.includes("/tar_partitions/")),
    ],
    documents: folderKeys.filter((key) => !key.includes("/tar_partitions/")),
    sentinels: chosen.map(({ name }) => sentinelKey(name)),
  };
}

/** How objects are encrypted, the sums of histories; with the WAL, which of it was given up. */
function isCopied(key: ObjectKey, { isWithHistory }: CopyWish): boolean {
  const isSum = parseContentSumKey(key)?.endsWith(".history") === true;
  return key === ENCRYPTION_MARK_KEY || isSum || (isWithHistory && key.startsWith(GAPS_FOLDER));
}

/** Bases first. */
function chooseBackups(
  { backups, storageName }: Catalogue,
  names: readonly BackupName[] | undefined,
): readonly CatalogueBackup[] {
  const byName = new Map(backups.map((backup) => [backup.name, backup]));
  const chosen = new Set<CatalogueBackup>();
  for (const name of names ?? byName.keys()) {
    const backup = byName.get(name);
    if (backup === undefined) {
      throw new RefusedError(`backup ${name} does not exist in ${storageName}`, {
        hint: "Nothing was copied. `walnut backup-list` shows what there is.",
      });
    }
    requireWholeChain(backup, { byName, storageName });
    for (const member of chainOf({ byName }, backup).toReversed()) {
      if (typeof member !== "string") chosen.add(member);
    }
  }
  return [...chosen];
}

function requireWholeChain(
  backup: CatalogueBackup,
  { byName, storageName }: BackupsByName & Pick<Catalogue, "storageName">,
): void {
  const fault = findChainFault({ byName }, backup);
  if (fault === undefined) return;
  const why = backup.problems.length === 0 ? "" : ` (${backup.problems.join("; ")})`;
  throw new RefusedError(
    `backup ${backup.name} in ${storageName} could not be restored: ${fault}${why}`,
    {
      hint:
        "Nothing was copied. Those that are whole can be copied one by one, with --backup-name; " +
        "`walnut verify` says which they are.",
    },
  );
}

/** Objects of the backup's own WAL; none may be missing. */
function ownRows(
  { wal, storageName }: Catalogue,
  view: WalView,
  backup: CatalogueBackup,
): readonly number[] {
  const { name } = backup;
  const range = ownSegments(view, backup);
  if (range === undefined) {
    throw new RefusedError(`backup ${name} does not record where it ends`, {
      hint: "Nothing was copied. Copy such a backup with all WAL, by the store's own means.",
    });
  }
  const line = lineOfBackup(view, backup, range);
  const [missing] = missingOnLine(view, line, range);
  if (missing !== undefined) {
    const number = BigInt(missing.first);
    const segment = formatSegmentName(missing.timeline, number, view.segmentBytes);
    throw new RefusedError(
      `WAL segment ${segment}, which backup ${name} needs, is missing in ${storageName}`,
      { hint: "Nothing was copied: the copy could not be restored, and neither can the original." },
    );
  }
  return [...ownParts(view, backup, range)].flatMap((part) => [...rowsIn(wal, view, part)]);
}

/** What can be replayed from the backups on: later segments, and timelines that follow. */
function* rowsBehind(
  { wal }: Catalogue,
  view: WalView,
  backups: readonly CatalogueBackup[],
): Generator<number> {
  for (const timeline of view.timelines) {
    const starts = backups.flatMap((backup) => {
      if (!view.histories.has(timeline) && timeline > backup.timeline) return 0;
      const { finishLsn = backup.startLsn ?? 0n } = backup;
      const { endTimeline = backup.timeline } = backup;
      const isBehind = isOnHistory(historyOf(view, timeline), endTimeline, lsn(finishLsn));
      return isBehind ? firstSegment(view, backup) : [];
    });
    if (starts.length === 0) continue;
    yield* rowsIn(wal, view, { timeline, first: Math.min(...starts), last: Infinity });
  }
}

/** All objects of these segments, what lies beside them included. */
function* rowsIn(
  wal: Catalogue["wal"],
  { segmentBytes }: WalView,
  { timeline, first, last }: TimelineRun,
): Generator<number> {
  const range = wal.timelineRanges().find((one) => one.timeline === timeline);
  if (range === undefined) return;
  for (let row = wal.firstRowOf(range, first, segmentBytes); row < range.end; row += 1) {
    if (wal.segmentNumberAt(row, segmentBytes) > last) return;
    if (wal.kindAt(row) !== "unknown") yield row;
  }
}
