import { StorageAccessError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import type { Storage } from "../storage/storage.ts";

/**
 * Removes the object that a check has stored. Gives false, and says what stays, where nothing may
 * be removed: no right to, a retention policy, a lock. Archiving and backups work there, too.
 */
export async function removeCheckObject(
  storage: Storage,
  key: string,
  { signal, log }: { readonly signal: AbortSignal; readonly log: Log },
): Promise<boolean> {
  try {
    await storage.delete([key], { signal });
    return true;
  } catch (error) {
    if (!(error instanceof StorageAccessError)) throw error;
    log.warning("the store lets nothing be removed: delete and expire won't work", {
      object: key,
      reason: error.message,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
    return false;
  }
}
