/**
 * Pushing ahead with real servers: setup's line in PostgreSQL's own shell, kills, and bad marks.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { readdir, rename, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { seededRandom } from "../support/random.ts";
import {
  assertNothingLost,
  doneNames,
  fill,
  killSome,
  readyNames,
  setupLine,
  startWithBacklog,
  stopAll,
  survivingKills,
} from "./draining.ts";
import { install } from "../support/repository.ts";
import { pause, until } from "../support/until.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const KILL_ROUNDS = IS_LONG ? 20 : 2;
/** How an administrator changes the settings. */
const CHANGES = ["written anew", "replaced by an older one"] as const;

test("200 segments are stored once each, nearly all without a process", async () => {
  const draining = await startWithBacklog(200);
  const { cluster, repository, walDirectory, walnut } = draining;
  await using _cleanUp = cluster;
  const backlog = (await readyNames(walDirectory)).length;
  const line = await setupLine(draining);
  assert.match(line, / -ef postmaster\.pid/);
  // Each process that the shell starts leaves a line.
  const calls = join(cluster.directory, "calls");
  await cluster.configure({
    archive_command: line.replace(" || exec ", ` || { echo x >> ${calls}; false; } || exec `),
  });
  await cluster.waitForArchiver({ timeoutMs: 60_000 });
  const doneCount = await assertNothingLost(draining);
  assert.ok(doneCount >= backlog, `${doneCount} of ${backlog}`);

  const started = readFileSync(calls, "utf8").trim().split("\n").length;
  assert.ok(started < backlog / 8, `${started} of ${backlog} calls started a process`);
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

for (const kind of IS_LONG ? CHANGES : CHANGES.slice(0, 1)) {
  test(`nothing is archived into the store of before when the config file is ${kind}`, async () => {
    const settings = { PG_READY_RENAME: String(kind !== "written anew") };
    const draining = await startWithBacklog(60, settings);
    const { cluster, walnut, walDirectory, repository } = draining;
    await using _cleanUp = cluster;
    const other = await install(
      cluster,
      { ...settings, WALG_FILE_PREFIX: await cluster.makeDirectory("other") },
      "other",
    );
    await cluster.configure({ archive_command: await setupLine(draining) });
    await until("some are archived", async () => (await doneNames(walDirectory)).length > 4);
    if (kind === "written anew") await utimes(other.configFile, new Date(), new Date());
    await rename(other.configFile, walnut.configFile);
    const before = await doneNames(walDirectory);
    const old = await readdir(join(repository, "wal_005"));
    await cluster.waitForArchiver({ timeoutMs: 60_000 });

    const stored = await readdir(join(cluster.directory, "other", "wal_005"));
    assert.ok(stored.length > 20, `${stored.length} in the new store`);
    const since = (await doneNames(walDirectory)).filter((name) => !before.includes(name));
    const missing = since.filter((name) => !stored.includes(`${name}.zst`));
    // Of an older file the shell can't see that it is a new one: until the drainer has, it believes
    // what was stored before.
    const wrong = missing.filter((name) => kind === "written anew" || !old.includes(`${name}.zst`));
    // One call may have been under way.
    assert.ok(wrong.length <= 1, `${wrong.join()} of ${since.length} since the change`);
    await stopAll(cluster);
  });
}

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
    await cluster.configure({ archive_command: survivingKills(line) });
    for (let kill = 0; kill < 8; kill += 1) {
      await pause(random.next() * 250);
      killSome(draining, random);
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
  // One upload at a time means the same, as in WAL-G: there is nobody beside wal-push.
  const place = { WALG_FILE_PREFIX: draining.repository, WALG_UPLOAD_CONCURRENCY: "1" };
  const single = await install(cluster, place, "single");
  await cluster.configure({ archive_command: "false" });
  await fill(draining, 4);
  await cluster.configure({ archive_command: single.archiveCommand });
  await cluster.waitForArchiver({ timeoutMs: 60_000 });
  await assertNothingLost(draining);
  assert.ok(!existsSync(join(`${cluster.dataDirectory}.walnut`, "drain.log")));
});
