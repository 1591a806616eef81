/** A real server that archives and recovers by the daemon alone. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { type RunningDaemon, startDaemon } from "../support/daemon.ts";
import {
  type Cluster,
  initCluster,
  type Major,
  MAJORS,
  restoreCluster,
} from "../support/postgres.ts";
import { install } from "../support/repository.ts";
import { seededRandom } from "../support/random.ts";
import { shellWord, walnutShellCommand } from "../support/walnut.ts";
import { pause } from "../support/until.ts";

const SEGMENTS = 12;
const IS_LONG = process.env["WALNUT_LONG"] === "1";
const KILLS = IS_LONG ? 20 : 1;
const TESTED: readonly Major[] = IS_LONG ? MAJORS : [18];
const { signal } = new AbortController();

const clientOf = (socketPath: string) => `${walnutShellCommand()} client ${shellWord(socketPath)}`;

async function fill(cluster: Cluster, count: number): Promise<void> {
  await cluster.query("CREATE TABLE IF NOT EXISTS filler (id bigserial, content text)");
  for (let round = 0; round < count; round += 1) {
    await cluster.query(
      "INSERT INTO filler (content) SELECT md5(n::text) FROM generate_series(1, 500) n",
    );
    await cluster.switchWal();
  }
}

/** Every file that PostgreSQL took as archived is in the repository as it is on the disk. */
async function assertNothingLost(cluster: Cluster, repository: string): Promise<number> {
  const walDirectory = join(cluster.dataDirectory, "pg_wal");
  const marks = await readdir(join(walDirectory, "archive_status"));
  const done = marks.filter((name) => name.endsWith(".done")).map((name) => name.slice(0, -5));
  for (const name of done) {
    const object = await readFile(join(repository, "wal_005", `${name}.zst`));
    const decoded = codecOf("zstd").decompress(bytesSource(object).open(), { jobs: 1, signal });
    const original = await readFile(join(walDirectory, name));
    assert.ok(original.equals(await readAll(decoded)), `${name} was lost`);
  }
  return done.length;
}

/** Processes that were started by the daemon and not waited for. */
function deadChildren({ processId }: RunningDaemon): readonly string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return new RegExp(`\\) Z ${processId} `).test(readFileSync(`/proc/${pid}/stat`, "utf8"));
    } catch {
      return false;
    }
  });
}

for (const major of TESTED) {
  test(`PostgreSQL ${major} archives and recovers through the daemon`, async () => {
    const random = seededRandom();
    await using cluster = await initCluster({
      major,
      segmentMiB: 1,
      settings: {
        archive_mode: "on",
        archive_command: "false",
        max_wal_size: "1GB",
        min_wal_size: "1GB",
        checkpoint_timeout: "1h",
        autovacuum: "off",
      },
    });
    const repository = await cluster.makeDirectory("repository");
    const walnut = await install(cluster, { WALG_FILE_PREFIX: repository });
    const { dataDirectory, user } = cluster;
    const socketPath = join(cluster.directory, "walnut.sock");
    const options = { user, words: ["--config", walnut.configFile] };
    const start = () => startDaemon({ ...options, dataDirectory, socketPath });
    await cluster.start();
    await fill(cluster, SEGMENTS);

    // A backlog, and a daemon that is killed while it works on that.
    const command = `${clientOf(socketPath)} wal-push %f`;
    await cluster.configure({ archive_command: command });
    for (let kill = 0; kill < KILLS; kill += 1) {
      const doomed = await start();
      await doomed.logged(/archived/);
      await pause(random.next() * 100);
      await doomed[Symbol.asyncDispose]();
      await assertNothingLost(cluster, repository);
    }
    await using daemon = await start();
    await cluster.configure({ archive_command: `${command} ` });
    await cluster.waitForArchiver({ timeoutMs: 120_000 });
    const count = await assertNothingLost(cluster, repository);
    assert.ok(count >= SEGMENTS, `${count} of ${SEGMENTS}; WALNUT_SEED=${random.seed}`);
    // It drains ahead itself.
    assert.ok(!existsSync(join(`${dataDirectory}.walnut`, "drain.log")));

    await walnut.mustRun("backup-push", dataDirectory);
    await fill(cluster, 3);
    await cluster.waitForArchiver({ timeoutMs: 120_000 });
    const rows = await cluster.value("SELECT count(*) FROM filler");
    await cluster.stop();
    await recover(rows);
    assert.deepEqual(deadChildren(daemon), []);

    /** With a daemon all rows are there; without one the server does not open. */
    async function recover(expected: string): Promise<void> {
      for (const isThere of [false, true]) {
        const restored = await cluster.makeDirectory(`restored ${isThere}`);
        await walnut.mustRun("backup-fetch", restored, "LATEST");
        const socket = join(cluster.directory, `restored-${isThere}.sock`);
        await using serving = isThere
          ? await startDaemon({ ...options, dataDirectory: restored, socketPath: socket })
          : undefined;
        await using recovered = await restoreCluster(restored, {
          major,
          signal: "recovery",
          restoreCommand: `${clientOf(socket)} wal-fetch %f %p -connection-timeout 0s`,
        });
        assert.equal(recovered.outcome, isThere ? "promoted" : "exited", recovered.log());
        if (serving === undefined) continue;
        assert.equal(await recovered.value("SELECT count(*) FROM filler"), expected);
        assert.deepEqual(deadChildren(serving), []);
      }
    }
  });
}
