import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startCountedBackups } from "../support/counted-backups.ts";

// Of WAL-G's: delete_end_to_end, backup_mark_impermanent, backup_mark_permanent_no_error,
// delete_before_permanent_delta_multist.
test("backups in two storages in turn: what delete leaves is restored by a real server", async () => {
  let second = "";
  await using backups = await startCountedBackups(async (cluster) => {
    second = await cluster.makeDirectory("second");
    return {
      WALG_FILE_PREFIX: await cluster.makeDirectory("first"),
      WALG_FAILOVER_STORAGES: JSON.stringify({ second: { WALG_FILE_PREFIX: second } }),
    };
  });
  const { walnut, rows, take, listed } = backups;
  await take("--full");
  const full = await take("--full", "--target-storage=second");
  const pinned = await take("--type", "incr", "--target-storage=second");
  await walnut.mustRun("backup-mark", pinned);
  await walnut.mustRun("backup-mark", pinned);
  const newer = await take("--full", "--permanent");
  const last = await take("--type", "incr", "--permanent");
  assert.ok(
    [pinned, last].every((name) => name.includes("_D_")),
    [...rows.keys()].join(" "),
  );
  await backups.end();

  await walnut.mustRun("delete", "before", "FIND_FULL", last, "--confirm");
  assert.deepEqual(
    [...(await listed())],
    [
      [full, "second"],
      [pinned, "second"],
      [newer, "default"],
      [last, "default"],
    ],
  );
  for (const [name, target, number] of [
    [pinned, "immediate", 3],
    [last, "end", 100],
  ] as const) {
    await using restored = await backups.restore(name, target);
    assert.equal(Number(await restored.value("select max(number) from seen")), number);
  }

  const refused = await walnut.run("backup-mark", full, "-i");
  assert.match(refused.stderr, /There is permanent increment backup that depends on this backup/);
  await walnut.mustRun("backup-mark", "--impermanent", pinned);
  await walnut.mustRun("backup-mark", "--impermanent", full);
  await walnut.mustRun("delete", "before", newer, "--confirm");
  assert.deepEqual([...(await listed()).keys()], [newer, last]);
  assert.deepEqual(await readdir(join(second, "basebackups_005")).catch(() => []), []);
  await walnut.mustRun("verify", "--full");
});
