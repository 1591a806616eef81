import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { startCountedBackups } from "../support/counted-backups.ts";

test("what expire keeps is restored by a real server, and nothing else is left", async () => {
  let repository = "";
  await using backups = await startCountedBackups(async (cluster) => {
    repository = await cluster.makeDirectory("repository");
    return { WALG_FILE_PREFIX: repository, WALNUT_RETAIN_FULLS: "1" };
  });
  const { walnut, rows, take } = backups;
  const pinned = await take("--permanent");
  const dropped = [await take("--full"), await take("--type", "incr")];
  const full = await take("--full");
  const increment = await take("--type", "incr");
  assert.match(increment, /_D_/);
  await backups.end();

  const listNames = async () => [...(await backups.listed()).keys()];
  const walNames = async (): Promise<readonly string[]> =>
    (await readdir(join(repository, "wal_005"))).filter((name) => /^[0-9A-F]{24}\./.test(name));
  const before = await walNames();
  await walnut.mustRun("expire");
  assert.equal((await listNames()).length, 5, "a dry run removes nothing");
  const { stdout } = await walnut.mustRun("expire", "--confirm");
  assert.deepEqual(await listNames(), [pinned, full, increment]);
  for (const name of dropped) assert.match(stdout, new RegExp(`^remove backup ${name} `, "m"));
  const folders = (await readdir(join(repository, "basebackups_005"))).filter(
    (name) => !name.includes("sentinel"),
  );
  assert.deepEqual(folders.toSorted(), [pinned, full, increment].toSorted());
  assert.ok((await walNames()).length < before.length);

  for (const name of [pinned, full, increment]) {
    // An old pinned backup keeps no WAL but its own.
    const target = name === pinned ? "immediate" : "end";
    await using restored = await backups.restore(name, target);
    const found = Number(await restored.value("select max(number) from seen where number < 100"));
    assert.ok(found >= (rows.get(name) ?? 0), `${name} has ${found}`);
    const hasEnd = (await restored.value("select count(*) from seen where number = 100")) === "1";
    if (target === "end") assert.ok(hasEnd, "the last commit is there");
  }
});
