/** archive_command and restore of single files with the real program, on every release. */
import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Cluster, initCluster, type Major, MAJORS } from "../support/postgres.ts";
import { type Installation, install } from "../support/repository.ts";

const METHODS = ["zstd", "lz4", "brotli", "lzma", "none", "zstd"] as const;

interface Archiving {
  readonly cluster: Cluster;
  readonly walnut: Installation;
  readonly repository: string;
}

/** A server that archives with the product into a directory, and that recycles nothing. */
async function startArchiving(
  major: Major,
  segmentMiB: number,
  settings: Readonly<Record<string, string>>,
): Promise<Archiving> {
  const cluster = await initCluster({
    major,
    segmentMiB,
    dataDirectoryName: "data of mine",
    settings: {
      archive_mode: "on",
      wal_keep_size: "1GB",
      max_wal_size: "2GB",
      min_wal_size: "2GB",
      checkpoint_timeout: "1h",
    },
  });
  const repository = await cluster.makeDirectory("repository");
  const walnut = await install(cluster, { WALG_FILE_PREFIX: repository, ...settings });
  await cluster.configure({ archive_command: walnut.archiveCommand });
  await cluster.start();
  return { cluster, walnut, repository };
}

/** Fetches every file whose archiving is done and compares it with what the server still has. */
async function assertAllArchived({ cluster, walnut }: Archiving): Promise<readonly string[]> {
  const walDirectory = join(cluster.dataDirectory, "pg_wal");
  const status = await readdir(join(walDirectory, "archive_status"));
  const names = status.map((name) => name.replace(/\.done$/, "")).toSorted();
  const out = await cluster.makeDirectory("fetched");
  for (const name of names) {
    await walnut.mustRun("wal-fetch", name, join(out, name));
    const [original, fetched] = await Promise.all([
      readFile(join(walDirectory, name)),
      readFile(join(out, name)),
    ]);
    assert.ok(original.equals(fetched), `${name} came back changed`);
  }
  assert.deepEqual((await readdir(out)).toSorted(), names);
  return names;
}

for (const [index, major] of MAJORS.entries()) {
  const method = METHODS[index] ?? "zstd";
  test(`PostgreSQL ${major} archives under load with ${method}; every file comes back`, async () => {
    const archiving = await startArchiving(major, 1, { WALG_COMPRESSION_METHOD: method });
    const { cluster, repository } = archiving;
    await using _cleanUp = cluster;
    await cluster.query("CREATE TABLE load (id bigserial PRIMARY KEY, content text)");
    await Promise.all(
      [1, 2].map((seed) =>
        cluster.query(
          `INSERT INTO load (content)
           SELECT string_agg(md5((n * ${seed} + m)::text), '')
             FROM generate_series(1, 2000) AS n, generate_series(1, 20) AS m GROUP BY n`,
        ),
      ),
    );
    // What a backup leaves is archived as well.
    await cluster.query(
      major >= 15
        ? "SELECT pg_backup_start('x', true); SELECT pg_backup_stop(false)"
        : "SELECT pg_start_backup('x', true); SELECT pg_stop_backup()",
    );
    await cluster.switchWal();
    await cluster.waitForArchiver();

    const names = await assertAllArchived(archiving);
    assert.ok(names.length >= 4 && names.some((name) => name.endsWith(".backup")), names.join());
    const failures = await cluster.value("SELECT failed_count FROM pg_stat_archiver");
    assert.equal(failures, "0", cluster.log());
    const stored = await readdir(join(repository, "wal_005"));
    assert.equal(stored.length, names.length);
  });
}

test("segments of 64 MiB", async () => {
  const archiving = await startArchiving(16, 64, {});
  await using _cleanUp = archiving.cluster;
  await archiving.cluster.query("CREATE TABLE load AS SELECT generate_series(1, 200000) AS id");
  await archiving.cluster.switchWal();
  await archiving.cluster.waitForArchiver();
  const names = await assertAllArchived(archiving);
  assert.ok(names.length >= 1);
});

test("a promoted server archives history, partial segment and its own timeline", async () => {
  const archiving = await startArchiving(17, 1, {});
  const { cluster, walnut } = archiving;
  await using _cleanUp = cluster;
  await cluster.query("CREATE TABLE load AS SELECT generate_series(1, 20000) AS id");
  await cluster.switchWal();
  await cluster.query("INSERT INTO load SELECT generate_series(1, 500)");
  await cluster.waitForArchiver();
  await cluster.stop("immediate");

  await cluster.configure({ restore_command: walnut.restoreCommand });
  await writeFile(join(cluster.dataDirectory, "recovery.signal"), "");
  await cluster.start();
  await cluster.waitFor("SELECT NOT pg_is_in_recovery()");
  await cluster.switchWal();
  await cluster.waitForArchiver();
  const names = await assertAllArchived(archiving);
  assert.ok(names.includes("00000002.history"), names.join());
  assert.ok(
    names.some((name) => /^00000001\w{16}\.partial$/.test(name)),
    names.join(),
  );
  assert.ok(
    names.some((name) => /^00000002\w{16}$/.test(name)),
    names.join(),
  );
});
