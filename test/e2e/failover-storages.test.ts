/**
 * Fail-over storages with the real program, a real server, and a real S3 server that dies: at once,
 * and in the middle of a backup. Archiving, backups and restores go on, and no recovery ends early.
 */
import assert from "node:assert/strict";
import { chmod, readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { FaultProxy } from "../support/fault-proxy.ts";
import { type Cluster, initCluster, restoreCluster } from "../support/postgres.ts";
import { install, type Installation } from "../support/repository.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";

const MAJOR = 18;

/** What a store says whose credentials were taken away: nothing to wait for. */
const REFUSED = {
  answer: { status: 403, body: "<Error><Code>AccessDenied</Code><Message>gone</Message></Error>" },
} as const;

class World {
  readonly cluster: Cluster;
  readonly walnut: Installation;
  readonly proxy: FaultProxy;
  readonly second: string;

  constructor(parts: Pick<World, "cluster" | "walnut" | "proxy" | "second">) {
    this.cluster = parts.cluster;
    this.walnut = parts.walnut;
    this.proxy = parts.proxy;
    this.second = parts.second;
  }

  killPrimary(): void {
    this.proxy.rule = () => REFUSED;
  }

  revivePrimary(): void {
    this.proxy.rule = () => undefined;
  }

  /** From the first part of a backup on. */
  killPrimaryInBackup(): void {
    this.proxy.rule = ({ method, url }) => {
      if (method === "GET" || method === "HEAD" || !url.includes("tar_partitions"))
        return undefined;
      this.killPrimary();
      return REFUSED;
    };
  }

  async addRows(): Promise<void> {
    await this.cluster.query("insert into t select generate_series(1, 1000)");
    await this.cluster.switchWal();
    await this.cluster.waitForArchiver();
    assert.equal(await this.cluster.value("select failed_count from pg_stat_archiver"), "0");
  }

  async secondNames(folder: string): Promise<string[]> {
    return await readdir(join(this.second, folder)).catch(() => []);
  }

  /** Restores the newest backup, and lets a server recover all that it can get. */
  async restore(name: string, ...words: readonly string[]): Promise<string> {
    const target = join(this.cluster.directory, name);
    await this.walnut.mustRun("backup-fetch", ...words, target, "LATEST");
    const flags = words.length === 0 ? "" : ` ${words.join(" ")}`;
    await using restored = await restoreCluster(target, {
      major: MAJOR,
      signal: "recovery",
      restoreCommand: this.walnut.restoreCommand.replace(" wal-fetch ", `${flags} wal-fetch `),
    });
    if (restored.outcome !== "promoted") return restored.outcome;
    return await restored.value("select count(*) from t");
  }
}

async function startWorld(stack: AsyncDisposableStack): Promise<World> {
  const [kind = "swift"] = await availableS3Servers();
  const server = stack.use(await startS3Server(kind));
  const proxy = stack.use(await FaultProxy.start(server.endpoint));
  const cluster = stack.use(
    await initCluster({ major: MAJOR, segmentMiB: 1, settings: { archive_mode: "on" } }),
  );
  const second = await cluster.makeDirectory("second");
  const walnut = await install(cluster, {
    WALG_S3_PREFIX: `s3://${server.bucket}/main`,
    AWS_ENDPOINT: proxy.endpoint,
    AWS_S3_FORCE_PATH_STYLE: "true",
    AWS_ACCESS_KEY_ID: server.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
    WALG_FAILOVER_STORAGES: JSON.stringify({ second: { WALG_FILE_PREFIX: second } }),
    WALG_FAILOVER_STORAGES_CHECK_TIMEOUT: "120s",
  });
  await chmod(walnut.configFile, 0o644);
  await cluster.configure({ archive_command: walnut.archiveCommand });
  await cluster.start();
  await cluster.query("create table t (id int)");
  return new World({ cluster, walnut, proxy, second });
}

test("archive, backup and restore go on while the first storage is dead", async () => {
  await using stack = new AsyncDisposableStack();
  const world = await startWorld(stack);
  const { walnut, cluster } = world;
  await walnut.mustRun("backup-push", cluster.dataDirectory);
  await world.addRows();
  assert.deepEqual(await world.secondNames("."), []);

  world.killPrimary();
  await world.addRows();
  assert.ok((await world.secondNames("wal_005")).length > 0);
  const missing = ["wal-fetch", "0000000100000000000000EE", join(cluster.directory, "missing")];
  const unproved = await walnut.run(...missing);
  assert.equal(unproved.code, 200, unproved.stderr);
  assert.match(unproved.stderr, /default: .*--target-storage/s);
  assert.equal((await walnut.run(...missing, "--target-storage=second")).code, 74);
  const blind = await walnut.run("delete", "retain", "1", "--confirm");
  assert.notEqual(blind.code, 0);

  // The first one is back, and dies again as soon as the backup is being written.
  world.revivePrimary();
  world.killPrimaryInBackup();
  const { stderr } = await walnut.mustRun("backup-push", cluster.dataDirectory);
  assert.match(stderr, /pushed to storage: default[^]*begun once more in another one/);
  assert.match(stderr, /pushed to storage: second/);
  await world.addRows();
  const listed = await walnut.mustRun("backup-list");
  assert.match(listed.stdout, /^backup_name .*\nbase_\w+ .* second\n$/);
  assert.match(listed.stderr, /what it holds is not seen/);

  // A server that asks for the next segment must not take silence for the end.
  assert.equal(await world.restore("waiting"), "exited");
  assert.equal(await world.restore("alone", "--target-storage=second"), "3000");

  world.revivePrimary();
  const both = await walnut.mustRun("backup-list");
  assert.match(both.stdout, /^.*\n.* default\n.* second\n$/);

  // All is brought home, and the second storage is not needed any more.
  await walnut.mustRun("st", "transfer", "backups", "--source=second", "-t", "default");
  await walnut.mustRun(
    "st",
    "transfer",
    "pg-wals",
    "--source=second",
    "--overwrite",
    "--fail-fast",
  );
  assert.deepEqual(await world.secondNames("basebackups_005"), []);
  assert.deepEqual(await world.secondNames("wal_005"), []);
  await walnut.mustRun("st", "check", "write", "-t", "all");
  await walnut.mustRun("verify", "--target-storage=default");
  await walnut.mustRun("delete", "retain", "FULL", "1", "--confirm");
  assert.match((await walnut.mustRun("backup-list")).stdout, /^.*\nbase_\w+ .* default\n$/);
  assert.equal(await world.restore("home", "--target-storage=default"), "3000");
});
