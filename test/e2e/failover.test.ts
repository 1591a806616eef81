/**
 * Two servers of one cluster, one repository: archive_mode=always, a failover with a hole in the
 * archive, an old primary that comes back, pg_rewind, a failover back, clones, and a restore.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import {
  appendFile,
  chmod,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { codecByExtension } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import {
  type Cluster,
  initCluster,
  type Major,
  type RestoredCluster,
  restoreCluster,
} from "../support/postgres.ts";
import { clientProgram, freePort, serverEnvironment } from "../support/postgres-programs.ts";
import { Server } from "../support/postgres-server.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { type RunResult, runWalnut, shellWord, walnutShellCommand } from "../support/walnut.ts";

/** The release of Debian's own pg_rewind. */
const MAJOR: Major = 15;
const { signal } = new AbortController();

let base: string;
let repository: string;
/** The two servers of the cluster; each test goes on where the one before ended. */
let a: Cluster;
let b: Cluster;
let walnutA: Walnut;
let walnutB: Walnut;

before(async () => {
  base = await mkdtemp(join(tmpdir(), "walnut-failover-"));
  await chmod(base, 0o755);
  repository = join(base, "repository");
  await mkdir(repository);
  await chownTree(base, serverUser());

  a = await initCluster({
    major: MAJOR,
    segmentMiB: 1,
    settings: { wal_log_hints: "on", wal_keep_size: "64MB", autovacuum: "off" },
  });
  // A drainer would go on by itself while archive_command fails.
  walnutA = await installOn("a", { ...a.connection, TOTAL_BG_UPLOADED_LIMIT: "0" });
  walnutB = await installOn("b", { WALG_COMPRESSION_METHOD: "lz4" });
  const archiveCommand = `test ! -e ${awayFile()} && ${walnutA.archiveCommand}`;
  await a.configure({ archive_mode: "on", archive_command: archiveCommand });
  await a.start();
  await a.query("CREATE TABLE t (id int, content text)");
  await must(walnutA.run("backup-push", a.dataDirectory));
  await a.stop();
  const dataDirectory = await copyOf(a, "b");
  await a.start();
  b = await follow(a, { dataDirectory, walnut: walnutB, mode: "always" });
});
after(async () => {
  for (const server of [b, a]) await server[Symbol.asyncDispose]();
  await rm(base, { recursive: true, force: true });
});

/** While it exists, the first server can't archive. */
function awayFile(): string {
  return join(base, "away");
}

/** walnut as it is set up on one of the servers. */
async function installOn(name: string, settings: Readonly<Record<string, string>> = {}) {
  const cache = join(base, `${name}-cache`);
  const configFile = join(base, `${name}.json`);
  await mkdir(cache, { recursive: true });
  const all = { WALG_FILE_PREFIX: repository, WALNUT_CACHE_DIR: cache, ...settings };
  await writeFile(configFile, JSON.stringify(all));
  await chownTree(cache, serverUser());
  const program = `${walnutShellCommand()} --config ${shellWord(configFile)}`;
  return {
    archiveCommand: `${program} wal-push "%p"`,
    restoreCommand: `${program} wal-fetch "%f" "%p"`,
    run: (...words: readonly string[]): Promise<RunResult> =>
      runWalnut(["--config", configFile, ...words], { cwd: base, user: serverUser() }),
  };
}
type Walnut = Awaited<ReturnType<typeof installOn>>;

async function must(result: Promise<RunResult>): Promise<string> {
  const { code, stdout, stderr } = await result;
  assert.equal(code, 0, stderr);
  return stdout;
}

/** Starts a data directory as a standby of another server. */
async function follow(
  primary: Cluster,
  { dataDirectory, walnut, mode }: { dataDirectory: string; walnut: Walnut; mode: "on" | "always" },
): Promise<RestoredCluster> {
  const standby = await restoreCluster(dataDirectory, {
    major: MAJOR,
    signal: "standby",
    restoreCommand: walnut.restoreCommand,
    settings: {
      archive_mode: mode,
      archive_command: walnut.archiveCommand,
      primary_conninfo: `host=127.0.0.1 port=${primary.port} user=postgres`,
      recovery_target_timeline: "latest",
      wal_retrieve_retry_interval: "200ms",
    },
  });
  assert.equal(standby.outcome, "consistent", standby.log());
  return standby;
}

