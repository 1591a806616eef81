import { integerColumn, type QueryOptions, type Session } from "./session.ts";

/** A database, as distinct from an earlier one that had the same oid. */
export interface DatabaseIdentity {
  readonly oid: number;
  /** The transaction that wrote its row: another one after it was recreated, moved or renamed. */
  readonly xmin: number;
}

/** All databases that are there, whether they take connections or not. */
export async function readDatabaseIdentities(
  session: Session,
  options: QueryOptions,
): Promise<readonly DatabaseIdentity[]> {
  const rows = await session.query(
    "SELECT oid::bigint AS oid, xmin::text::bigint AS xmin FROM pg_database ORDER BY oid",
    options,
  );
  return rows.map((row) => ({ oid: integerColumn(row, "oid"), xmin: integerColumn(row, "xmin") }));
}
