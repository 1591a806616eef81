import assert from "node:assert/strict";
import { test } from "node:test";
import { existsSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { join } from "node:path";
import { initCluster, MAJORS, startCluster } from "./postgres.ts";

for (const major of MAJORS) {
  test(`a server of PostgreSQL ${major} starts, answers, stops and leaves nothing`, async () => {
    const cluster = await startCluster({
      major,
      segmentMiB: 1,
      dataDirectoryName: "data of mine",
      archiveCommand: "true",
      settings: { wal_level: "replica" },
    });
    try {
      assert.equal(await cluster.value("SHOW wal_segment_size"), "1MB");
      assert.equal(await cluster.value("SHOW archive_mode"), "on");
      assert.equal(await cluster.value("SHOW data_checksums"), "on");
      await cluster.query("CREATE TABLE rows AS SELECT generate_series(1, 1000) AS id");
      const before = await cluster.contents();
      assert.match(before, /postgres public\.rows 1000 [0-9a-f]{32}\n/);
      assert.match(await cluster.switchWal(), /^[0-9A-F]{24}$/);
      await cluster.waitForArchiver();
      await cluster.stop("immediate");
      await cluster.start();
      assert.equal(await cluster.contents(), before);
    } finally {
      await cluster[Symbol.asyncDispose]();
    }
    assert.equal(existsSync(cluster.directory), false);
  });
}

test("pg_wal can stand elsewhere, and settings can change", async () => {
  await using cluster = await initCluster({ major: 17, segmentMiB: 1 });
  const directory = await cluster.makeDirectory("wal elsewhere");
  await cluster.moveWal(directory);
  await cluster.start();
  assert.equal(await realpath(join(cluster.dataDirectory, "pg_wal")), directory);
  await cluster.configure({ work_mem: "7MB", log_line_prefix: "it's mine: " });
  await cluster.waitFor("SELECT current_setting('work_mem') = '7MB'");
  assert.equal(await cluster.value("SHOW log_line_prefix"), "it's mine: ");
});
