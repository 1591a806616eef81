import assert from "node:assert/strict";
import { open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { sentinelKey } from "../../src/layout/keys.ts";
import { formatLsn, lsn } from "../../src/postgres/lsn.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { ForgetfulRelay } from "../support/forgetful-relay.ts";
import { holdFirstPart, HookedStorage } from "../support/hooked-storage.ts";
import { type Cluster, restoreCluster } from "../support/postgres.ts";
import { chownTree } from "../support/server-user.ts";
import { restoreInto } from "../support/restoring.ts";

const isLong = process.env["WALNUT_LONG"] === "1";
for (const major of isLong ? ([13, 15, 18] as const) : ([13, 18] as const)) {
  describe(`a server of PostgreSQL ${major} over the replication protocol`, () => {
    const all: { world?: BackupWorld } = {};
    function world(): BackupWorld {
      if (all.world === undefined) throw new Error("no server");
      return all.world;
    }
    before(async () => {
      all.world = await startBackupWorld({ major, dataDirectoryName: "the data" });
      const { cluster } = all.world;
      const location = await cluster.makeDirectory("a table space");
      await cluster.query(`CREATE TABLESPACE other LOCATION '${location}'`);
      await cluster.query("CREATE DATABASE second");
      await cluster.query(ITEMS, "second");
      await cluster.query(ITEMS);
      await cluster.query("CREATE TABLE elsewhere TABLESPACE other AS SELECT * FROM item");
      await cluster.query("CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS n");
    });
    after(async () => await all.world?.[Symbol.asyncDispose]());

    test("is backed up with its tablespaces, in parts, and restored", async () => {
      const { cluster, storage, repository } = world();
      const { name, fileCount, contentBytes } = await world().pushRemote({
        codec: codecOf("zstd"),
        thresholdBytes: 8 * 1024 * 1024,
        hash: major === 15 ? "sha256" : "xxh64",
        diskRateBytesPerSecond: 512 * 1024 * 1024,
        isPageVerified: true,
      });
      assert.ok(fileCount > 900 && contentBytes > 20_000_000, `${fileCount} ${contentBytes}`);
      const keys = await world().keys(`basebackups_005/${name}/`);
      const names = keys.map((key) => key.slice(key.lastIndexOf("/") + 1));
      for (const wanted of ["part_002.tar.zst", "pg_control.tar.zst", "backup_label.tar.zst"]) {
        assert.ok(names.includes(wanted), names.join(" "));
      }
      assert.ok(names.includes("walnut_backup_manifest.zst"));
      const sentinel = await world().sentinel(name);
      assert.equal(sentinel.spec?.tablespaces.length, 1);
      const destination = join(cluster.directory, "restored here");
      const moved = join(cluster.directory, "moved space");
      const [tablespace] = sentinel.spec?.tablespaces ?? [];
      await restoreInto(storage, destination, {
        backup: name,
        tablespaces: { mappings: [{ from: tablespace?.name ?? "", to: moved }] },
      });
      await chownTree(moved, cluster.user);
      await assertSame(cluster, destination, repository);
      assert.equal((await readdir(moved)).length, 1, "the tablespace is where it was mapped to");
    });

    if (major === 15) return;

    test("a connection that is lost leaves nothing", async () => {
      const { cluster } = world();
      const before = await world().keys("basebackups_005/");
      let isCut = false;
      const storage = new HookedStorage(world().storage, {
        beforePut: async (key) => {
          if (isCut || !key.endsWith(".tar")) return;
          isCut = true;
          await cluster.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'",
          );
        },
      });
      await assert.rejects(world().pushRemote({ storage }), {
        name: /^(Database|Replication)Error$/,
      });
      assert.ok(isCut);
      assert.deepEqual(await world().keys("basebackups_005/"), before);
    });

    test("the session beside it is not forgotten on the way, and the backup outlives it (P19)", async () => {
      const { cluster } = world();
      await using relay = await ForgetfulRelay.start(cluster.port);
      const connection = world().connection({ port: relay.port });
      const { storage, entered, release } = holdFirstPart(world().storage);
      const pushing = world().pushRemote({ connection, storage, aliveCheckIntervalMs: 20 });
      pushing.catch(() => {});
      await Promise.race([entered, pushing]);
      await relay.connectionsLeft(2);
      for (let count = 0; count < 5; count += 1) await relay.clientSpeaks();
      await cluster.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE application_name = 'walnut-test' AND backend_type = 'client backend'`,
      );
      await relay.connectionsLeft(1);
      release();
      const { name } = await pushing;
      assert.ok((await world().keys()).includes(sentinelKey(name)));
      assert.match(
        world().logged.join("\n"),
        /warning: another backup of this cluster could begin/,
      );
    });

    test("where the server can't make an increment it becomes a full backup, said so", async () => {
      const { cluster } = world();
      const increments = { maxSteps: 5, origin: "latest" } as const;
      const from = world().logged.length;
      const first = await world().pushRemote({ increments });
      assert.equal(first.baseName, undefined);
      const reason = major < 17 ? /remote increments need PostgreSQL 17/ : /summarize_wal is off/;
      assert.match(world().logged.slice(from).join("\n"), reason);
      if (major < 17) return;

      await cluster.query("ALTER SYSTEM SET summarize_wal = on");
      await cluster.query("SELECT pg_reload_conf()");
      const base = await world().pushRemote();
      const increment = await world().pushRemote({ increments });
      assert.equal(increment.baseName, base.name, world().logged.join("\n"));
      await cluster.query("CHECKPOINT");
      const stop = formatLsn(lsn(increment.stopLsn));
      const summarized = `SELECT count(*) > 0 FROM pg_available_wal_summaries() WHERE end_lsn > '${stop}'`;
      await cluster.waitFor(summarized);
      const summaries = join(cluster.dataDirectory, "pg_wal", "summaries");
      for (const file of await readdir(summaries)) await rm(join(summaries, file));
      const second = await world().pushRemote({ increments });
      assert.equal(second.baseName, undefined);
      assert.match(
        world().logged.join("\n"),
        /warning: Doing full backup: the server can't make an increment .*WAL summaries/,
      );
    });

    test("a tablespace that the server does not find is not left out", async () => {
      const { cluster } = world();
      const location = await cluster.makeDirectory("lost space");
      await cluster.query(`CREATE TABLESPACE lost LOCATION '${location}'`);
      const before = await world().keys("basebackups_005/");
      await rename(location, `${location} away`);
      await assert.rejects(world().pushRemote(), {
        name: "RefusedError",
        message: /^the server sent nothing of tablespace lost \(\d+\) at .*lost space/,
      });
      assert.deepEqual(await world().keys("basebackups_005/"), before);
      await rename(`${location} away`, location);
      await cluster.query("DROP TABLESPACE lost");
    });

    test("WAL that does not arrive is found out before anything is copied", async () => {
      await world().setArchiveCommand("true");
      const before = await world().keys("basebackups_005/");
      await assert.rejects(world().pushRemote({ archiveCheckTimeoutMs: 300 }), {
        message: /^WAL segment [0-9A-F]{24} did not arrive/,
      });
      assert.deepEqual(await world().keys("basebackups_005/"), before);
      await world().setArchiveCommand(`cp "%p" "${world().repository}/wal_005/%f"`);
    });

    if (major !== 18) return;

    test("the same as by the data directory, but for what the server leaves out", async () => {
      const remote = await filesOf(world(), (await world().pushRemote()).name);
      const local = await filesOf(world(), (await world().push()).name);
      assert.deepEqual(
        [...remote].filter((path) => isLasting(path) && !local.has(path)),
        [],
      );
      assert.deepEqual(
        [...local].filter((path) => isLasting(path) && !remote.has(path)),
        [],
      );
    });

    test("a role with REPLICATION and pg_monitor is enough", async () => {
      const { cluster } = world();
      await cluster.query("CREATE ROLE keeper LOGIN REPLICATION IN ROLE pg_monitor");
      const from = world().logged.length;
      const { name } = await world().pushRemote({
        connection: world().connection({ user: "keeper" }),
      });
      assert.equal((await world().sentinel(name)).own?.isRemote, true);
      const warnings = world()
        .logged.slice(from)
        .filter((line) => line.startsWith("warning"));
      assert.deepEqual(warnings, []);
    });

    test("a page with a wrong checksum ends a verified backup, in the server's words", async () => {
      const { cluster } = world();
      await cluster.query("CREATE TABLE damaged AS SELECT n FROM generate_series(1, 1000) n");
      await cluster.query("CHECKPOINT");
      const path = await cluster.value("SELECT pg_relation_filepath('damaged')");
      const file = await open(join(cluster.dataDirectory, path), "r+");
      await file.write(Buffer.alloc(16, 0x55), 0, 16, 8192 + 4000);
      await file.close();
      const before = await world().keys("basebackups_005/");
      const from = world().logged.length;
      await assert.rejects(world().pushRemote({ isPageVerified: true }), {
        message: /checksum verification failure during base backup/,
      });
      assert.match(world().logged.slice(from).join("\n"), /warning: the server says .*checksum/);
      assert.deepEqual(await world().keys("basebackups_005/"), before);
      await cluster.query("DROP TABLE damaged");
    });
  });
}

/** Files that come and go between two backups. */
function isLasting(path: string): boolean {
  return !/pg_internal\.init|pg_stat|pg_xact|pg_logical/.test(path);
}

const ITEMS = "CREATE TABLE item AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) n";

async function assertSame(
  cluster: Cluster,
  destination: string,
  repository: string,
): Promise<void> {
  await using restored = await restoreCluster(destination, {
    major: cluster.major,
    signal: "recovery",
    restoreCommand: `cp "${repository}/wal_005/%f" "%p"`,
  });
  assert.equal(restored.outcome, "promoted", restored.log());
  await cluster.query("TRUNCATE fleeting");
  assert.equal(await restored.contents(), await cluster.contents());
}

async function filesOf(world: BackupWorld, name: string): Promise<Set<string>> {
  const directory = await world.unpack(name, `files of ${name}`);
  return new Set(await readdir(directory, { recursive: true }));
}
