import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { startBackupWorld } from "../support/backup-world.ts";
import { restoreCluster } from "../support/postgres.ts";
import { restoreInto } from "../support/restoring.ts";
import { checkHeaps } from "../support/soundness.ts";

const increments = { maxSteps: 5, origin: "latest" } as const;

for (const major of [13, 18] as const) {
  test(`a chain of PostgreSQL ${major} restores every row`, async () => {
    await using world = await startBackupWorld({ major });
    const { cluster } = world;
    await cluster.query(
      `CREATE TABLE t AS SELECT g AS id, repeat('x', 100) AS t FROM generate_series(1, 50000) g;
       CREATE INDEX ON t (id)`,
    );
    const full = await world.push({ increments });
    assert.equal(full.baseName, undefined);
    await cluster.query("UPDATE t SET t = 'changed' WHERE id % 5000 = 1");
    const first = await world.push({ increments });
    await cluster.query("DELETE FROM t WHERE id > 49000; INSERT INTO t VALUES (0, 'new')");
    const second = await world.push({ increments });
    assert.deepEqual([first.baseName, second.baseName], [full.name, first.name]);
    const before = await cluster.contents();
    const directory = join(cluster.directory, "restored");
    await restoreInto(world.storage, directory, { backup: second.name });
    await cluster.stop();
    await using restored = await restoreCluster(directory, {
      major,
      signal: "recovery",
      restoreCommand: `cp "${world.repository}/wal_005/%f" "%p"`,
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    await checkHeaps(restored);
    assert.equal(await restored.contents(), before);
  });
}
