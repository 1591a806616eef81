import assert from "node:assert/strict";
import { test } from "node:test";
import { existsSync } from "node:fs";
import { MAJORS, startCluster } from "./postgres.ts";

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
