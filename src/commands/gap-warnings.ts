import { firstGapFrom, listOpenGaps } from "../archive/stored-gaps.ts";
import type { Log } from "../io/log.ts";
import { isBackupName, parseBackupName } from "../layout/backup-name.ts";
import type { Storage } from "../storage/storage.ts";

interface World {
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Says which backups can't be recovered to the end, because WAL behind them was given up. */
export async function warnOfGaps(
  storage: Storage,
  backups: readonly string[],
  { log, signal }: World,
): Promise<void> {
  const gaps = await listOpenGaps(storage, { signal });
  const affected = backups.filter((backup) => gapBehind(backup, gaps) !== undefined);
  const newest = affected.at(-1);
  if (newest === undefined) return;
  log.warning("WAL was given up: no recovery of these backups gets past it", {
    backups: affected.length,
    newest,
    first: gapBehind(affected[0] ?? newest, gaps),
    ...(newest === backups.at(-1)
      ? {
          hint:
            "The server that gave it up begins a full backup by itself: `walnut gap-backup --status` " +
            "there tells how far it is. Where that is turned off, take one now: backup-push.",
        }
      : {}),
  });
}

/** The same before a restore of one backup. */
export async function warnOfGapBehind(
  storage: Storage,
  backup: string,
  { log, signal }: World,
): Promise<void> {
  const gap = gapBehind(backup, await listOpenGaps(storage, { signal }));
  if (gap === undefined) return;
  log.warning("WAL behind this backup was given up: no recovery gets past it", {
    backup,
    segment: gap,
    hint:
      "Set a recovery target before that segment, or restore a backup that was taken after it: " +
      "backup-list tells which. Recovery to the end will stop there and not open the database.",
  });
}

function gapBehind(backup: string, gaps: readonly string[]): string | undefined {
  if (!isBackupName(backup)) return undefined;
  return firstGapFrom(parseBackupName(backup).segment, gaps);
}
