import type { QueryOptions, Session } from "./session.ts";

/** Name of the database with this oid; undefined if there is none. */
export async function readDatabaseName(
  session: Session,
  oid: number,
  options: QueryOptions,
): Promise<string | undefined> {
  const [row] = await session.query("SELECT datname FROM pg_database WHERE oid = $1", {
    ...options,
    values: [String(oid)],
  });
  return row?.["datname"] ?? undefined;
}

/** Name of the relation of the session's database that has this file; undefined if none has. */
export async function readRelationName(
  session: Session,
  file: { readonly tablespaceOid: number; readonly relfilenode: number },
  options: QueryOptions,
): Promise<string | undefined> {
  const [row] = await session.query("SELECT pg_filenode_relation($1, $2)::regclass::text AS name", {
    ...options,
    values: [String(file.tablespaceOid), String(file.relfilenode)],
  });
  return row?.["name"] ?? undefined;
}
