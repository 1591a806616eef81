import assert from "node:assert/strict";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { formatLsn } from "../../src/postgres/lsn.ts";
import { parsePgControl } from "../../src/postgres/pg-control.ts";
import type { BackupWorld } from "./backup-world.ts";
import { comparePages } from "./page-compare.ts";
import { type Major, restoreCluster } from "./postgres.ts";
import { restoreInto } from "./restoring.ts";
import { chownTree } from "./server-user.ts";
import { checkHeaps, checkPageChecksums } from "./soundness.ts";

/** The shutdown checkpoint stands in a segment that the server does not archive any more. */
function archiveRest({ cluster, repository }: BackupWorld): void {
  const directory = join(cluster.dataDirectory, "pg_wal");
  for (const name of readdirSync(directory)) {
    if (!/^[0-9A-F]{24}$/.test(name)) continue;
    const archived = join(repository, "wal_005", name);
    if (!existsSync(archived)) copyFileSync(join(directory, name), archived);
  }
}

/**
 * Stops the server, restores the backup, replays it to the end of all WAL, and compares it page by
 * page with the server's files; then it is promoted, and its tables are read.
 */
export async function assertRestoresLive(
  world: BackupWorld,
  backup: string,
  major: Major,
): Promise<void> {
  await assertAllRestoreLive(world, [backup], major);
}

/** The same with each of the backups; what has been found equal is promoted once. */
export async function assertAllRestoreLive(
  world: BackupWorld,
  backups: readonly string[],
  major: Major,
): Promise<void> {
  await world.cluster.stop();
  archiveRest(world);
  await chownTree(world.repository, world.cluster.user);
  for (const [index, backup] of backups.entries()) {
    const name = `restored ${backup}`;
    const directories = await restoreAndReplay(world, { backup, name }, major);
    const isLast = index === backups.length - 1;
    if (isLast) await promoteAndRead(world, join(world.cluster.directory, name), major);
    for (const path of directories) rmSync(path, { recursive: true });
  }
}

/** Gives the directories that it made. */
async function restoreAndReplay(
  world: BackupWorld,
  { backup, name }: { readonly backup: string; readonly name: string },
  major: Major,
): Promise<readonly string[]> {
  const { cluster, repository, storage } = world;
  const directory = join(cluster.directory, name);
  const { spec } = await world.sentinel(backup);
  const mappings = (spec?.tablespaces ?? []).map((tablespace) => {
    return { from: tablespace.name, to: `${directory} ${tablespace.name}` };
  });
  await restoreInto(storage, directory, { backup, tablespaces: { mappings } });
  const tablespaces = mappings.map(({ to }) => to);
  for (const path of tablespaces) await chownTree(path, cluster.user);
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
  await checkPageChecksums(restored, tablespaces);
  return [directory, ...tablespaces];
}

async function promoteAndRead(
  { repository }: BackupWorld,
  directory: string,
  major: Major,
): Promise<void> {
  rmSync(join(directory, "standby.signal"));
  await using promoted = await restoreCluster(directory, {
    major,
    signal: "recovery",
    restoreCommand: `cp "${repository}/wal_005/%f" "%p"`,
  });
  assert.equal(promoted.outcome, "promoted", promoted.log());
  await checkHeaps(promoted);
}
