/** Tablespaces and links of a real server, restored where they were and elsewhere. */
import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { type Cluster, restoreCluster } from "../support/postgres.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { chownTree } from "../support/server-user.ts";

const MAJOR = 16;
const IS_LONG = process.env["WALNUT_LONG"] !== undefined;
const SPACES = ["one", "two", "three"] as const;
const LINKS = ["pg_hba.conf", "pg_ident.conf"] as const;
const increments = { maxSteps: 9, origin: "latest", ways: ["page-scan"] } as const;

test("three tablespaces, linked pg_wal and configuration: same places and mapped ones (P35)", async () => {
  await using world = await startBackupWorld({ major: MAJOR });
  const { cluster, storage } = world;
  await moveOut(cluster);
  await fill(cluster);
  const { name: full } = await world.push({ increments, hasDatabaseNames: false });
  for (const space of SPACES) {
    await cluster.query(`UPDATE at_${space} SET t = 'changed' WHERE id % 500 = 0`);
  }
  await cluster.query("CREATE TABLE later TABLESPACE two AS SELECT 1 AS id");
  const { name: increment, baseName } = await world.push({ increments, hasDatabaseNames: false });
  assert.equal(baseName, full);
  // Of the increment all steps of the chain are restored, the full backup's the first.
  const restored = IS_LONG ? [full, increment] : [increment];
  await cluster.query("INSERT INTO later VALUES (2)");
  await cluster.switchWal();
  await cluster.waitForArchiver();
  const wanted = await stateOf(cluster);

  const outside = outsideOf(cluster);
  await cluster.query("CHECKPOINT");
  for (const backup of restored) await restoreMapped(world, backup, wanted);
  await cluster.stop();
  assert.ok(outside.every((path) => lstatSync(path).isDirectory()));
  for (const backup of restored) {
    const old = join(cluster.directory, `what was there before ${backup}`);
    mkdirSync(old);
    // A restored pg_wal is a directory in the data directory.
    for (const path of [cluster.dataDirectory, ...outside].filter((place) => existsSync(place))) {
      renameSync(path, join(old, path.slice(path.lastIndexOf("/") + 1)));
    }
    await restoreInto(storage, cluster.dataDirectory, { backup });
    await assertRestored(world, cluster.dataDirectory, "", wanted);
  }
});

/** With the live server beside it: nothing of that is touched. */
async function restoreMapped(
  world: BackupWorld,
  backup: string,
  wanted: readonly string[],
): Promise<void> {
  const { cluster, storage } = world;
  const root = await cluster.makeDirectory(`mapped ${backup}`);
  const mappings = [];
  for (const space of SPACES) {
    const from = join(cluster.directory, space);
    mappings.push({ from, to: join(root, from) });
  }
  const live = outsideOf(cluster).map((path) => [...snapshot(path).keys()]);
  const destination = join(root, cluster.dataDirectory);
  await restoreInto(storage, destination, { backup, tablespaces: { mappings } });
  await chownTree(root, cluster.user);
  await assertRestored(world, destination, root, wanted);
  const now = outsideOf(cluster).map((path) => [...snapshot(path).keys()]);
  assert.deepEqual(now, live, "the live server's places are as they were");
  assert.deepEqual(await stateOf(cluster), wanted);
}

/** Below `root`, if it has one: every tablespace, and nothing that leads to the live ones. */
async function assertRestored(
  { cluster, repository }: BackupWorld,
  destination: string,
  root: string,
  wanted: readonly string[],
): Promise<void> {
  const map = readFileSync(join(destination, "tablespace_map"), "utf8").trimEnd().split("\n");
  const places = SPACES.map((space) => `${root}${join(cluster.directory, space)}`);
  const mapped = map.map((line) => line.replace(/^\d+ /, ""));
  assert.deepEqual(mapped.toSorted(), places.toSorted());
  for (const line of map) {
    const [oid = ""] = line.split(" ");
    const link = readlinkSync(join(destination, "pg_tblspc", oid));
    assert.equal(link, line.slice(oid.length + 1));
    await chownTree(link, cluster.user);
  }
  for (const name of LINKS) {
    assert.equal(readlinkSync(join(destination, name)), join(cluster.directory, "conf", name));
  }
  assert.ok(lstatSync(join(destination, "pg_wal")).isDirectory());
  await using restored = await restoreCluster(destination, {
    major: MAJOR,
    signal: "recovery",
    restoreCommand: `cp "${repository}/wal_005/%f" "%p"`,
  });
  assert.equal(restored.outcome, "promoted", restored.log());
  assert.deepEqual(await stateOf(restored), wanted);
}

/** pg_wal and two configuration files become links out of the data directory. */
async function moveOut(cluster: Cluster): Promise<void> {
  await cluster.stop();
  await cluster.moveWal(await cluster.makeDirectory("wal"));
  const conf = await cluster.makeDirectory("conf");
  for (const name of LINKS) {
    const path = join(cluster.dataDirectory, name);
    renameSync(path, join(conf, name));
    symlinkSync(join(conf, name), path);
  }
  await cluster.start();
}

async function fill(cluster: Cluster): Promise<void> {
  for (const space of SPACES) {
    const location = await cluster.makeDirectory(space);
    await cluster.query(`CREATE TABLESPACE ${space} LOCATION '${location}'`);
    await cluster.query(
      `CREATE TABLE at_${space} TABLESPACE ${space} AS
       SELECT g AS id, repeat('${space}', 20) AS t FROM generate_series(1, 3000) g`,
    );
  }
}

/** Places of the server outside its data directory that a restore fills. */
function outsideOf(cluster: Cluster): readonly string[] {
  return [...SPACES, "wal"].map((name) => join(cluster.directory, name));
}

async function stateOf(cluster: Pick<Cluster, "value">): Promise<readonly string[]> {
  const tables = [...SPACES.map((space) => `at_${space}`), "later"];
  return await Promise.all(
    tables.map((table) =>
      cluster.value(`SELECT md5(string_agg(r::text, '' ORDER BY id)) FROM ${table} r`),
    ),
  );
}
