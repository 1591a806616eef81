import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { CallOptions, Storage, UnfinishedPut } from "../storage/storage.ts";

export interface UnfinishedPutQuery extends CallOptions {
  /** Beginnings of keys; [""] for the whole repository. */
  readonly prefixes: readonly string[];
  readonly olderThanMs: number;
  readonly clock: Clock;
}

/**
 * What killed puts left in the store and no list shows: temporary files, uploads in parts. Only
 * what was begun long ago, by the clock of its writer or of the store.
 */
export async function findUnfinishedPuts(
  storage: Storage,
  { prefixes, olderThanMs, clock, signal }: UnfinishedPutQuery,
): Promise<readonly UnfinishedPut[]> {
  const found: UnfinishedPut[] = [];
  for (const prefix of prefixes) {
    for await (const put of storage.upkeep?.listUnfinished(prefix, { signal }) ?? []) {
      if (clock.now() - put.startedAt.getTime() >= olderThanMs) found.push(put);
    }
  }
  return found;
}

/** Removes them one by one; rejects with the store's error at the first that stays. */
export async function removeUnfinishedPuts(
  storage: Storage,
  puts: readonly UnfinishedPut[],
  { log, signal }: CallOptions & { readonly log: Log },
): Promise<void> {
  for (const put of puts) {
    await storage.upkeep?.removeUnfinished(put, { signal });
    log.debug("an unfinished upload was removed", { key: put.key, id: put.id });
  }
}
