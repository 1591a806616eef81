import { DeadlineError, StorageAccessError, StorageError } from "../errors.ts";
import { WAL_FOLDER } from "../layout/keys.ts";
import { overlay } from "../storage/overlay.ts";
import type { Storage } from "../storage/storage.ts";
import type { Context } from "./command.ts";
import { createContext } from "./context.ts";

/**
 * Makes a backup in the first storage that is alive. When that one dies meanwhile the backup is
 * lost, and is begun once more in the next one: a backup is whole in one storage.
 */
export async function inBackupStorage<T>(
  context: Context,
  work: (storage: Storage) => Promise<T>,
): Promise<T> {
  const { config, log, openStorage } = context;
  const tried = new Set<string>();
  let storage = await openStorage("backup");
  for (;;) {
    try {
      await using current = storage;
      tried.add(current.name);
      await using wal = await openWalStorage(context);
      return await work(wal === undefined ? current : withWalOf(current, wal));
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

/**
 * Where one storage was chosen for the backup: archive_command may use others, so that the WAL may
 * arrive in any of them.
 */
async function openWalStorage(context: Context): Promise<Storage | undefined> {
  const { targetStorage, ...config } = context.config;
  if (targetStorage === undefined || config.failover === undefined) return undefined;
  return await createContext({ ...context, config }).openStorage("alive");
}

/** Reads below the folder of the WAL are made in the other one. */
function withWalOf(storage: Storage, wal: Storage): Storage {
  const reading = (key: string): Storage => (key.startsWith(WAL_FOLDER) ? wal : storage);
  return overlay(storage, {
    get: (key, options) => reading(key).get(key, options),
    stat: async (key, options) => await reading(key).stat(key, options),
    list: (prefix, options) => reading(prefix).list(prefix, options),
  });
}

function isOfStore(error: unknown): boolean {
  for (let one = error; one instanceof Error; one = one.cause) {
    const isStore = one instanceof StorageError || one instanceof StorageAccessError;
    if (isStore || one instanceof DeadlineError) return true;
  }
  return false;
}
