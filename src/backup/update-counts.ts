import { readRelationUpdates } from "../connection/catalog.ts";
import { connectPostgres } from "../connection/connect.ts";
import { DatabaseError, ObjectNotFoundError } from "../errors.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { Storage } from "../storage/storage.ts";
import { readFilesMetadata } from "./backup-documents.ts";
import { relationGroup, type UpdateCounts } from "./composer.ts";
import { type DatabaseNamesOptions, readDatabases } from "./database-names.ts";

/**
 * How often the relations of all databases that take connections were changed. A database that
 * can't be read counts as one that never changes, with a warning: that costs only time later.
 */
export async function readUpdateCounts({
  connection,
  log,
  signal,
}: DatabaseNamesOptions): Promise<UpdateCounts> {
  const counts = new Map<string, bigint>();
  for (const { name, oid } of await readDatabases(connection, { signal })) {
    try {
      await using session = await connectPostgres({ ...connection, database: name }, { signal });
      for (const { isShared, relfilenode, count } of await readRelationUpdates(session, {
        signal,
      })) {
        counts.set(relationGroup(isShared ? 0 : oid, relfilenode), count);
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof DatabaseError)) throw error;
      log.warning("how often tables change is not known of a database", {
        database: name,
        reason: error.message,
      });
    }
  }
  return counts;
}

/** What a backup recorded of its files, by the names of their entries; 0 is left out. */
export async function readEarlierCounts(
  storage: Storage,
  backup: BackupName,
  { signal }: { readonly signal: AbortSignal },
): Promise<ReadonlyMap<string, bigint>> {
  const counts = new Map<string, bigint>();
  try {
    for await (const item of readFilesMetadata(storage, backup, { signal })) {
      if (item.kind === "file" && item.updatesCount > 0n) counts.set(item.name, item.updatesCount);
    }
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
  }
  return counts;
}
