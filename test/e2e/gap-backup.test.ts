/**
 * The policy "drop" with a real server: WAL is given up while the store is away, and one backup
 * follows by itself, whatever is killed meanwhile.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connectPostgres } from "../../src/connection/connect.ts";
import { until } from "../support/until.ts";
import {
  type Draining,
  pidsOf,
  readyNames,
  setupLine,
  startWithBacklog,
  stopAll,
  stopArchiving,
} from "./draining.ts";

const { signal } = new AbortController();

/** Each test goes on where the one before ended. */
let draining: Draining;
let spool: string;
let gaps: string;
let first = "";
before(async () => {
  draining = await startWithBacklog(12, {
    WALNUT_ARCHIVE_QUEUE_POLICY: "drop",
    WALNUT_ARCHIVE_QUEUE_MAX: "8MiB",
    WALNUT_WAL_TIMEOUT: "2s",
  });
  spool = `${draining.cluster.dataDirectory}.walnut`;
  gaps = join(spool, "gaps");
});
after(async () => {
  await stopAll(draining.cluster);
  await until("the process ends with its server", () => processes().length === 0);
  await draining.cluster[Symbol.asyncDispose]();
});

function processes(): number[] {
  return pidsOf(`gap-backup ${draining.cluster.dataDirectory}$`);
}

async function killProcess(): Promise<void> {
  const [pid, ...more] = processes();
  assert.ok(pid !== undefined && more.length === 0, "one process was expected");
  process.kill(pid, "SIGKILL");
  await until("it is dead", () => processes().length === 0);
}

async function status(): Promise<string> {
  const { walnut, cluster } = draining;
  const { stdout } = await walnut.mustRun("gap-backup", cluster.dataDirectory, "--status");
  return stdout;
}

async function drainStatus(): Promise<string> {
  const { walnut, cluster } = draining;
  const { stdout } = await walnut.mustRun("wal-drain", cluster.dataDirectory, "--status");
  return stdout;
}

async function backups(): Promise<string[]> {
  const names = await readdir(join(draining.repository, "basebackups_005")).catch(() => []);
  return names.filter((name) => name.endsWith("_backup_stop_sentinel.json"));
}

/** Starts the process as wal-push does, and does not wait for it. */
function startByHand(...settings: readonly string[]): void {
  void draining.walnut.run(...settings, "gap-backup", draining.cluster.dataDirectory);
}

test("a store that is away does not fill the disk under the policy drop (P16)", async () => {
  const { cluster, repository, walDirectory } = draining;
  await rename(repository, `${repository}-away`);
  await cluster.configure({ archive_command: await setupLine(draining) });
  await cluster.waitForLog(/WAL SEGMENT GIVEN UP.*a full backup is begun by itself/);
  [first = ""] = (await readdir(gaps)).map((name) => name.slice(0, 24)).toSorted();
  assert.notEqual(first, "");
  assert.match(await drainStatus(), new RegExp(`"gapBackup":.*"unrecorded":\\["${first}"`));
  // The rest stays within the limit and is not given up.
  await until("enough is given up", async () => (await readyNames(walDirectory)).length <= 8);
  assert.ok((await readyNames(walDirectory)).length >= 7);
});

test("the store is told when it is back, and the backup waits for another one", async () => {
  const { cluster, repository } = draining;
  const { PGHOST: host = "", PGPORT: port, PGUSER: user = "" } = cluster.connection;
  const target = { host, port: Number(port), user, applicationName: "by hand" };
  {
    await using other = await connectPostgres(target, { signal });
    await other.query("SELECT pg_backup_start('x', true)", { signal });
    await rename(`${repository}-away`, repository);
    await cluster.configure({ archive_command: await setupLine(draining) });
    await until("it waits", async () => /another backup to end.*by hand/.test(await status()));
    const recorded = await readdir(join(repository, "walnut_005", "gaps"));
    assert.ok(recorded.includes(`${first}.json`), String(recorded));
    assert.ok((await readdir(gaps)).includes(`${first}.needs-backup`));
    assert.match(
      await drainStatus(),
      new RegExp(`"wantedFor":\\["${first}".*another backup to end`),
    );
    assert.match((await draining.walnut.run("backup-list")).stderr, /No backups found/);
    // Each push would start it anew.
    await stopArchiving(draining);
    await killProcess();
  }
  assert.ok((await readdir(gaps)).includes(`${first}.needs-backup`), "the wish was lost");
  assert.deepEqual(await backups(), []);
});

test("a command runs in its place, once", async () => {
  const { cluster } = draining;
  const asked = join(cluster.directory, "cache", "asked");
  await cluster.makeDirectory("cache");
  startByHand("--gap-backup-command", `echo "$PWD" >> ${asked}`);
  await until("it was asked", async () => /command has ordered/.test(await status()));
  await killProcess();
  startByHand("--gap-backup-command", `echo "$PWD" >> ${asked}`);
  await until("the next one waits as well", () => processes().length === 1);
  await until("it has looked", async () => /"running":true/.test(await status()));
  await killProcess();
  assert.equal(readFileSync(asked, "utf8"), `${cluster.dataDirectory}\n`);
  await rm(join(spool, "gap-backup.json"));
});

test("killed while the backup runs: begun anew by a push, and it is the only one", async () => {
  const { cluster, walnut } = draining;
  await cluster.query("INSERT INTO filler (content) VALUES ('behind the gap')");
  startByHand();
  // It can't prove that WAL arrives.
  await cluster.waitFor("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory'");
  await until("the attempt is noted", async () => /"attempts":1/.test(await status()));
  await killProcess();
  await cluster.waitFor("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'");
  assert.deepEqual(await backups(), []);

  // It would wait for a minute.
  const state = join(spool, "gap-backup.json");
  const text = await readFile(state, "utf8");
  assert.match(text, /"notBeforeMs":1\d{12}/);
  await writeFile(state, text.replace(/"notBeforeMs":\d+/, '"notBeforeMs":0'));
  await cluster.configure({ archive_command: walnut.archiveCommand });
  await cluster.switchWal();
  await until("there is a backup, and nothing is wanted", async () => !existsSync(state));
  const [backup = "", ...more] = await backups();
  assert.deepEqual(more, []);
  assert.ok(backup.slice(5, 29) > first, `${backup} does not begin behind ${first}`);
  assert.deepEqual(await readdir(gaps), []);
});

test("killed after the backup was stored: no second one, nor with the next push", async () => {
  const { cluster, walnut } = draining;
  await writeFile(join(gaps, `${first}.needs-backup`), "{}");
  await walnut.mustRun("gap-backup", cluster.dataDirectory);
  assert.deepEqual(await readdir(gaps), []);
  await cluster.switchWal();
  await cluster.waitForArchiver();
  assert.equal((await backups()).length, 1);
  const log = readFileSync(join(spool, "gap-backup.log"), "utf8");
  assert.match(log, /a full backup is begun.*attempt=2/);
  const { stderr } = await walnut.run("--gap-backup=false", "gap-backup", cluster.dataDirectory);
  assert.match(stderr, /WALNUT_GAP_BACKUP is false/);
});
