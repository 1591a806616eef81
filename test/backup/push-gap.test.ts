import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesSource } from "../../src/io/bytes.ts";
import { gapKey } from "../../src/layout/keys.ts";
import { startBackupWorld } from "../support/backup-world.ts";
import { HookedStorage } from "../support/hooked-storage.ts";

test("a segment that is given up while a backup runs ends that, with the way out (P16)", async () => {
  await using world = await startBackupWorld({ major: 15 });
  const { cluster } = world;
  const { signal } = new AbortController();
  let given = "";
  const storage = new HookedStorage(world.storage, {
    async beforePut(key) {
      if (given !== "" || !key.includes("part_001")) return;
      // As wal-push does under the policy drop: acknowledged, recorded, not stored.
      await world.setArchiveCommand("true");
      await cluster.query("CREATE TABLE during_the_backup ()");
      given = await cluster.switchWal();
      await cluster.waitForArchiver();
      await world.storage.put(gapKey(given), bytesSource(Buffer.from("{}")), { signal });
      await world.setArchiveCommand(`cp "%p" "${world.repository}/wal_005/%f"`);
    },
  });
  await assert.rejects(world.push({ storage, stopTimeoutMs: 0 }), (error: unknown) => {
    assert.ok(error instanceof Error && "hint" in error, String(error));
    assert.match(error.message, new RegExp(`^WAL segment ${given} was given up and will never be`));
    assert.match(String(error.hint), /take a new one/);
    return true;
  });
  assert.deepEqual(await world.keys("basebackups_005/"), []);

  // The next one needs nothing of it.
  const { name } = await world.push();
  assert.ok(name > `base_${given}`, name);
});