async function copyOf(cluster: Cluster, name: string): Promise<string> {
  const to = join(base, name);
  await cp(cluster.dataDirectory, to, { recursive: true });
  await rm(join(to, "postmaster.pid"), { force: true });
  return to;
}

/** Starts a data directory as it is, as one does with a copied machine. */
async function startAsItIs(dataDirectory: string, archiveCommand: string): Promise<Cluster> {
  const directory = await mkdtemp(join(base, "as-it-is-"));
  const user = serverUser();
  for (const path of [directory, dataDirectory]) await chownTree(path, user);
  await chmod(dataDirectory, 0o700);
  const port = await freePort();
  const settings = { archive_mode: "on", archive_command: archiveCommand };
  const environment = {};
  const parts = { major: MAJOR, directory, dataDirectory, user, port, environment, settings };
  const server = new Server(parts);
  await server.start();
  return server;
}

async function fill(cluster: Cluster, segments: number): Promise<void> {
  for (let round = 0; round < segments; round += 1) {
    await cluster.query("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 2000) AS n");
    await cluster.switchWal();
  }
}

async function caughtUp(primary: Cluster, standby: Cluster): Promise<void> {
  const end = await primary.value("SELECT pg_current_wal_lsn()");
  await standby.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${end}'`);
}

/** What is whole there: an upload may be under way. */
async function storedFiles(): Promise<string[]> {
  const names = await readdir(join(repository, "wal_005"));
  return names.filter((name) => !name.includes(".tmp."));
}

/** Names of WAL files in the repository, each once. */
async function archived(): Promise<string[]> {
  const names = await storedFiles();
  const stems = names.map((name) => name.replace(/\.(zst|lz4|br)$/, ""));
  assert.equal(new Set(stems).size, stems.length, "a file is there twice");
  return stems.toSorted();
}

async function archivedContent(name: string): Promise<Buffer> {
  const [file = ""] = (await storedFiles()).filter((one) => {
    return one.replace(/\.(zst|lz4|br)$/, "") === name;
  });
  const codec = codecByExtension(/\.(zst|lz4|br)$/.exec(file)?.[1] ?? "");
  assert.ok(codec !== undefined && file !== "", `${name} is not archived`);
  const object = await readFile(join(repository, "wal_005", file));
  return await readAll(codec.decompress(bytesSource(object).open(), { jobs: 1, signal }));
}

/** Every number between the first and the last archived segment of a timeline. */
function assertNoHole(names: readonly string[], timeline: number): void {
  const numbers = names
    .filter((name) => /^[0-9A-F]{24}$/.test(name) && name.startsWith(`0000000${timeline}`))
    .map((name) => Number.parseInt(name.slice(8, 16) + name.slice(21), 16));
  const [first = 0] = numbers;
  assert.ok(numbers.length > 0, `nothing of timeline ${timeline}`);
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => first + index),
  );
}

/** pg_rewind where there is one, else a new copy. */
async function rewind(old: Cluster, source: Cluster): Promise<void> {
  const program = clientProgram(MAJOR, "pg_rewind");
  if (program === undefined) {
    await source.stop();
    await rm(old.dataDirectory, { recursive: true });
    await cp(source.dataDirectory, old.dataDirectory, { recursive: true });
    await source.start();
    return;
  }
  // E14: it asks restore_command for WAL that it misses, and walks all of the data directory.
  const isAsking = existsSync(join(dirname(program), "postgres"));
  if (isAsking) await takeArchivedWalAway(old);
  runRewind(old, source, "--no-sync", ...(isAsking ? ["--restore-target-wal"] : []));
}

/** Does nothing where there is no pg_rewind. */
function runRewind(old: Cluster, source: Cluster, ...flags: readonly string[]): void {
  const program = clientProgram(MAJOR, "pg_rewind");
  if (program === undefined) return;
  const server = `host=127.0.0.1 port=${source.port} user=postgres dbname=postgres`;
  const words = ["--target-pgdata", old.dataDirectory, "--source-server", server, ...flags];
  const env = serverEnvironment(base, {});
  execFileSync(program, words, { ...serverUser(), cwd: base, env, stdio: "pipe" });
}

