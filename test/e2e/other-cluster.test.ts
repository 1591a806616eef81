/**
 * A cluster that pg_upgrade or initdb made anew, with the settings of the one before it: it begins
 * with timeline 1 again, and nothing of what it says may count for the other's repository.
 */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Cluster, startCluster } from "../support/postgres.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { chownTree } from "../support/server-user.ts";
import { runWalnut, walnutShellCommand } from "../support/walnut.ts";

const MAJOR = 18;

test("info and wal-verify take no position of another cluster, also before the first backup", async () => {
  using scratch = scratchDirectory();
  const repository = join(scratch.path, "repository");
  await mkdir(repository);
  const archiving = {
    major: MAJOR,
    archiveCommand: `exec ${walnutShellCommand()} wal-push "%p"`,
    environment: { WALNUT_FILE_PREFIX: repository, WALNUT_COMPRESSION_METHOD: "none" },
  } as const;
  await using first = await startCluster(archiving);
  await chownTree(scratch.path, first.user);
  await first.switchWal();
  await first.waitForArchiver();
  const owner = await systemIdOf(first);
  await first.stop();

  await using second = await startCluster(archiving);
  await second.switchWal();
  await second.waitForLog(/this server is cluster \d+, but repository/);
  const id = await systemIdOf(second);
  const env = { ...archiving.environment, ...second.connection };
  const run = (...words: string[]) => runWalnut(words, { env, user: second.user });

  const info = await run("info", "--json");
  assert.equal(info.code, 0, info.stderr);
  assert.match(info.stdout, new RegExp(`"system_identifier":\\s*"${owner}"`));
  const warning = `the server is cluster ${id}, the repository of cluster ${owner}`;
  assert.ok(info.stdout.includes(warning), info.stdout);
  assert.match(info.stdout, /"lag_bytes":\s*null/);

  const verify = await run("wal-verify", "integrity", "timeline");
  assert.equal(verify.code, 21, verify.stderr);
  assert.match(verify.stderr, new RegExp(`the server is cluster ${id}, .* of cluster ${owner}`));
  assert.equal(verify.stdout, "");
});

async function systemIdOf(cluster: Cluster): Promise<string> {
  return await cluster.value("SELECT system_identifier::text FROM pg_control_system()");
}
