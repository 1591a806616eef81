import { DeadlineError, StorageAccessError, StorageError } from "../errors.ts";
import type { Storage } from "../storage/storage.ts";
import type { Context } from "./command.ts";

/**
 * Makes a backup in the first storage that is alive. When that one dies meanwhile the backup is
 * lost, and is begun once more in the next one: a backup is whole in one storage.
 */
export async function inBackupStorage<T>(
  { config, log, openStorage }: Pick<Context, "config" | "log" | "openStorage">,
  work: (storage: Storage) => Promise<T>,
): Promise<T> {
  const tried = new Set<string>();
  let storage = await openStorage("backup");
  for (;;) {
    try {
      await using current = storage;
      tried.add(current.name);
      return await work(current);
    } catch (error) {
      if (config.failover === undefined || !isOfStore(error)) throw error;
      const next = await openStorage("backup").catch(() => undefined);
      if (next === undefined || tried.has(next.name)) {
        await next?.[Symbol.asyncDispose]();
        throw error;
      }
      log.warning("the storage of the backup died: it is begun once more in another one", {
        died: storage.name,
        next: next.name,
        reason: error instanceof Error ? error.message : String(error),
      });
      storage = next;
    }
  }
}

function isOfStore(error: unknown): boolean {
  for (let one = error; one instanceof Error; one = one.cause) {
    const isStore = one instanceof StorageError || one instanceof StorageAccessError;
    if (isStore || one instanceof DeadlineError) return true;
  }
  return false;
}
