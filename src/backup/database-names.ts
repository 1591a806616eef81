import { listDatabases, readRelations } from "../connection/catalog.ts";
import { connectPostgres } from "../connection/connect.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { DatabaseError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import {
  formatDatabaseBegin,
  formatDatabaseEnd,
  formatRelation,
} from "../layout/files-metadata.ts";
import type { DocumentsSpool } from "./documents-spool.ts";

export interface DatabaseNamesOptions {
  readonly connection: ConnectionSettings;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Collects the names of all relations of all databases that take connections, for partial restores.
 * A database that can't be read is left out with a warning: it can't be restored by itself then,
 * but the backup is whole.
 */
export async function collectDatabaseNames(
  documents: DocumentsSpool,
  { connection, log, signal }: DatabaseNamesOptions,
): Promise<void> {
  const databases = await readDatabases(connection, { signal });
  for (const { name, oid } of databases) {
    let isFirst = true;
    documents.addDatabaseText(formatDatabaseBegin(name, oid), true);
    try {
      await using session = await connectPostgres({ ...connection, database: name }, { signal });
      for await (const relation of readRelations(session, { signal })) {
        documents.addDatabaseText(`${isFirst ? "" : ","}${formatRelation(relation)}`, false);
        isFirst = false;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof DatabaseError)) throw error;
      log.warning("the tables of a database can't be restored by themselves", {
        database: name,
        reason: error.message,
      });
    }
    documents.addDatabaseText(formatDatabaseEnd(), false);
  }
}

/** Databases that take connections. */
export async function readDatabases(
  connection: ConnectionSettings,
  { signal }: { readonly signal: AbortSignal },
) {
  await using session = await connectPostgres(connection, { signal });
  return await listDatabases(session, { signal });
}
