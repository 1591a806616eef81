/** What went wrong with increments elsewhere, up to the restored cluster page by page. */
import assert from "node:assert/strict";
import { statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { ChangeWay } from "../../src/backup/change-sources.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { ChangeMaps } from "../support/change-maps.ts";
import { ClusterHistory } from "../support/cluster-history.ts";
import { seededRandom } from "../support/random.ts";
import { assertAllRestoreLive } from "../support/restored-compare.ts";

const MAJOR = 16;
const PAGE = 8192;
const WEEKS_MS = 30 * 24 * 3_600_000;

test("archiving that began late, a failover and clocks that went back (E15, E17, E19)", async () => {
  const started = await startBackupWorld({
    major: MAJOR,
    settings: { archive_mode: "off", autovacuum: "off" },
  });
  await using history = new ClusterHistory(started, seededRandom());
  const world = (): BackupWorld => history.world;
  for (const table of ["warm", "shrinking", "cold"]) {
    await world().cluster.query(
      `CREATE TABLE ${table} AS SELECT g AS id, repeat('x', 90) AS t FROM generate_series(1, 9000) g`,
    );
    await world().cluster.query(`VACUUM ${table}`);
  }
  await beginArchiving(world());
  const { name: full } = await pushOn(world(), "", "page-scan");
  const maps = new ChangeMaps(world());
  await fillGroups(world());
  await maps.store(world());

  // A map of the group in which the archive begins would be one of segments that never came.
  const groups = (await world().keys("walnut_005/changes/")).map((key) => key.slice(19, 43));
  assert.deepEqual(groups, ["000000010000000000000010"]);
  const scanned = [await pushOn(world(), full, "page-scan")];
  const noted = [await pushOn(world(), full, "wal", maps.directory)];

  await history.failOver(MAJOR);
  await changeBehindTimes(world());
  scanned.push(await pushOn(world(), scanned[0]?.name ?? "", "page-scan"));
  noted.push(await pushOn(world(), noted[0]?.name ?? "", "wal", maps.directory));
  const sources = [scanned, noted].map((chain) => chain.map(({ source }) => source));
  assert.deepEqual(sources, [
    ["page-scan", "page-scan"],
    ["wal-deltas", "wal"],
  ]);
  const newest = [scanned, noted].map((chain) => chain.at(-1)?.name ?? "");
  await assertAllRestoreLive(world(), newest, MAJOR);
});

/** The first segment that comes is neither the first of all nor the first of its group. */
async function beginArchiving(world: BackupWorld): Promise<void> {
  const { cluster, repository } = world;
  for (let count = 0; count < 3; count += 1) {
    await cluster.query("UPDATE warm SET t = 'early' WHERE id < 50");
    await cluster.switchWal();
  }
  await cluster.configure({ archive_mode: "on" });
  await cluster.stop();
  await cluster.start();
  await world.setArchiveCommand(`cp "%p" "${repository}/wal_005/%f"`);
  await cluster.switchWal();
  await cluster.waitForArchiver();
  const [first = ""] = await world.keys("wal_005/");
  const number = Number.parseInt(first.slice(-2), 16);
  assert.ok(number > 3 && number < 16, first);
}

/** Changes in the group in which the archive began, in one that is whole, and in a third. */
async function fillGroups({ cluster }: BackupWorld): Promise<void> {
  await cluster.query(
    `DO $$ BEGIN
       FOR round IN 1..96 LOOP
         EXIT WHEN pg_current_wal_insert_lsn() > '0/2200000';
         UPDATE warm SET t = 'round ' || round WHERE id % 97 = round;
         PERFORM pg_switch_wal();
       END LOOP;
     END $$`,
  );
}

/** Changes that no time of a file tells of: it stays, or goes back by weeks. */
async function changeBehindTimes({ cluster }: BackupWorld): Promise<void> {
  const path = async (table: string) =>
    join(cluster.dataDirectory, await cluster.value(`SELECT pg_relation_filepath('${table}')`));
  const [warm, shrinking] = [await path("warm"), await path("shrinking")];
  const [first, second] = [statSync(warm), statSync(shrinking)];
  await cluster.query("UPDATE warm SET t = 'within a second' WHERE id = 4500");
  await cluster.query("DELETE FROM shrinking WHERE id > 20");
  for (const sql of ["VACUUM shrinking", "CHECKPOINT"]) await cluster.query(sql);
  assert.equal(statSync(shrinking).size, PAGE);
  utimesSync(warm, first.atime, first.mtime);
  const past = new Date(second.mtimeMs - WEEKS_MS);
  utimesSync(shrinking, past, past);
}

/** A full backup without a base. Gives its name and where its changes came from. */
async function pushOn(world: BackupWorld, base: string, way: ChangeWay, notesDirectory?: string) {
  const from = base === "" ? undefined : ({ kind: "name", name: base } as const);
  const ways = way === "page-scan" ? [way] : [way, "page-scan" as const];
  const increments = { maxSteps: base === "" ? 0 : 9, origin: "latest", ways, from } as const;
  const { name, baseName } = await world.push({
    increments,
    notesDirectory,
    hasDatabaseNames: false,
  });
  assert.equal(baseName ?? "", base, world.logged.join("\n"));
  return { name, source: (await world.sentinel(name)).own?.changeSource };
}
