/**
 * pg_wal is lost, pg_resetwal makes the server start: same cluster, same timeline, and the next
 * segment has the name that follows the last archived one. PostgreSQL takes its first record for
 * the end of the WAL, so that a recovery from before would open without the commits behind it.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Cluster, type Major, restoreCluster, startCluster } from "../support/postgres.ts";
import { clientProgram } from "../support/postgres-programs.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { chownTree } from "../support/server-user.ts";
import { runWalnut, walnutShellCommand } from "../support/walnut.ts";

/** The release of Debian's own pg_resetwal. */
const MAJOR: Major = 15;

test("no recovery, increment or verify takes WAL behind pg_resetwal for a continuation", async () => {
  using scratch = scratchDirectory();
  const repository = join(scratch.path, "repository");
  await mkdir(repository);
  const environment = { WALNUT_FILE_PREFIX: repository, WALNUT_COMPRESSION_METHOD: "none" };
  await using cluster = await startCluster({
    major: MAJOR,
    archiveCommand: `exec ${walnutShellCommand()} wal-push "%p"`,
    environment,
  });
  await chownTree(scratch.path, cluster.user);
  const env = { ...environment, ...cluster.connection };
  const { user, directory: cwd } = cluster;
  const run = (...words: string[]) => runWalnut(words, { env, user, cwd });
  const backUp = async (...words: string[]) => {
    const { code, stderr } = await run("backup-push", cluster.dataDirectory, ...words);
    assert.equal(code, 0, stderr);
    return stderr;
  };
  await backUp();
  await cluster.query("CREATE TABLE item (name text)");
  await cluster.query("INSERT INTO item VALUES ('before')");
  await cluster.query("CHECKPOINT");
  await cluster.switchWal();
  await cluster.waitForArchiver();
  await cluster.query("INSERT INTO item VALUES ('lost')");
  await resetWal(cluster);
  await cluster.query("INSERT INTO item VALUES ('behind')");
  const anew = await cluster.switchWal();
  await cluster.query("INSERT INTO item VALUES ('end')");
  await cluster.switchWal();
  await cluster.waitForArchiver();

  const refusal = new RegExp(`WAL segment ${anew} .* begins the WAL anew`);
  const restore = async (name: string, more: Readonly<Record<string, string>> = {}) => {
    const destination = join(scratch.path, `restored-${name}-${Object.keys(more).length}`);
    const { code, stderr } = await run("backup-fetch", destination, name);
    assert.equal(code, 0, stderr);
    return await restoreCluster(destination, {
      major: MAJOR,
      signal: "recovery",
      restoreCommand: `exec ${walnutShellCommand()} wal-fetch "%f" "%p"`,
      environment: { ...environment, ...more },
      settings: { archive_mode: "off" },
    });
  };
  const [first = ""] = await backups(repository);

  {
    await using restored = await restore(first);
    await restored.exited();
    assert.match(restored.log(), refusal);
    assert.doesNotMatch(restored.log(), /archive recovery complete/);
  }
  {
    await using restored = await restore(first, { WALNUT_FETCH_END_AT_HOLE: "true" });
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.equal(await names(restored), "before");
  }

  const verify = await run("verify", "--full");
  assert.equal(verify.code, 26, verify.stderr);
  assert.match(verify.stdout, new RegExp(`hole\\s+${anew}\\s+the WAL begins anew`));
  // It is read, and told, each time.
  assert.equal((await run("verify")).code, 26);

  const words = await backUp("--delta-max-steps", "5");
  assert.match(words, new RegExp(`with ${anew} the WAL begins anew`));
  assert.doesNotMatch(words, /changes=wal/);
  {
    await using restored = await restore("LATEST");
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.equal(await names(restored), await names(cluster));
    assert.doesNotMatch(restored.log(), refusal);
  }
});

async function names(cluster: Cluster): Promise<string> {
  return await cluster.value("SELECT string_agg(name, ' ') FROM item");
}

/** As after the loss of the disk of pg_wal. */
async function resetWal(cluster: Cluster): Promise<void> {
  const program = clientProgram(MAJOR, "pg_resetwal");
  assert.ok(program !== undefined, "no pg_resetwal");
  await cluster.stop("immediate");
  const wal = join(cluster.dataDirectory, "pg_wal");
  for (const directory of [wal, join(wal, "archive_status")]) {
    const files = (await readdir(directory)).filter((name) => /^[0-9A-F]{24}/.test(name));
    for (const name of files) await rm(join(directory, name));
  }
  execFileSync(program, ["-f", cluster.dataDirectory], { ...cluster.user, cwd: "/" });
  await cluster.start();
}

async function backups(repository: string): Promise<readonly string[]> {
  const suffix = "_backup_stop_sentinel.json";
  const found = (await readdir(join(repository, "basebackups_005"))).toSorted();
  return found.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length));
}