/** Leaves a stopped server with restore_command alone for what the archive has. */
async function takeArchivedWalAway({ dataDirectory }: Cluster): Promise<void> {
  const walDirectory = join(dataDirectory, "pg_wal");
  const inArchive = new Set(await archived());
  const taken = (await readdir(walDirectory)).filter(
    (name) => /^.{24}$/.test(name) && inArchive.has(name),
  );
  assert.ok(taken.length > 0);
  for (const name of taken) await rm(join(walDirectory, name));
  const command = walnutA.restoreCommand.replaceAll("'", "''");
  const line = `restore_command = '${command}'\n`;
  await appendFile(join(dataDirectory, "postgresql.auto.conf"), line);
}

test("archive_mode=always: both archive, each file is there once, as the primary stores it", async () => {
  await fill(a, 2);
  await caughtUp(a, b);
  for (const server of [a, b]) await server.waitForArchiver();
  assertNoHole(await archived(), 1);
  for (const name of await storedFiles()) assert.match(name, /\.zst$/);
});

test("the standby archives what the primary can't; the primary finds it there", async () => {
  await writeFile(awayFile(), "");
  await fill(a, 2);
  await caughtUp(a, b);
  await b.waitForArchiver();
  const names = await archived();
  await rm(awayFile());
  await a.waitForArchiver();
  assertNoHole(await archived(), 1);
  assert.ok(names.length > 4, names.join());
  for (const server of [a, b]) assert.doesNotMatch(server.log(), /other content/);
});

test("after a failover backfill closes the hole that the old primary left (P08)", async () => {
  await b.stop();
  b = await follow(a, { dataDirectory: b.dataDirectory, walnut: walnutB, mode: "on" });
  await writeFile(awayFile(), "");
  await fill(a, 3);
  await caughtUp(a, b);
  await a.stop("immediate");
  await b.query("SELECT pg_promote()");
  await fill(b, 2);
  await b.waitForArchiver();

  const before = await archived();
  assert.ok(before.includes("00000002.history"));
  assertNoHole(before, 2);
  assert.match((await walnutB.run("verify", "--json")).stdout, /"kind": "hole"/);
  const planned = await must(walnutB.run("backfill", b.dataDirectory, "--dry-run"));
  assert.equal(planned.match(/ planned \(not in the archive\)/g)?.length, 3, planned);
  assert.deepEqual(await archived(), before);

  const done = await must(walnutB.run("backfill", b.dataDirectory));
  const brought = [...done.matchAll(/^(\S+) archived /gm)].map(([, name = ""]) => name);
  assert.equal(brought.length, 3, done);
  for (const name of brought) {
    const local = await readFile(join(b.dataDirectory, "pg_wal", name));
    assert.ok((await archivedContent(name)).equals(local), name);
  }
  assertNoHole(await archived(), 1);
  assert.doesNotMatch(await must(walnutB.run("backfill", b.dataDirectory)), / archived /);
  assert.doesNotMatch(await must(walnutB.run("verify", "--json")), /hole|missing/);
});

test("the old primary may come back: it writes its own timeline and finds the rest", async () => {
  await rm(awayFile());
  await a.start();
  await fill(a, 1);
  await a.waitForArchiver();
  await a.stop();
  assert.doesNotMatch(a.log(), /other content/);
});

