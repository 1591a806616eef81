/**
 * A mirror with the real program and a real server: it goes away and is caught up, the primary dies
 * (a fail-over storage takes its place) and is damaged. Archiving and restores go on, and in the
 * end both are equal.
 */
import assert from "node:assert/strict";
import { chmod, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Cluster, initCluster, restoreCluster } from "../support/postgres.ts";
import { install, type Installation } from "../support/repository.ts";

const MAJOR = 18;
/** Commands that wait for stores that are dead take a minute in all. */
const IS_LONG = process.env["WALNUT_LONG"] !== undefined;

interface World {
  readonly cluster: Cluster;
  readonly walnut: Installation;
  readonly primary: string;
  readonly mirror: string;
}

async function startWorld(stack: AsyncDisposableStack): Promise<World> {
  const cluster = stack.use(
    await initCluster({ major: MAJOR, segmentMiB: 1, settings: { archive_mode: "on" } }),
  );
  const [primary, spare, mirror, queue] = await Promise.all(
    ["primary", "spare", "mirror", "queue"].map((name) => cluster.makeDirectory(name)),
  );
  const walnut = await install(cluster, {
    WALG_FILE_PREFIX: primary ?? "",
    WALG_FAILOVER_STORAGES: JSON.stringify({ spare: { WALG_FILE_PREFIX: spare } }),
    // Or the primary would not be written to for a while after it came back.
    WALG_FAILOVER_STORAGES_CHECK: "false",
    WALNUT_MIRROR: JSON.stringify({ second: { WALG_FILE_PREFIX: mirror } }),
    WALNUT_MIRROR_QUEUE_DIRECTORY: queue ?? "",
  });
  await chmod(walnut.configFile, 0o644);
  await cluster.configure({ archive_command: walnut.archiveCommand });
  await cluster.start();
  await cluster.query("create table t (id int)");
  return { cluster, walnut, primary: primary ?? "", mirror: mirror ?? "" };
}

async function addRows({ cluster }: World): Promise<void> {
  await cluster.query("insert into t select generate_series(1, 1000)");
  await cluster.switchWal();
  await cluster.waitForArchiver();
  assert.equal(await cluster.value("select failed_count from pg_stat_archiver"), "0");
}

/** Flips a bit in the middle of every object. */
async function damage(root: string): Promise<number> {
  let count = 0;
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith(".zst")) continue;
    const path = join(entry.parentPath, entry.name);
    const bytes = await readFile(path);
    const middle = Math.trunc(bytes.length / 2);
    bytes.writeUInt8(bytes.readUInt8(middle) ^ 16, middle);
    await writeFile(path, bytes);
    count += 1;
  }
  return count;
}

async function restore({ cluster, walnut }: World, name: string): Promise<string> {
  const target = join(cluster.directory, name);
  await walnut.mustRun("backup-fetch", target, "LATEST");
  await using restored = await restoreCluster(target, {
    major: MAJOR,
    signal: "recovery",
    restoreCommand: walnut.restoreCommand,
  });
  if (restored.outcome !== "promoted") return restored.outcome;
  return await restored.value("select count(*) from t");
}

async function goOn(): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const world = await startWorld(stack);
  const { cluster, walnut, primary, mirror } = world;
  await walnut.mustRun("backup-push", cluster.dataDirectory);
  await addRows(world);

  await rename(mirror, `${mirror}.away`);
  await addRows(world);
  const info = JSON.parse((await walnut.mustRun("info", "--offline", "--json")).stdout);
  assert.equal(info.mirrors[0].name, "second");
  assert.ok(info.mirrors[0].due > 0);
  const codes = info.warnings.map(({ code }: { code: string }) => code);
  assert.ok(codes.includes("mirror-away"), codes.join());
  await rename(`${mirror}.away`, mirror);
  await walnut.mustRun("st", "sync");
  await walnut.mustRun("st", "diff", "--content");

  // The fail-over storage takes what is new; what is old is read from the mirror.
  await rename(primary, `${primary}.away`);
  await addRows(world);
  const [segment = ""] = (await readdir(join(mirror, "wal_005"))).filter((one) =>
    one.startsWith("0"),
  );
  await walnut.mustRun("wal-fetch", segment.slice(0, 24), join(cluster.directory, "fetched"));
  const dead = join(cluster.directory, "from-mirror");
  await walnut.mustRun("backup-fetch", dead, "LATEST");
  const unproved = ["wal-fetch", "0000000100000000000000EE", join(cluster.directory, "missing")];
  assert.equal((await walnut.run(...unproved)).code, 200);
  await rename(`${primary}.away`, primary);
  await walnut.mustRun("st", "sync");

  // Each object of the primary is damaged: all is read from the mirror, and then repaired.
  assert.ok((await damage(join(primary, "wal_005"))) > 0);
  assert.ok((await damage(join(primary, "basebackups_005"))) > 0);
  await walnut.mustRun("st", "diff");
  assert.equal(await restore(world, "damaged"), "3000");
  assert.notEqual((await walnut.run("st", "diff", "--content")).code, 0);
  await walnut.mustRun("st", "sync", "--content");
  await walnut.mustRun("st", "diff", "--content");

  // The mirror alone is a whole repository.
  await rename(primary, `${primary}.gone`);
  const listed = await walnut.mustRun("backup-list", "--target-storage=second");
  assert.match(listed.stdout, /base_/);
}

/** In a normal run: the mirror goes away and is caught up, then each object is damaged. */
async function catchUp(): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const world = await startWorld(stack);
  const { cluster, walnut, primary, mirror } = world;
  await rename(mirror, `${mirror}.away`);
  await addRows(world);
  await rename(`${mirror}.away`, mirror);
  await walnut.mustRun("st", "sync");
  await damage(join(primary, "wal_005"));
  const [segment = ""] = (await readdir(join(mirror, "wal_005"))).filter((one) =>
    one.startsWith("0"),
  );
  await walnut.mustRun("wal-fetch", segment.slice(0, 24), join(cluster.directory, "fetched"));
}

test("archive, restore and backup go on without the mirror, and without the primary", async () => {
  await (IS_LONG ? goOn() : catchUp());
});
