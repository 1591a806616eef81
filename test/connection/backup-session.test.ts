import assert from "node:assert/strict";
import { realpathSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import {
  lockBackup,
  startBackup,
  stopBackup,
  writeWalMessage,
} from "../../src/connection/backup-session.ts";
import { listDatabases, readRelations, type Relation } from "../../src/connection/catalog.ts";
import { connectPostgres } from "../../src/connection/connect.ts";
import {
  estimateClusterBytes,
  readArchiverStatistics,
  readServerFacts,
} from "../../src/connection/server-facts.ts";
import type { Session } from "../../src/connection/session.ts";
import { parseBackupLabel } from "../../src/postgres/backup-label.ts";
import { findRelease } from "../../src/postgres/versions.ts";
import { type Cluster, MAJORS, startCluster } from "../support/postgres.ts";

const signal = AbortSignal.timeout(300_000);

async function connect(cluster: Cluster, change: object = {}): Promise<Session> {
  const settings = {
    host: "127.0.0.1",
    port: cluster.port,
    user: "postgres",
    database: "postgres",
    applicationName: "walnut-test",
    ...change,
  };
  return await connectPostgres(settings, { signal });
}

for (const major of MAJORS) {
  test(`facts, start and stop on PostgreSQL ${major}`, async () => {
    await using cluster = await startCluster({
      major,
      segmentMiB: 1,
      archiveCommand: "true",
      checksums: major % 2 === 0,
    });
    await using session = await connect(cluster);
    const facts = await readServerFacts(session, { signal });
    assert.equal(facts.majorVersion, major);
    assert.equal(Math.trunc(facts.versionNumber / 10_000), major);
    assert.equal(facts.dataDirectory, realpathSync(cluster.dataDirectory));
    const systemId = await cluster.value("SELECT system_identifier FROM pg_control_system()");
    assert.equal(facts.systemId, BigInt(systemId));
    assert.equal(facts.timeline, 1);
    assert.equal(facts.walSegmentBytes, 1024 * 1024);
    assert.equal(facts.blockBytes, 8192);
    assert.equal(facts.hasDataChecksums, major % 2 === 0);
    assert.equal(facts.catalogVersion, findRelease(major)?.catalogVersion);
    assert.equal(facts.isInRecovery, false);
    assert.equal(facts.archiveMode, "on");
    assert.equal(facts.hasArchiver, true);
    assert.equal(facts.statsDirectory, major < 15 ? "pg_stat_tmp" : undefined);

    const message = await writeWalMessage(session, { signal });
    const start = await startBackup(session, { majorVersion: major, label: "a\tb" }, { signal });
    assert.ok(start.startLsn > message);
    assert.equal(
      start.segment,
      await cluster.value(`SELECT pg_walfile_name('${text(start.startLsn)}')`),
    );
    const stop = await stopBackup(session, { majorVersion: major }, { signal });
    assert.ok(stop.stopLsn > start.startLsn);
    const label = parseBackupLabel(stop.backupLabel);
    assert.equal(label.startLsn, start.startLsn);
    assert.equal(label.label, "a\tb");
    assert.equal(stop.tablespaceMap, "");
    assert.ok(((await estimateClusterBytes(session, { signal })) ?? 0) > 1_000_000);
  });
}

function text(position: bigint): string {
  return `${(position >> 32n).toString(16)}/${(position & 0xffff_ffffn).toString(16)}`;
}

describe("one server", () => {
  const all: { cluster?: Cluster } = {};
  function cluster(): Cluster {
    if (all.cluster === undefined) throw new Error("no cluster");
    return all.cluster;
  }

  before(async () => {
    all.cluster = await startCluster({
      major: 18,
      segmentMiB: 1,
      settings: { archive_mode: "on", archive_command: "false" },
    });
    await cluster().query("CREATE DATABASE other");
  });
  after(async () => await all.cluster?.[Symbol.asyncDispose]());

  test("a second backup is refused in any database, with the first one's name", async () => {
    await using first = await connect(cluster(), { applicationName: "first backup" });
    await lockBackup(first, { signal });
    for (const database of ["postgres", "other"]) {
      await using second = await connect(cluster(), { database });
      await assert.rejects(lockBackup(second, { signal }), (error: unknown) => {
        assert.ok(error instanceof Error && "hint" in error);
        assert.equal(error.name, "RefusedError");
        assert.match(
          error.message,
          new RegExp(
            /^another backup of this cluster is running: server process \d+, role postgres, /
              .source +
              /database postgres, application first backup, from 127\.0\.0\.1, since 20/.source,
          ),
        );
        assert.match(String(error.hint), /pg_terminate_backend/);
        return true;
      });
    }
  });

  test("the lock ends with its session", async () => {
    for (let round = 0; round < 2; round += 1) {
      await using session = await connect(cluster());
      await lockBackup(session, { signal });
    }
  });

  test("the archiver's last failure is told", async () => {
    await cluster().query("SELECT pg_logical_emit_message(false, 'a', 'b')");
    const segment = await cluster().switchWal();
    await cluster().waitFor("SELECT failed_count > 0 FROM pg_stat_archiver");
    await using session = await connect(cluster());
    const statistics = await readArchiverStatistics(session, { signal });
    assert.ok(statistics.failedCount > 0);
    assert.match(statistics.lastFailedWal ?? "", /^[0-9A-F]{24}$/);
    assert.ok((statistics.lastFailedWal ?? "") <= segment);
    assert.match(statistics.lastFailedAt ?? "", /^20\d\d-/);
    assert.equal(statistics.archivedCount, 0);
    assert.equal(statistics.lastArchivedWal, undefined);
  });

  test("a release that we do not know is refused", async () => {
    // One that is to come can't be started; its answer can be given.
    await cluster().query(
      `CREATE SCHEMA fake;
       CREATE FUNCTION fake.current_setting(text) RETURNS text LANGUAGE sql AS
         $$ SELECT CASE WHEN $1 = 'server_version_num' THEN '190000' ELSE '19.0' END $$`,
    );
    await using session = await connect(cluster());
    await session.query("SET search_path = fake, pg_catalog", { signal });
    await assert.rejects(readServerFacts(session, { signal }), {
      name: "RefusedError",
      message: `PostgreSQL at 127.0.0.1:${cluster().port} is 19.0; walnut backs up 13 to 18`,
    });
  });

  test("no archiver is set", async () => {
    await cluster().query("ALTER SYSTEM SET archive_command = ''");
    await cluster().query("SELECT pg_reload_conf()");
    await cluster().waitFor("SELECT current_setting('archive_command') = ''");
    await using session = await connect(cluster());
    assert.equal((await readServerFacts(session, { signal })).hasArchiver, false);
  });

  test("relations are told with partitions, indexes and TOAST tables", async () => {
    await cluster().query(
      `CREATE TABLE plain (id int);
       CREATE TABLE "Ä b" (id int PRIMARY KEY);
       CREATE TABLE parent (id int) PARTITION BY RANGE (id);
       CREATE TABLE half PARTITION OF parent FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
       CREATE TABLE leaf PARTITION OF half FOR VALUES FROM (0) TO (5);
       CREATE INDEX by_id ON parent (id);
       CREATE TABLE worded (t text PRIMARY KEY);
       CREATE TABLE base_table (id int);
       CREATE TABLE heir () INHERITS (base_table);
       CREATE VIEW seen AS SELECT 1`,
      "other",
    );
    await using session = await connect(cluster(), { database: "other" });
    const databases = await listDatabases(session, { signal });
    assert.deepEqual(databases.map(({ name }) => name).toSorted(), [
      "other",
      "postgres",
      "template1",
    ]);

    const relations = new Map<string, Relation>();
    for await (const relation of readRelations(session, { signal })) {
      assert.ok(!relations.has(relation.name));
      relations.set(relation.name, relation);
    }
    const names = (name: string) => relations.get(name)?.descendants.map((child) => child.name);
    assert.deepEqual(names("public.parent"), ["public.half", "public.leaf", "public.leaf_id_idx"]);
    assert.equal(relations.get("public.parent")?.relfilenode, 0);
    assert.deepEqual(names("public.base_table"), ["public.heir"]);
    assert.deepEqual(names("public.heir"), []);
    assert.deepEqual(names("public.Ä b"), ["public.Ä b_pkey"]);
    const toast = `pg_toast.pg_toast_${relations.get("public.worded")?.oid}`;
    assert.deepEqual(names("public.worded"), [toast, `${toast}_index`, "public.worded_pkey"]);
    assert.deepEqual(names("pg_catalog.pg_proc"), []);
    for (const absent of ["public.half", "public.leaf", "public.seen"]) {
      assert.equal(relations.has(absent), false, absent);
    }
    const mapped = relations.get("pg_catalog.pg_class");
    assert.equal(mapped?.oid, 1259);
    assert.ok((mapped?.relfilenode ?? 0) > 0);
    const count = await cluster().value(
      "SELECT count(*) FROM pg_class WHERE NOT relispartition AND pg_relation_filepath(oid) IS NOT NULL",
      "other",
    );
    assert.equal(relations.size, Number(count) + 1, "all with files, and the partitioned table");
  });
});
