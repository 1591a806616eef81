/**
 * E12 and E09 with a real server: a segment is archived, a crash takes the server back to before
 * its end, and it writes the segment anew, and longer.
 */
import assert from "node:assert/strict";
import { cp, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { initCluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";
import { chownTree } from "../support/server-user.ts";

const { signal } = new AbortController();

test("a segment that was archived and is written anew is neither dropped nor overwritten", async () => {
  await using cluster = await initCluster({
    major: 17,
    segmentMiB: 1,
    settings: { archive_mode: "on", archive_command: "false", autovacuum: "off" },
  });
  const { dataDirectory } = cluster;
  const repository = await cluster.makeDirectory("repository");
  const walnut = await install(cluster, { WALG_FILE_PREFIX: repository });
  const setup = await walnut.mustRun("setup", dataDirectory);
  const line = /^archive_command = '(.*)'$/m.exec(setup.stdout)?.[1]?.replaceAll("''", "'");
  assert.ok(line !== undefined, setup.stdout);
  await cluster.configure({ archive_command: line });
  await cluster.start();
  await cluster.query("CREATE TABLE t (id int, content text)");
  await cluster.switchWal();
  await cluster.waitForArchiver();
  await cluster.stop("immediate");

  // What the disk would hold if everything after this were lost.
  const saved = join(cluster.directory, "saved");
  await cp(dataDirectory, saved, { recursive: true });
  await cluster.start();
  await cluster.query("INSERT INTO t VALUES (1, 'short')");
  const name = await cluster.switchWal();
  await cluster.waitForArchiver();
  const archive = join(repository, "wal_005");
  const key = join(archive, `${name}.zst`);
  const object = await readFile(key);
  const before = await readdir(archive);

  await cluster.stop("immediate");
  await rm(dataDirectory, { recursive: true });
  await cp(saved, dataDirectory, { recursive: true });
  await chownTree(dataDirectory, cluster.user);
  const logged = cluster.log().length;
  await cluster.start();
  await cluster.query(
    "INSERT INTO t SELECT n, md5(random()::text) FROM generate_series(1, 30000) AS n",
  );
  await cluster.switchWal();
  await cluster.waitForLog(
    new RegExp(`${name} is archived with other content.*valid records end at byte`),
    { from: logged },
  );

  assert.ok(object.equals(await readFile(key)), "the archived object was changed");
  assert.deepEqual(await readdir(archive), before, "the timeline has WAL of both histories");
  const local = await readFile(join(dataDirectory, "pg_wal", name));
  const place = join(repository, "walnut_005", "quarantine", name);
  const kept = (await readdir(place)).find((one) => one.endsWith(".zst")) ?? "";
  assert.ok(local.equals(await unpacked(join(place, kept))), "quarantine holds something else");

  // The way out that the message names: the administrator decides for the server.
  await rm(key);
  await cluster.waitForArchiver();
  assert.ok(local.equals(await unpacked(key)));
});

async function unpacked(path: string): Promise<Buffer> {
  const object = bytesSource(await readFile(path)).open();
  return await readAll(codecOf("zstd").decompress(object, { jobs: 1, signal }));
}
