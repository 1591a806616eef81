import assert from "node:assert/strict";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parsePgControl } from "../../src/postgres/pg-control.ts";
import { formatLsn } from "../../src/postgres/lsn.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { ClusterHistory } from "../support/cluster-history.ts";
import { comparePages } from "../support/page-compare.ts";
import { type Major, MAJORS, restoreCluster } from "../support/postgres.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { restoreInto } from "../support/restoring.ts";
import { chownTree } from "../support/server-user.ts";
import { checkHeaps } from "../support/soundness.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const HISTORIES = IS_LONG ? 200 : 3;
const VERSIONS: readonly Major[] = IS_LONG ? MAJORS : [13, 18];

for (let index = 0; index < HISTORIES; index += 1) {
  test(`history ${index}: a chain restores page by page`, async () => {
    const random = seededRandom();
    for (let skipped = 0; skipped <= index * 7; skipped += 1) random.next();
    const major = VERSIONS[index % VERSIONS.length] ?? 18;
    await using history = new ClusterHistory(await startBackupWorld({ major }), random);
    try {
      await live(history, random, major);
    } catch (error) {
      const steps = history.steps.join(", ");
      throw new Error(`seed ${random.seed}, PostgreSQL ${major}: ${steps}`, { cause: error });
    }
  });
}

async function live(history: ClusterHistory, random: Random, major: Major): Promise<void> {
  const increments = { maxSteps: 9, origin: "latest" } as const;
  await history.change(6);
  let backup = "";
  const count = 2 + Math.floor(random.next() * 3);
  for (let taken = 0; taken <= count; taken += 1) {
    const pushed = await history.world.push({ increments, hasDatabaseNames: false });
    assert.equal(pushed.baseName ?? "", backup, history.world.logged.join("\n"));
    backup = pushed.name;
    history.steps.push(`(backup ${taken})`);
    await history.change(3 + Math.floor(random.next() * 6));
    const chance = random.next();
    if (chance < 0.2) await history.crash();
    else if (chance < 0.4 && taken < count) await history.failOver(major);
  }
  await compare(history.world, backup, major);
}

/** The shutdown checkpoint stands in a segment that the server does not archive any more. */
function archiveRest({ cluster, repository }: BackupWorld): void {
  const directory = join(cluster.dataDirectory, "pg_wal");
  for (const name of readdirSync(directory)) {
    if (!/^[0-9A-F]{24}$/.test(name)) continue;
    const archived = join(repository, "wal_005", name);
    if (!existsSync(archived)) copyFileSync(join(directory, name), archived);
  }
}

/** Replays the restored chain to the end of all WAL and compares it with the server's files. */
async function compare(world: BackupWorld, backup: string, major: Major): Promise<void> {
  const { cluster, repository, storage } = world;
  await cluster.stop();
  const directory = join(cluster.directory, "restored");
  const { spec } = await world.sentinel(backup);
  const mappings = (spec?.tablespaces ?? []).map(({ name }) => {
    return { from: name, to: join(cluster.directory, `restored ${name}`) };
  });
  await restoreInto(storage, directory, { backup, tablespaces: { mappings } });
  for (const { to } of mappings) await chownTree(to, cluster.user);
  archiveRest(world);
  await chownTree(repository, cluster.user);
  const control = parsePgControl(readFileSync(join(cluster.dataDirectory, "global/pg_control")));
  await using restored = await restoreCluster(directory, {
    major,
    signal: "standby",
    restoreCommand: `cp "${repository}/wal_005/%f" "%p"`,
  });
  assert.equal(restored.outcome, "consistent", restored.log());
  const end = formatLsn(control.checkpointLsn);
  await restored.waitFor(`SELECT pg_last_wal_replay_lsn() > '${end}'`);
  await restored.stop();
  assert.deepEqual(comparePages(cluster.dataDirectory, directory), []);

  rmSync(join(directory, "standby.signal"));
  await using promoted = await restoreCluster(directory, {
    major,
    signal: "recovery",
    restoreCommand: `cp "${repository}/wal_005/%f" "%p"`,
  });
  assert.equal(promoted.outcome, "promoted", promoted.log());
  await checkHeaps(promoted);
}