test("wal-restore brings what pg_rewind needs, and the old primary follows", async () => {
  await b.query("CHECKPOINT");
  const walDirectory = join(b.dataDirectory, "pg_wal");
  const [lost = ""] = (await readdir(walDirectory))
    .filter((name) => /^00000002.{16}$/.test(name))
    .toSorted();
  const content = await readFile(join(walDirectory, lost));
  await rm(join(walDirectory, lost));
  await must(walnutB.run("wal-restore", a.dataDirectory, b.dataDirectory));
  assert.ok(content.equals(await readFile(join(walDirectory, lost))), lost);
  const { stderr } = await walnutB.run("wal-restore", a.dataDirectory, b.dataDirectory);
  assert.match(stderr, /No WAL files to restore/);

  // Also what lies before the fork, back to a checkpoint; pg_rewind finds it without asking.
  await takeArchivedWalAway(a);
  // One that can't be had does not keep those behind it away.
  const forked = lost.replace(/^.{8}/, "00000001");
  const isOld = (name: string) => /^00000001.{16}$/.test(name) && name < forked;
  const [stored = ""] = (await storedFiles()).filter((name) => name.startsWith(forked));
  await rename(join(repository, "wal_005", stored), join(base, stored));
  const incomplete = await walnutB.run("wal-restore", a.dataDirectory, b.dataDirectory);
  assert.match(incomplete.stderr, new RegExp(`1 of \\d+ WAL segments.* the first is ${forked}`));
  assert.equal(incomplete.code, 31);
  assert.ok((await readdir(join(a.dataDirectory, "pg_wal"))).some(isOld), incomplete.stderr);
  await rename(join(base, stored), join(repository, "wal_005", stored));
  await must(walnutB.run("wal-restore", a.dataDirectory, b.dataDirectory));
  runRewind(a, b, "--dry-run");

  await rewind(a, b);
  a = await follow(b, { dataDirectory: a.dataDirectory, walnut: walnutA, mode: "on" });
  await fill(b, 1);
  await caughtUp(b, a);
});

test("and back again: the archive holds the whole history", async () => {
  await b.stop("immediate");
  await a.query("SELECT pg_promote()");
  await fill(a, 2);
  await must(walnutA.run("backfill", a.dataDirectory));
  await a.waitForArchiver();
  const names = await archived();
  for (const timeline of [1, 2, 3]) assertNoHole(names, timeline);
  assert.ok(names.includes("00000003.history"));

  const lsn = await a.value("SELECT pg_current_wal_lsn()");
  const report = await must(
    walnutA.run("wal-verify", "integrity", "--timeline", "3", "--lsn", lsn),
  );
  assert.match(report, /integrity check status: OK/);
});

test("a restore to the latest timeline is the live server, and archives on its own", async () => {
  const destination = join(base, "restored");
  await must(walnutB.run("backup-fetch", destination, "LATEST"));
  await using restored = await restoreCluster(destination, {
    major: MAJOR,
    signal: "recovery",
    restoreCommand: walnutB.restoreCommand,
    settings: {
      archive_mode: "on",
      archive_command: walnutB.archiveCommand,
      recovery_target_timeline: "latest",
    },
  });
  assert.equal(restored.outcome, "promoted", restored.log());
  assert.equal(await restored.contents(), await a.contents());
  await restored.query("SELECT pg_switch_wal()");
  await restored.waitForArchiver();
  const names = await archived();
  assert.ok(names.includes("00000004.history"));
  assertNoHole(names, 4);
});

test("a clone is refused before its first byte, forks with a flag, or takes over", async () => {
  await a.stop();
  const dataDirectory = await copyOf(a, "clone");
  const before = await archived();
  await using clone = await startAsItIs(dataDirectory, walnutA.archiveCommand);
  await fill(clone, 1);
  await clone.waitForLog(/timeline 3 in .* is written by .*; this server is .*\/clone/);
  assert.deepEqual(await archived(), before);
  const cloned = await installOn("clone", clone.connection);
  const backup = await cloned.run("backup-push", dataDirectory);
  assert.match(backup.stderr, /is written by .*; this server is .*\/clone/);
  assert.equal(backup.code, 31);

  const fork = walnutA.archiveCommand.replace(" wal-push", " --storage-prefix fork wal-push");
  await clone.stop();
  await using forked = await startAsItIs(dataDirectory, fork);
  await forked.waitForArchiver();
  assert.deepEqual(await archived(), before);
  assert.ok(existsSync(join(repository, "fork", "wal_005")));
  await forked.stop();

  await must(walnutA.run("take-over", dataDirectory));
  await using moved = await startAsItIs(dataDirectory, walnutA.archiveCommand);
  await fill(moved, 1);
  await moved.waitForArchiver();
  assert.ok((await archived()).length > before.length);
});
