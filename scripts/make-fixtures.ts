/**
 * Makes test/fixtures/postgres/: bytes that real servers wrote, and what the servers themselves
 * said about them. `node scripts/run.mjs scripts/make-fixtures.ts [major ...]`; the result differs
 * from run to run (system identifiers, times) and is committed.
 */
import { spawnSync } from "node:child_process";
import { chmod, cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { constants, zstdCompressSync } from "node:zlib";
import { Client } from "pg";
import { clientProgram, type Major, MAJORS } from "../test/support/postgres-programs.ts";
import { type Cluster, initCluster } from "../test/support/postgres.ts";
import { chownTree } from "../test/support/server-user.ts";

const root = join(dirname(import.meta.dirname), "test", "fixtures", "postgres");
const SEGMENT_BYTES = 1024 * 1024;
const PAGE_BYTES = 8192;

type Json = Record<string, unknown>;

/** What one release's directory holds: files by name, and the facts of expected.json. */
class Fixture {
  readonly facts: Json = {};
  readonly #directory: string;

  constructor(major: Major) {
    this.#directory = join(root, String(major));
  }

  async begin(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
    await mkdir(this.#directory, { recursive: true });
  }

  async add(name: string, bytes: Uint8Array): Promise<void> {
    const params = { [constants.ZSTD_c_compressionLevel]: 19 };
    await writeFile(join(this.#directory, `${name}.zst`), zstdCompressSync(bytes, { params }));
  }

  async addPlain(name: string, bytes: Uint8Array | string): Promise<void> {
    await writeFile(join(this.#directory, name), bytes);
  }

  async end(): Promise<void> {
    await this.addPlain("expected.json", `${JSON.stringify(this.facts, undefined, 2)}\n`);
  }
}

/** An archive_command would let old segments go; this keeps all of them. */
const SETTINGS = {
  wal_level: "replica",
  fsync: "off",
  autovacuum: "off",
  wal_keep_size: "100MB",
  max_wal_senders: "2",
  log_timezone: "UTC",
  wal_compression: "off",
};

async function makeCluster(major: Major): Promise<Cluster> {
  const archive = `cp "%p" ../archive/"%f"`;
  const cluster = await initCluster({
    major,
    segmentMiB: 1,
    archiveCommand: archive,
    settings: SETTINGS,
  });
  await cluster.makeDirectory("archive");
  await cluster.start();
  return cluster;
}

async function json(cluster: Cluster, sql: string): Promise<unknown> {
  return JSON.parse(await cluster.value(`SELECT row_to_json(q)::text FROM (${sql}) AS q`));
}

async function segment(cluster: Cluster, name: string): Promise<Buffer> {
  return await readFile(join(cluster.dataDirectory, "pg_wal", name));
}

const nameOf = (position: string) => `pg_walfile_name(${position})`;

/** Records between two positions as the server's own reader counts them; null before 15. */
async function countRecords(cluster: Cluster, from: string, to: string): Promise<unknown> {
  if (cluster.major < 15) return null;
  await cluster.query("CREATE EXTENSION IF NOT EXISTS pg_walinspect");
  return await json(
    cluster,
    `SELECT count(*) AS records, min(start_lsn) AS first, max(end_lsn) AS "end"
     FROM pg_get_wal_records_info('${from}', '${to}')`,
  );
}

/** The same by Debian's pg_waldump, where there is one of this release. */
function dumpRecords(cluster: Cluster, name: string): unknown {
  const program = clientProgram(cluster.major, "pg_waldump");
  if (program?.includes(`/${cluster.major}/`) !== true) return null;
  const dump = spawnSync(program, [join(cluster.dataDirectory, "pg_wal", name)], {
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  const lines = dump.stdout.trim().split("\n");
  return { records: lines.length, last: /lsn: (\S+), /.exec(lines.at(-1) ?? "")?.[1] };
}

/** Three segments: rows and the start of a long record; its middle; its end, rows and a switch. */
async function makeSegments(cluster: Cluster, fixture: Fixture): Promise<void> {
  await cluster.query("CREATE TABLE wide (id int PRIMARY KEY, note text)");
  await cluster.query("INSERT INTO wide SELECT i, 'before' FROM generate_series(1, 600) AS i");
  await cluster.query("CHECKPOINT");
  await cluster.switchWal();
  const start = await cluster.value("SELECT pg_current_wal_insert_lsn()");
  await cluster.query(
    "INSERT INTO wide SELECT i, repeat('x', i % 50) FROM generate_series(601, 700) AS i",
  );
  await cluster.query("DELETE FROM wide WHERE id % 7 = 0");
  await cluster.query("VACUUM wide");
  const first = await cluster.value(`SELECT ${nameOf("pg_current_wal_insert_lsn()")}`);
  const message = await cluster.value(
    `SELECT pg_logical_emit_message(false, 'long', repeat('m', ${2 * SEGMENT_BYTES}))`,
  );
  await cluster.query("INSERT INTO wide SELECT i, 'after' FROM generate_series(1001, 1100) AS i");
  const switchEnd = await cluster.value("SELECT pg_switch_wal()");
  const last = await cluster.value(`SELECT ${nameOf(`'${switchEnd}'`)}`);
  const names = await readdir(join(cluster.dataDirectory, "pg_wal"));
  const middle = names.toSorted().find((name) => name > first) ?? "";
  await cluster.query("INSERT INTO wide VALUES (2000, 'in the next segment')");
  for (const name of [first, middle, last]) await fixture.add(name, await segment(cluster, name));
  fixture.facts["segments"] = {
    first,
    middle,
    last,
    start,
    messageEnd: message,
    switchEnd,
    walinspect: {
      all: await countRecords(cluster, start, switchEnd),
      last: await countRecords(cluster, message, switchEnd),
    },
    waldump: { first: dumpRecords(cluster, first), last: dumpRecords(cluster, last) },
  };
}

async function makeControl(cluster: Cluster, fixture: Fixture): Promise<void> {
  await cluster.query("CHECKPOINT");
  await fixture.add("pg_control.running", await readFile(controlFile(cluster)));
  fixture.facts["control"] = {
    system: await json(
      cluster,
      `SELECT pg_control_version, catalog_version_no, system_identifier::text
       FROM pg_control_system()`,
    ),
    checkpoint: await json(
      cluster,
      `SELECT *, extract(epoch FROM checkpoint_time)::bigint AS seconds
       FROM pg_control_checkpoint()`,
    ),
    init: await json(cluster, "SELECT * FROM pg_control_init()"),
    recovery: await json(cluster, "SELECT * FROM pg_control_recovery()"),
  };
}

function controlFile(cluster: Cluster): string {
  return join(cluster.dataDirectory, "global", "pg_control");
}

/** Page 0 of each fork of a table and its index, and the table's last page. */
async function makePages(cluster: Cluster, fixture: Fixture): Promise<void> {
  const table = await cluster.value("SELECT pg_relation_filepath('wide')");
  const index = await cluster.value("SELECT pg_relation_filepath('wide_pkey')");
  const wanted = [
    { file: table, block: 0 },
    { file: table, block: 3 },
    { file: index, block: 0 },
    { file: index, block: 1 },
    { file: `${table}_fsm`, block: 2 },
    { file: `${table}_vm`, block: 0 },
  ];
  await cluster.query("CHECKPOINT");
  const pages: Buffer[] = [];
  for (const { file, block } of wanted) {
    const bytes = await readFile(join(cluster.dataDirectory, file));
    pages.push(bytes.subarray(block * PAGE_BYTES, (block + 1) * PAGE_BYTES));
  }
  await fixture.add("data-pages", Buffer.concat(pages));
  fixture.facts["pages"] = wanted;
}

/** Paths of relations of each kind, as the server tells them, and all names of its directory. */
async function makeRelations(cluster: Cluster, fixture: Fixture): Promise<void> {
  const location = await cluster.makeDirectory("space a\\b");
  await cluster.query(`CREATE TABLESPACE side LOCATION '${location}'`);
  const broken = await cluster.makeDirectory("line\nbreak\rx");
  await cluster.query(`CREATE TABLESPACE lines LOCATION '${broken}'`);
  const client = new Client({ host: "127.0.0.1", port: cluster.port, user: "postgres" });
  await client.connect();
  try {
    await client.query(`CREATE UNLOGGED TABLE rough (id int PRIMARY KEY, note text);
      CREATE TABLE moved (id int) TABLESPACE side;
      CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS id`);
    const { rows } = await client.query<Json>(
      `SELECT relname, relpersistence, pg_relation_filepath(oid) AS path,
              (SELECT oid::int FROM pg_database WHERE datname = current_database()) AS database,
              CASE reltablespace WHEN 0 THEN 1663 ELSE reltablespace::int END AS tablespace
       FROM pg_class
       WHERE relname IN ('wide', 'rough', 'rough_pkey', 'moved', 'mine', 'pg_database')
       ORDER BY relname`,
    );
    const directory = dirname(String(rows.find(({ relname }) => relname === "wide")?.["path"]));
    const names = await readdir(join(cluster.dataDirectory, directory));
    fixture.facts["relations"] = rows;
    fixture.facts["names"] = names.filter((name) => !/^[0-9]+(_fsm|_vm)?$/.test(name)).toSorted();
    await makeLabel(cluster, fixture, client);
  } finally {
    await client.end();
  }
}

/** backup_label and tablespace_map of a backup that the session itself starts and stops. */
async function makeLabel(cluster: Cluster, fixture: Fixture, client: Client): Promise<void> {
  const is15 = cluster.major >= 15;
  const label = "a label:\nSTART TIMELINE: 9";
  await client.query(
    is15 ? "SELECT pg_backup_start($1, true)" : "SELECT pg_start_backup($1, true, false)",
    [label],
  );
  const { rows } = await client.query<{ labelfile: string; spcmapfile: string; lsn: string }>(
    `SELECT *, lsn::text FROM ${is15 ? "pg_backup_stop(false)" : "pg_stop_backup(false, false)"}`,
  );
  const [row] = rows;
  if (row === undefined) throw new Error("no backup_label");
  await fixture.addPlain("backup_label", row.labelfile);
  await fixture.addPlain("tablespace_map", row.spcmapfile);
  await cluster.switchWal();
  await cluster.waitForArchiver();
  const names = await readdir(join(cluster.directory, "archive"));
  const history = names.find((name) => name.endsWith(".backup"));
  if (history === undefined) throw new Error("no .backup file");
  await fixture.addPlain(history, await readFile(join(cluster.directory, "archive", history)));
  fixture.facts["backup"] = { label, history, stopLsn: row.lsn };
  fixture.facts["tablespaces"] = await json(
    cluster,
    `SELECT json_agg(json_build_object('oid', oid::bigint, 'path', pg_tablespace_location(oid))
       ORDER BY oid::text) AS list FROM pg_tablespace WHERE oid > 16000`,
  );
}

/** Two promotions: timeline 2 begins inside a segment, timeline 3 at a restore point. */
async function makeTimelines(cluster: Cluster, fixture: Fixture): Promise<void> {
  await cluster.query("INSERT INTO wide SELECT max(id) + 1, 'on timeline 1' FROM wide");
  await recover(cluster, "");
  await cluster.query("INSERT INTO wide SELECT max(id) + 1, 'on timeline 2' FROM wide");
  const first = await cluster.value(`SELECT ${nameOf("pg_current_wal_insert_lsn()")}`);
  const switchEnd = await cluster.value("SELECT pg_switch_wal()");
  await rewindTo(cluster, async () => {
    await cluster.query("SELECT pg_create_restore_point('here \"and\" now')");
    await cluster.query("INSERT INTO wide SELECT max(id) + 1, 'not wanted' FROM wide");
  });
  await recover(cluster, "recovery_target_name = 'here \"and\" now'\n");
  await cluster.query("INSERT INTO wide SELECT max(id) + 1, 'on timeline 3' FROM wide");
  await cluster.switchWal();
  await cluster.waitForArchiver();
  for (const name of ["00000002.history", "00000003.history"]) {
    await fixture.addPlain(name, await readFile(join(cluster.directory, "archive", name)));
  }
  await fixture.add(first, await segment(cluster, first));
  fixture.facts["timelines"] = { first, switchEnd };
}

async function recover(cluster: Cluster, target: string): Promise<void> {
  await cluster.stop();
  await writeFile(join(cluster.dataDirectory, "recovery.signal"), "");
  await writeFile(
    join(cluster.dataDirectory, "postgresql.auto.conf"),
    `restore_command = 'false'\nrecovery_target_action = 'promote'\n${target}`,
  );
  await chownTree(cluster.dataDirectory, cluster.user);
  await cluster.start();
  await cluster.waitFor("SELECT NOT pg_is_in_recovery()");
}

/** Leaves the server stopped with the data of before `work`, and the WAL of after. */
async function rewindTo(cluster: Cluster, work: () => Promise<void>): Promise<void> {
  const copy = join(cluster.directory, "copy");
  await cluster.stop();
  await cp(cluster.dataDirectory, copy, { recursive: true, verbatimSymlinks: true });
  await cluster.start();
  await work();
  await cluster.stop();
  await rm(join(copy, "pg_wal"), { recursive: true });
  await rename(join(cluster.dataDirectory, "pg_wal"), join(copy, "pg_wal"));
  await rm(cluster.dataDirectory, { recursive: true });
  await rename(copy, cluster.dataDirectory);
  await chmod(cluster.dataDirectory, 0o700);
}

/** A crash that lost the rest of a long record, inside a segment and at the start of one. */
async function makeOverwrites(cluster: Cluster, fixture: Fixture): Promise<void> {
  const facts: Json = {};
  for (const kind of ["inside", "start"] as const) {
    await cluster.query("CHECKPOINT");
    await cluster.switchWal();
    await cluster.query("INSERT INTO wide SELECT max(id) + 1, 'before' FROM wide");
    const [row] = await cluster.query(
      `SELECT pg_current_wal_insert_lsn()::text AS begin,
              pg_walfile_name(pg_current_wal_insert_lsn()) AS name,
              pg_logical_emit_message(false, 'lost', repeat('l', ${2 * SEGMENT_BYTES}))::text`,
    );
    const name = String(row?.["name"]);
    await cluster.stop("immediate");
    const damaged = await loseRest(cluster, name, kind);
    await cluster.start();
    await cluster.query("INSERT INTO wide SELECT max(id) + 1, 'after' FROM wide");
    const switchEnd = await cluster.value("SELECT pg_switch_wal()");
    await fixture.add(damaged, await segment(cluster, damaged));
    facts[kind] = { name: damaged, switchEnd };
  }
  fixture.facts["overwrites"] = facts;
}

/** Removes what follows a page (of the record's segment, or all later segments). */
async function loseRest(cluster: Cluster, name: string, kind: "inside" | "start") {
  const directory = join(cluster.dataDirectory, "pg_wal");
  const later = (await readdir(directory)).filter((file) => file.length === 24 && file > name);
  for (const file of later) await rm(join(directory, file));
  if (kind === "inside") {
    const bytes = await readFile(join(directory, name));
    await writeFile(join(directory, name), bytes.fill(0, 40 * PAGE_BYTES));
    return name;
  }
  const next = later.toSorted()[0];
  if (next === undefined) throw new Error(`no segment behind ${name}`);
  return next;
}

async function make(major: Major): Promise<void> {
  const fixture = new Fixture(major);
  await fixture.begin();
  const cluster = await makeCluster(major);
  try {
    fixture.facts["serverVersion"] = Number(await cluster.value("SHOW server_version_num"));
    await makeSegments(cluster, fixture);
    await makeControl(cluster, fixture);
    await makePages(cluster, fixture);
    await makeRelations(cluster, fixture);
    await makeOverwrites(cluster, fixture);
    await makeTimelines(cluster, fixture);
    await cluster.stop();
    await fixture.add("pg_control.stopped", await readFile(controlFile(cluster)));
    await fixture.end();
  } catch (error) {
    console.error(cluster.log());
    throw error;
  } finally {
    await cluster[Symbol.asyncDispose]();
  }
}

const wanted = process.argv.slice(2);
for (const major of MAJORS) {
  if (wanted.length === 0 || wanted.includes(String(major))) await make(major);
}
