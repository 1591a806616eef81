/** A workload that writes records of every built-in resource manager. */
import type { Cluster } from "./postgres.ts";

/** What a server needs to run all of it. */
export const WORKLOAD_SETTINGS: Readonly<Record<string, string>> = {
  wal_level: "logical",
  max_prepared_transactions: "5",
  track_commit_timestamp: "on",
  max_wal_size: "4GB",
  checkpoint_timeout: "1h",
};

const TABLES = [
  `CREATE TABLE items (id bigserial PRIMARY KEY, kind int, name text, place point, tags int[],
     spot int4range, made timestamptz DEFAULT now()) WITH (fillfactor = 70)`,
  "CREATE INDEX items_hash ON items USING hash (kind)",
  "CREATE INDEX items_gin ON items USING gin (tags)",
  "CREATE INDEX items_gist ON items USING gist (spot)",
  "CREATE INDEX items_spgist ON items USING spgist (place)",
  "CREATE INDEX items_brin ON items USING brin (id) WITH (pages_per_range = 2, autosummarize = on)",
  "CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY, name text)",
  "CREATE TABLE parts (id int, name text) PARTITION BY RANGE (id)",
  "CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (1000)",
  "CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM (1000) TO (100000)",
];

function rows(from: number, count: number): string {
  return `INSERT INTO items (kind, name, place, tags, spot)
    SELECT n % 50, md5(n::text) || repeat('x', n % 300), point(n % 97, n % 89), ARRAY[n % 7, n % 11],
           int4range(n, n + n % 13 + 1)
      FROM generate_series(${from}, ${from + count - 1}) AS n`;
}

/** Run before what is to be looked at: relations that are older than it. */
export async function prepareWorkload(cluster: Cluster): Promise<void> {
  await cluster.query(
    `CREATE TABLE emptied AS
     SELECT n AS id, repeat('e', 100) AS name FROM generate_series(1, 3000) AS n`,
  );
}

/** Each is a statement or a script of its own; some cannot run in a transaction. */
function statements(major: number): readonly string[] {
  return [
    rows(1, 1500),
    "CHECKPOINT",
    "UPDATE items SET name = name || 'y' WHERE id % 3 = 0",
    "DELETE FROM items WHERE id % 5 = 0",
    "VACUUM (FREEZE, ANALYZE) items",
    rows(5000, 800),
    "SELECT gin_clean_pending_list('items_gin'), brin_summarize_new_values('items_brin')",
    "SELECT count(*) FROM items WHERE kind = 3",
    "INSERT INTO parts SELECT n, 'p' || n FROM generate_series(0, 3000, 7) AS n",
    "INSERT INTO fleeting SELECT n, 'f' FROM generate_series(1, 500) AS n",
    "CREATE TABLE copied AS SELECT * FROM items; CREATE INDEX ON copied (name)",
    "TRUNCATE copied",
    "DELETE FROM emptied WHERE id > 30",
    "VACUUM emptied",
    "VACUUM FULL items",
    "CLUSTER items USING items_pkey",
    "REINDEX TABLE items",
    "ALTER TABLE fleeting SET LOGGED",
    "ALTER TABLE parts_a SET UNLOGGED",
    "BEGIN; CREATE TABLE gone (id int); INSERT INTO gone VALUES (1); ROLLBACK",
    `BEGIN; SAVEPOINT a; INSERT INTO parts VALUES (5, 'a'); SAVEPOINT b;
     INSERT INTO parts VALUES (6, 'b'); DROP TABLE copied; SAVEPOINT c; DELETE FROM parts;
     ROLLBACK TO c; COMMIT`,
    `BEGIN; CREATE TABLE prepared (id int); INSERT INTO prepared VALUES (1);
     PREPARE TRANSACTION 'one'`,
    "COMMIT PREPARED 'one'",
    "BEGIN; CREATE TABLE undone (id int); DROP TABLE prepared; PREPARE TRANSACTION 'two'",
    "ROLLBACK PREPARED 'two'",
    "BEGIN; SELECT id FROM items WHERE id < 40 FOR SHARE; SAVEPOINT s; UPDATE items SET kind = 1 WHERE id < 40; COMMIT",
    "SELECT pg_logical_emit_message(true, 'test', repeat('m', 30000))",
    "SELECT pg_logical_emit_message(false, 'test', 'small')",
    "SELECT pg_replication_origin_create('here')",
    `SELECT pg_replication_origin_session_setup('here');
     INSERT INTO parts VALUES (9, 'origin'); SELECT pg_replication_origin_session_reset()`,
    "SELECT lo_from_bytea(0, decode(repeat('ab', 20000), 'hex'))",
    "CREATE SEQUENCE counter; SELECT nextval('counter') FROM generate_series(1, 100)",
    "CREATE MATERIALIZED VIEW seen AS SELECT kind, count(*) FROM items GROUP BY 1",
    "REFRESH MATERIALIZED VIEW seen",
    ...(major >= 15
      ? [
          "CREATE DATABASE by_wal STRATEGY wal_log",
          "CREATE DATABASE by_copy STRATEGY file_copy",
          "DROP DATABASE by_wal",
        ]
      : ["CREATE DATABASE by_copy"]),
    "VACUUM FULL pg_class",
    "DROP DATABASE by_copy",
    "SELECT pg_create_restore_point('here')",
  ];
}

