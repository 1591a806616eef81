import {
  booleanColumn,
  integerColumn,
  type QueryOptions,
  type Row,
  type Session,
  textColumn,
} from "./session.ts";

/** A database that takes connections. */
export interface Database {
  readonly name: string;
  readonly oid: number;
}

/** A relation of one database with a name, files, and what belongs to it. */
export interface Relation {
  /** "schema.name". */
  readonly name: string;
  readonly oid: number;
  /** Name of its files; 0 for a partitioned table, which has none. */
  readonly relfilenode: number;
  /**
   * Its partitions and heirs of all levels, and the indexes and TOAST tables of all of these (but
   * for the catalogs, which nobody restores by themselves), in one list.
   */
  readonly descendants: readonly Relation[];
}

/** Rows that are fetched at a time, so that a million relations need no more memory than these. */
const FETCH_COUNT = 2000;

export async function listDatabases(
  session: Session,
  options: QueryOptions,
): Promise<readonly Database[]> {
  const rows = await session.query(
    "SELECT datname, oid FROM pg_database WHERE datallowconn ORDER BY oid",
    options,
  );
  return rows.map((row) => ({
    name: textColumn(row, "datname"),
    oid: integerColumn(row, "oid"),
  }));
}

/**
 * relfilenode 0 stands for the catalogs whose files have a mapped name, and for what has no files.
 *
 * @source pg_relation_filenode, src/backend/utils/adt/dbsize.c
 */
const NAMED_RELATIONS = `
  SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relkind, c.relispartition,
         coalesce(nullif(c.relfilenode, 0), pg_relation_filenode(c.oid), 0) AS relfilenode
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace`;

/**
 * Top-level relations, each followed by its descendants.
 *
 * @source FirstNormalObjectId, src/include/access/transam.h: 16384
 */
const RELATIONS = `
  WITH RECURSIVE child (owner, oid) AS (
      SELECT inhparent, inhrelid FROM pg_inherits
    UNION ALL
      SELECT indrelid, indexrelid FROM pg_index WHERE indrelid >= 16384
    UNION ALL
      SELECT oid, reltoastrelid FROM pg_class WHERE oid >= 16384 AND reltoastrelid <> 0
  ), tree (root, oid) AS (
      SELECT owner, oid FROM child
    UNION
      SELECT tree.root, child.oid FROM tree JOIN child ON child.owner = tree.oid
  ), named AS (${NAMED_RELATIONS})
  SELECT oid AS root, 0 AS level, oid, name, relfilenode FROM named
   WHERE NOT relispartition AND (relfilenode <> 0 OR relkind = 'p')
  UNION ALL
  SELECT tree.root, 1, named.oid, named.name, named.relfilenode
    FROM tree JOIN named USING (oid) JOIN named AS parent ON parent.oid = tree.root
   WHERE NOT parent.relispartition AND (parent.relfilenode <> 0 OR parent.relkind = 'p')
     AND (named.relfilenode <> 0 OR named.relkind = 'p')
   ORDER BY 1, 2, 3`;

/** All relations of the session's database, with memory for a few thousand. */
export async function* readRelations(
  session: Session,
  options: QueryOptions,
): AsyncGenerator<Relation> {
  await session.query("BEGIN READ ONLY", options);
  await session.query(`DECLARE relations NO SCROLL CURSOR FOR ${RELATIONS}`, options);
  let relation: (Relation & { readonly descendants: Relation[] }) | undefined;
  for (;;) {
    const rows = await session.query(`FETCH ${FETCH_COUNT} FROM relations`, options);
    for (const row of rows) {
      const next = { ...relationOf(row), descendants: [] };
      if (integerColumn(row, "level") === 1) {
        relation?.descendants.push(next);
        continue;
      }
      if (relation !== undefined) yield relation;
      relation = next;
    }
    if (rows.length < FETCH_COUNT) break;
  }
  if (relation !== undefined) yield relation;
  await session.query("COMMIT", options);
}

function relationOf(row: Row): Omit<Relation, "descendants"> {
  return {
    name: textColumn(row, "name"),
    oid: integerColumn(row, "oid"),
    relfilenode: integerColumn(row, "relfilenode"),
  };
}

/** How much a relation of one database was changed. */
export interface RelationUpdates {
  /** Whether all databases share it. */
  readonly isShared: boolean;
  readonly relfilenode: number;
  /** Rows inserted, updated and deleted since the statistics were reset; of an index, its table's. */
  readonly count: bigint;
}

const UPDATES = `
  WITH changed AS (
      SELECT relid, n_tup_ins + n_tup_upd + n_tup_del AS count FROM pg_stat_all_tables
  ), files AS (
      SELECT relid AS oid, count FROM changed
    UNION ALL
      SELECT indexrelid, count FROM changed JOIN pg_index ON indrelid = relid
  )
  SELECT pg_relation_filenode(oid) AS relfilenode, relisshared, count::text
    FROM files JOIN pg_class USING (oid)
   WHERE count > 0 AND pg_relation_filenode(oid) IS NOT NULL`;

/** Relations of the session's database that were changed at all, by the server's statistics. */
export async function readRelationUpdates(
  session: Session,
  options: QueryOptions,
): Promise<readonly RelationUpdates[]> {
  const rows = await session.query(UPDATES, options);
  return rows.map((row) => ({
    isShared: booleanColumn(row, "relisshared"),
    relfilenode: integerColumn(row, "relfilenode"),
    count: BigInt(textColumn(row, "count")),
  }));
}
