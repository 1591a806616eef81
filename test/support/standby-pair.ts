import assert from "node:assert/strict";
import { type BackupWorld, backupWorldOf, startBackupWorld } from "./backup-world.ts";
import { type Major, type RestoredCluster, restoreCluster } from "./postgres.ts";

/** A primary that archives, and a standby that streams from it. */
export interface Pair extends AsyncDisposable {
  readonly primary: BackupWorld;
  readonly standby: RestoredCluster;
  /** Backups of the standby into the same repository. */
  readonly world: BackupWorld;
}

/** Makes both. */
export async function startPair(
  major: Major,
  prepare: (primary: BackupWorld) => Promise<void> = async () => {},
): Promise<Pair> {
  const primary = await startBackupWorld({ major, settings: { wal_keep_size: "64MB" } });
  const { cluster } = primary;
  await cluster.query(
    "CREATE TABLE item AS SELECT n, md5(n::text) AS text FROM generate_series(1, 2000) n",
  );
  await prepare(primary);
  const { name } = await primary.push({ hasDatabaseNames: false });
  const directory = await primary.unpack(name, "standby");
  const standby = await restoreCluster(directory, {
    major,
    signal: "standby",
    restoreCommand: `cp "${primary.repository}/wal_005/%f" "%p"`,
    settings: {
      primary_conninfo: `host=127.0.0.1 port=${cluster.port} user=postgres`,
    },
  });
  assert.equal(standby.outcome, "consistent", standby.log());
  return {
    primary,
    standby,
    world: backupWorldOf(standby, primary.repository),
    async [Symbol.asyncDispose]() {
      await standby[Symbol.asyncDispose]();
      await primary[Symbol.asyncDispose]();
    },
  };
}

/** Has the standby replay all that the primary has written, and make a restartpoint. */
export async function catchUp({ primary, standby }: Pair): Promise<void> {
  await primary.cluster.query("CHECKPOINT");
  const lsn = await primary.cluster.value("SELECT pg_current_wal_lsn()");
  await standby.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${lsn}'`);
  await standby.query("CHECKPOINT");
}
