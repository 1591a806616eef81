import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Cluster, initCluster, restoreCluster } from "../support/postgres.ts";
import { type Installation, install } from "../support/repository.ts";

const MAJOR = 18;

/** Names, newest last, with the storage that holds each. */
async function listed(walnut: Installation): Promise<ReadonlyMap<string, string>> {
  const { stdout } = await walnut.mustRun("backup-list");
  const rows = stdout
    .trimEnd()
    .split("\n")
    .slice(1)
    .map((line) => line.split(/ +/));
  return new Map(rows.map(([name = "", , , storage = ""]) => [name, storage]));
}

async function restored(
  cluster: Cluster,
  walnut: Installation,
  { name, settings }: { readonly name: string; readonly settings: Record<string, string> },
): Promise<number> {
  const directory = join(cluster.directory, `restored ${name}`);
  await walnut.mustRun("backup-fetch", directory, name);
  await using server = await restoreCluster(directory, {
    major: MAJOR,
    signal: "recovery",
    restoreCommand: walnut.restoreCommand,
    settings,
  });
  assert.equal(server.outcome, "promoted", server.log());
  return Number(await server.value("select max(number) from seen"));
}

// Of WAL-G's: delete_end_to_end, backup_mark_impermanent, backup_mark_permanent_no_error,
// delete_before_permanent_delta_multist.
test("backups in two storages in turn: what delete leaves is restored by a real server", async () => {
  await using cluster = await initCluster({
    major: MAJOR,
    segmentMiB: 1,
    settings: { archive_mode: "on", summarize_wal: "on" },
  });
  const [first, second] = [
    await cluster.makeDirectory("first"),
    await cluster.makeDirectory("second"),
  ];
  const walnut = await install(cluster, {
    WALG_FILE_PREFIX: first,
    WALG_FAILOVER_STORAGES: JSON.stringify({ second: { WALG_FILE_PREFIX: second } }),
  });
  await cluster.configure({ archive_command: walnut.archiveCommand });
  await cluster.start();
  await cluster.query("create table seen (number int primary key, body text)");

  const rows = new Map<string, number>();
  const take = async (...flags: readonly string[]): Promise<string> => {
    const number = rows.size + 1;
    await cluster.query(`insert into seen values (${number}, repeat('x', 200000))`);
    await walnut.mustRun("backup-push", cluster.dataDirectory, ...flags);
    const name = [...(await listed(walnut)).keys()].find((one) => !rows.has(one)) ?? "";
    rows.set(name, number);
    return name;
  };
  await take("--full");
  const full = await take("--full", "--target-storage=second");
  const pinned = await take("--type", "incr", "--target-storage=second");
  await walnut.mustRun("backup-mark", pinned);
  await walnut.mustRun("backup-mark", pinned);
  const newer = await take("--full", "--permanent");
  const last = await take("--type", "incr", "--permanent");
  assert.ok(
    [pinned, last].every((name) => name.includes("_D_")),
    [...rows.keys()].join(" "),
  );
  await cluster.query("insert into seen values (100, 'the end')");
  await cluster.switchWal();
  await cluster.waitForArchiver();

  await walnut.mustRun("delete", "before", "FIND_FULL", last, "--confirm");
  assert.deepEqual(
    [...(await listed(walnut))],
    [
      [full, "second"],
      [pinned, "second"],
      [newer, "default"],
      [last, "default"],
    ],
  );
  const immediate = { recovery_target: "immediate", recovery_target_action: "promote" };
  assert.equal(await restored(cluster, walnut, { name: pinned, settings: immediate }), 3);
  assert.equal(await restored(cluster, walnut, { name: last, settings: {} }), 100);

  const refused = await walnut.run("backup-mark", full, "-i");
  assert.match(refused.stderr, /There is permanent increment backup that depends on this backup/);
  await walnut.mustRun("backup-mark", "--impermanent", pinned);
  await walnut.mustRun("backup-mark", "--impermanent", full);
  await walnut.mustRun("delete", "before", newer, "--confirm");
  assert.deepEqual([...(await listed(walnut)).keys()], [newer, last]);
  assert.deepEqual(await readdir(join(second, "basebackups_005")).catch(() => []), []);
  await walnut.mustRun("verify", "--full");
});