/** Compressions of full-page images that this server can do. */
async function compressions(cluster: Cluster): Promise<readonly string[]> {
  const values = await cluster.value(
    `SELECT array_to_string(enumvals, ',') FROM pg_settings
      WHERE name = 'wal_compression' AND vartype = 'enum'`,
  );
  const known = new Set(values.split(","));
  const methods = ["pglz", "lz4", "zstd"].filter((method) => known.has(method));
  return ["off", ...(methods.length > 0 ? methods : ["on"])];
}

/**
 * Runs everything once, then some of it under each compression of images and with consistency
 * checking. `tablespace` is an empty directory of the server's user.
 */
export async function runWorkload(cluster: Cluster, tablespace: string): Promise<void> {
  for (const sql of TABLES) await cluster.query(sql);
  for (const sql of statements(cluster.major)) await cluster.query(sql);

  await cluster.query(`CREATE TABLESPACE elsewhere LOCATION '${tablespace}'`);
  await cluster.query("CREATE TABLE away (id int, name text) TABLESPACE elsewhere");
  await cluster.query("INSERT INTO away SELECT n, md5(n::text) FROM generate_series(1, 900) AS n");
  await cluster.query("ALTER TABLE items SET TABLESPACE elsewhere");
  await cluster.query("CREATE DATABASE moved TABLESPACE elsewhere");
  await cluster.query("ALTER DATABASE moved SET TABLESPACE pg_default");
  await cluster.query("DROP DATABASE moved");

  for (const method of await compressions(cluster)) {
    await cluster.query(`ALTER SYSTEM SET wal_compression = '${method}'`);
    await cluster.query("SELECT pg_reload_conf()");
    await cluster.query("CHECKPOINT");
    await cluster.query("UPDATE items SET kind = kind + 1 WHERE id % 40 = 1");
    await cluster.query("UPDATE away SET name = 'z' WHERE id % 9 = 0");
  }
  await cluster.query("ALTER SYSTEM SET wal_consistency_checking = 'all'");
  await cluster.query("SELECT pg_reload_conf()");
  await cluster.query("UPDATE items SET kind = kind + 1 WHERE id % 90 = 1");
  await cluster.query("ALTER SYSTEM RESET ALL");
  await cluster.query("SELECT pg_reload_conf()");
  await cluster.query("DROP TABLE items CASCADE; DROP TABLE away");
  await cluster.query("DROP TABLESPACE elsewhere");
}
