/** A standby that has streamed more of a segment than the archive's unfinished one holds. */
import assert from "node:assert/strict";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import { initCluster, type Major, restoreCluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";
import { chownTree, serverUser } from "../support/server-user.ts";

const MAJORS: readonly Major[] = [13, 18];

for (const major of MAJORS) {
  test(`PostgreSQL ${major}: a promotion keeps what was streamed behind X.partial`, async () => {
    await using primary = await initCluster({
      major,
      segmentMiB: 1,
      settings: { archive_mode: "on", autovacuum: "off", wal_keep_size: "64MB" },
    });
    const repository = await primary.makeDirectory("repository");
    const walnut = await install(primary, { WALG_FILE_PREFIX: repository });
    await primary.configure({ archive_command: walnut.archiveCommand });
    await primary.start();
    await primary.query("CREATE TABLE item (id bigserial, content text)");
    await primary.switchWal();
    await primary.waitForArchiver();
    await primary.stop();
    const dataDirectory = join(primary.directory, "standby");
    await cp(primary.dataDirectory, dataDirectory, { recursive: true });
    await primary.start();
    await using standby = await restoreCluster(dataDirectory, {
      major,
      signal: "standby",
      restoreCommand: walnut.restoreCommand,
      settings: {
        primary_conninfo: `host=127.0.0.1 port=${primary.port} user=postgres`,
        wal_retrieve_retry_interval: "100ms",
      },
    });
    await standby.waitFor(
      "SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'",
    );

    // What wal-receive had stored last when the primary died.
    const insert =
      "INSERT INTO item (content) SELECT md5(n::text) FROM generate_series(1, 500) AS n";
    await primary.query(insert);
    const segment = await primary.value("SELECT pg_walfile_name(pg_current_wal_lsn())");
    const unfinished = await readFile(join(primary.dataDirectory, "pg_wal", segment));
    const object = join(repository, "wal_005", `${segment}.partial.zst`);
    await writeFile(object, zstdCompressSync(unfinished));
    await chownTree(object, serverUser());
    await primary.query(insert);
    const end = await primary.value("SELECT pg_current_wal_lsn()");
    await standby.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${end}'`);
    await primary.stop("immediate");

    await standby.waitForLog(new RegExp(`WAL file ${segment} is in the archive up to .* only`));
    await standby.query("SELECT pg_promote()");
    assert.equal(await standby.value("SELECT pg_is_in_recovery()"), "false", standby.log());
    assert.equal(await standby.value("SELECT count(*) FROM item"), "1000");
  });
}
