/** A server that is told to stop while the store hangs: it must not wait for the store. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { changeControl } from "../support/control-file.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { type Cluster, initCluster, type Major } from "../support/postgres.ts";
import { recordWal } from "../support/real-wal.ts";
import { install } from "../support/repository.ts";
import { S3Emulation } from "../support/s3-emulation.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { until } from "../support/until.ts";
import { runWalnut } from "../support/walnut.ts";

/** Six of them are more than the test may take; a drainer may outlive its server for one. */
const WAL_TIMEOUT = "60s";

function marks({ dataDirectory }: Cluster, suffix: string): readonly string[] {
  const names = readdirSync(join(dataDirectory, "pg_wal", "archive_status"));
  return names.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, 24));
}

for (const { major, isSetup } of [
  { major: 13, isSetup: false },
  { major: 18, isSetup: true },
] as const satisfies readonly { major: Major; isSetup: boolean }[]) {
  const how = isSetup ? "by the drainer" : "by wal-push";
  test(`PostgreSQL ${major} stops while the store hangs, and archives later, ${how}`, async () => {
    await using server = await S3Emulation.start();
    await using way = await FaultProxy.start(server.endpoint);
    await using cluster = await initCluster({
      major,
      segmentMiB: 1,
      settings: { archive_mode: "on", archive_command: "false", autovacuum: "off" },
    });
    const walnut = await install(cluster, {
      WALG_S3_PREFIX: `s3://${server.bucket}/main`,
      AWS_ENDPOINT: way.endpoint,
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
      AWS_S3_FORCE_PATH_STYLE: "true",
      WALNUT_WAL_TIMEOUT: WAL_TIMEOUT,
    });
    await cluster.start();
    for (let count = 0; count < (isSetup ? 4 : 1); count += 1) {
      await cluster.value("SELECT pg_create_restore_point('x')");
      await cluster.switchWal();
    }
    const waiting = marks(cluster, ".ready");
    way.rule = () => ({ hang: true });
    const { stdout } = await walnut.mustRun("setup", cluster.dataDirectory);
    const line = /^archive_command = '(.*)'$/m.exec(stdout)?.[1]?.replaceAll("''", "'");
    await cluster.configure({ archive_command: (isSetup ? line : "") || walnut.archiveCommand });
    await until(
      "the store hangs",
      () => way.requests.length > 0,
      () => cluster.log(),
    );

    await cluster.stop("fast");
    assert.match(cluster.log(), /server has only this to wait for before it stops/);
    assert.match(cluster.log(), /FATAL: {2}archive command failed with exit code 201/);
    assert.deepEqual(marks(cluster, ".done"), []);
    assert.ok(waiting.every((name) => marks(cluster, ".ready").includes(name)));

    way.rule = () => undefined;
    await cluster.start();
    await cluster.waitForArchiver();
    for (const name of waiting) {
      assert.ok(
        [...server.objects.keys()].some((key) => key.includes(`wal_005/${name}.`)),
        name,
      );
    }
  });
}

test("the daemon's client ends the archiver, too, but only of a server that stops", async () => {
  using data = scratchDirectory();
  const { control } = await recordWal();
  const daemon = createServer((socket) => void socket.on("data", () => socket.end("E")));
  const socketPath = join(data.path, "walnut.sock");
  await new Promise<void>((resolve) => daemon.listen(socketPath, resolve));
  const push = () =>
    runWalnut(["client", socketPath, "wal-push", "000000010000000000000001"], { cwd: data.path });
  assert.equal((await push()).code, 1);

  const pid = ["4711", data.path, "1763800000", "5432", "/tmp", "*", "1 2", "stopping"];
  mkdirSync(join(data.path, "global"));
  writeFileSync(join(data.path, "postmaster.pid"), `${pid.join("\n")}\n`);
  const shutDown = changeControl(control, { state: 1 });
  writeFileSync(join(data.path, "global", "pg_control"), shutDown);
  const { code, stderr } = await push();
  assert.match(stderr, /^ERROR: the daemon could not push .* only this to wait for\nHINT: Nothing/);
  assert.equal(code, 201);
  daemon.close();
});
