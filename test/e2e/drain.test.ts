/**
 * Pushing ahead with real servers: setup's line in PostgreSQL's own shell, kills, and bad marks.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { readdir, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { type Cluster, initCluster } from "../support/postgres.ts";
import { seededRandom } from "../support/random.ts";
import { type Installation, install } from "../support/repository.ts";

const { signal } = new AbortController();
const KILL_ROUNDS = process.env["WALNUT_LONG"] === "1" ? 20 : 2;

interface Draining {
  readonly cluster: Cluster;
  readonly walnut: Installation;
  readonly repository: string;
  readonly walDirectory: string;
}

/** A server with `count` segments that are ready and can't be archived yet. */
async function startWithBacklog(
  count: number,
  settings: Readonly<Record<string, string>> = {},
): Promise<Draining> {
  const cluster = await initCluster({
    major: 17,
    segmentMiB: 1,
    settings: {
      archive_mode: "on",
      archive_command: "false",
      max_wal_size: "4GB",
      min_wal_size: "1GB",
      checkpoint_timeout: "1h",
      autovacuum: "off",
    },
  });
  try {
    const repository = await cluster.makeDirectory("repository");
    const walnut = await install(cluster, { WALG_FILE_PREFIX: repository, ...settings });
    await cluster.start();
    const draining = {
      cluster,
      walnut,
      repository,
      walDirectory: join(cluster.dataDirectory, "pg_wal"),
    };
    await fill(draining, count);
    return draining;
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

async function fill({ cluster, walDirectory }: Draining, count: number): Promise<void> {
  await cluster.query("CREATE TABLE IF NOT EXISTS filler (id bigserial, content text)");
  const wanted = (await readyNames(walDirectory)).length + count;
  while ((await readyNames(walDirectory)).length < wanted) {
    await cluster.query(
      `INSERT INTO filler (content) SELECT string_agg(md5(random()::text), '')
       FROM generate_series(1, 40000) AS n GROUP BY n % 1000`,
    );
  }
  await cluster.switchWal();
}

async function readyNames(walDirectory: string): Promise<string[]> {
  const names = await readdir(join(walDirectory, "archive_status"));
  return names.filter((name) => name.endsWith(".ready")).map((name) => name.slice(0, -6));
}

/** The archive_command that `walnut setup` prints. */
async function setupLine({ walnut, cluster }: Draining): Promise<string> {
  const { stdout } = await walnut.mustRun("setup", cluster.dataDirectory);
  const line = /^archive_command = '(.*)'$/m.exec(stdout)?.[1];
  assert.ok(line !== undefined, stdout);
  return line.replaceAll("''", "'");
}

/** Every file that PostgreSQL took as archived is in the repository as it is on the disk. */
async function assertNothingLost(
  { walDirectory, repository }: Draining,
  { note = "", verified = new Set<string>() } = {},
): Promise<number> {
  const marks = await readdir(join(walDirectory, "archive_status"));
  const done = marks.filter((name) => name.endsWith(".done")).map((name) => name.slice(0, -5));
  for (const name of done) {
    if (verified.has(name)) continue;
    const object = await readFile(join(repository, "wal_005", `${name}.zst`));
    const decoded = codecOf("zstd").decompress(bytesSource(object).open(), { jobs: 1, signal });
    const original = await readFile(join(walDirectory, name));
    assert.ok(original.equals(await readAll(decoded)), `${name} was lost; ${note}`);
    verified.add(name);
  }
  return done.length;
}

/** Ids of the drainers of this cluster. */
function drainerPids(cluster: Cluster): number[] {
  const { stdout } = spawnSync("pgrep", ["-f", `wal-drain ${cluster.dataDirectory}`], {
    encoding: "utf8",
  });
  return stdout.trim().split("\n").filter(Boolean).map(Number);
}

function isShell(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith("sh\0");
  } catch {
    return true;
  }
}

/** The drainer ends with its server. */
async function stopAll(cluster: Cluster): Promise<void> {
  await cluster.stop("fast");
  const endsAt = performance.now() + 60_000;
  while (drainerPids(cluster).length > 0) {
    assert.ok(performance.now() < endsAt, "the drainer outlives its server");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

test("200 segments are stored once each, most without a process", async () => {
  const draining = await startWithBacklog(200);
  const { cluster, repository, walDirectory, walnut } = draining;
  await using _cleanUp = cluster;
  const backlog = (await readyNames(walDirectory)).length;
  const line = await setupLine(draining);
  // Each process that the shell starts leaves a line.
  const calls = join(cluster.directory, "calls");
  await cluster.configure({
    archive_command: line.replace(" || exec ", ` || { echo x >> ${calls}; false; } || exec `),
  });
  await cluster.waitForArchiver({ timeoutMs: 60_000 });
  const doneCount = await assertNothingLost(draining);
  assert.ok(doneCount >= backlog, `${doneCount} of ${backlog}`);

  const started = readFileSync(calls, "utf8").trim().split("\n").length;
  assert.ok(started < backlog / 2, `${started} of ${backlog} calls started a process`);
  const spool = `${cluster.dataDirectory}.walnut`;
  const log = readFileSync(join(spool, "drain.log"), "utf8");
  assert.doesNotMatch(log, /ERROR/);
  assert.doesNotMatch(cluster.log(), /ERROR|already archived/);
  assert.equal((await readdir(join(repository, "wal_005"))).length, doneCount);
  const status: unknown = JSON.parse(
    (await walnut.mustRun("wal-drain", cluster.dataDirectory, "--status")).stdout,
  );
  assert.ok(typeof status === "object" && status !== null && "storedCount" in status);
  assert.ok("failedCount" in status && status.failedCount === 0);
  await stopAll(cluster);
  assert.ok(!existsSync(join(spool, "drain.sock")));
  assert.equal((await stat(spool)).mode & 0o777, 0o700);
});

test("kills at random moments lose nothing that was acknowledged", async () => {
  const random = seededRandom();
  const note = `WALNUT_SEED=${random.seed} repeats this`;
  const draining = await startWithBacklog(10);
  const { cluster, walDirectory } = draining;
  await using _cleanUp = cluster;
  const line = await setupLine(draining);
  const verified = new Set<string>();
  for (let round = 0; round < KILL_ROUNDS; round += 1) {
    await cluster.configure({ archive_command: "false" });
    await fill(draining, 30);
    // A killed command ends the archiver itself for a minute; one that fails is called again.
    const survived = line.replace(" || exec ", " || ").concat(" || exit 1");
    await cluster.configure({ archive_command: survived });
    for (let kill = 0; kill < 8; kill += 1) {
      await new Promise((resolve) => setTimeout(resolve, random.next() * 250));
      const pattern = random.next() < 0.5 ? "wal-drain" : "wal-push";
      const found = spawnSync("pgrep", ["-f", `${cluster.directory}.*${pattern}`], {
        encoding: "utf8",
      });
      for (const pid of found.stdout.trim().split("\n").filter(Boolean)) {
        // Not the archiver's own shell: without it the archiver itself would end.
        if (isShell(pid)) continue;
        try {
          process.kill(Number(pid), "SIGKILL");
        } catch {
          // It has ended.
        }
      }
      await assertNothingLost(draining, { note, verified });
    }
    // After three failures in a row PostgreSQL waits for a minute, or for this.
    await cluster.configure({ archive_command: line });
    await cluster.waitForArchiver({ timeoutMs: 60_000 });
    assert.equal((await readyNames(walDirectory)).length, 0);
    await assertNothingLost(draining, { note, verified });
  }
  await stopAll(cluster);
});

test("PG_READY_RENAME marks files as done", async () => {
  const draining = await startWithBacklog(40, { PG_READY_RENAME: "true" });
  const { cluster } = draining;
  await using _cleanUp = cluster;
  await cluster.configure({ archive_command: await setupLine(draining) });
  await cluster.waitForArchiver({ timeoutMs: 60_000 });
  await assertNothingLost(draining);
  const archived = Number(await cluster.value("SELECT archived_count FROM pg_stat_archiver"));
  assert.ok(archived < 35, `PostgreSQL itself asked for ${archived} files`);
  await stopAll(cluster);
});

test("without push ahead there is no drainer", async () => {
  const draining = await startWithBacklog(5, { TOTAL_BG_UPLOADED_LIMIT: "1" });
  const { cluster } = draining;
  await using _cleanUp = cluster;
  await cluster.configure({ archive_command: draining.walnut.archiveCommand });
  await cluster.waitForArchiver({ timeoutMs: 60_000 });
  await assertNothingLost(draining);
  assert.ok(!existsSync(join(`${cluster.dataDirectory}.walnut`, "drain.log")));
});

test("a store that hangs does not fill the disk under the policy drop", async () => {
  const draining = await startWithBacklog(12, {
    WALNUT_ARCHIVE_QUEUE_POLICY: "drop",
    WALNUT_ARCHIVE_QUEUE_MAX: "8MiB",
    WALNUT_WAL_TIMEOUT: "2s",
  });
  const { cluster, repository, walnut, walDirectory } = draining;
  await using _cleanUp = cluster;
  const gaps = join(`${cluster.dataDirectory}.walnut`, "gaps");
  const away = `${repository}-away`;
  await rename(repository, away);
  await cluster.configure({ archive_command: await setupLine(draining) });
  await cluster.waitForLog(/WAL SEGMENT GIVEN UP/, { timeoutMs: 60_000 });
  const given = (await readdir(gaps)).map((name) => name.slice(0, 24));
  assert.ok(given.length > 0);
  // The rest stays within the limit and is not given up.
  const endsAt = performance.now() + 60_000;
  while ((await readyNames(walDirectory)).length > 8) {
    assert.ok(performance.now() < endsAt, "nothing is given up");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await cluster.configure({ archive_command: "false" });
  await rename(away, repository);
  const ready = (await readyNames(walDirectory)).toSorted();
  assert.ok(ready.length >= 7, `${ready.length} are left`);
  await walnut.mustRun("wal-push", join(walDirectory, ready[0] ?? ""));
  const recorded = await readdir(join(repository, "walnut_005", "gaps"));
  assert.ok(recorded.includes(`${given[0]}.json`), String(recorded));
  assert.deepEqual(await readdir(gaps), []);
  await stopAll(cluster);
});
