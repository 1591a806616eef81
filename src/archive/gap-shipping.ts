import type { Storage } from "../storage/storage.ts";
import type { DrainOptions } from "./drain-options.ts";
import { listBackupWishes, listLocalGaps, shipGaps } from "./gaps.ts";
import { reasonOf } from "./outage.ts";
import { forgetAway } from "./store-away.ts";

/**
 * The drainer's share in gaps: tells the store of those that it does not know of, and has the
 * backup begun that they ask for. Never rejects.
 */
export async function tendGaps(
  storage: Storage,
  { queue, spool, serverName, onBackupWanted, signal, log }: DrainOptions,
): Promise<void> {
  try {
    if ((await listLocalGaps(spool.gaps)).length > 0) {
      const owner = { ...queue, serverName, isBackupWanted: onBackupWanted !== undefined };
      const names = await shipGaps(storage, spool.gaps, owner, { signal });
      if (names.length > 0) {
        await forgetAway(spool);
        log.warning("recorded gaps in the store", { count: names.length });
      }
    }
    if (onBackupWanted === undefined) return;
    if ((await listBackupWishes(spool.gaps)).length > 0) await onBackupWanted();
  } catch (error) {
    log.warning("gaps could not be recorded in the store", { reason: reasonOf(error) });
  }
}
