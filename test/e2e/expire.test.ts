import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { initCluster, restoreCluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";

const MAJOR = 18;

test("what expire keeps is restored by a real server, and nothing else is left", async () => {
  await using cluster = await initCluster({
    major: MAJOR,
    segmentMiB: 1,
    settings: { archive_mode: "on", summarize_wal: "on" },
  });
  const repository = await cluster.makeDirectory("repository");
  const walnut = await install(cluster, { WALG_FILE_PREFIX: repository, WALNUT_RETAIN_FULLS: "1" });
  await cluster.configure({ archive_command: walnut.archiveCommand });
  await cluster.start();
  await cluster.query("create table seen (number int primary key, body text)");

  /** How many rows each backup must have at least. */
  const rows = new Map<string, number>();
  const take = async (...flags: readonly string[]): Promise<string> => {
    const number = rows.size + 1;
    await cluster.query(`insert into seen values (${number}, repeat('x', 200000))`);
    await walnut.mustRun("backup-push", cluster.dataDirectory, ...flags);
    const list = await walnut.mustRun("backup-list");
    const name = list.stdout.trimEnd().split("\n").at(-1)?.split(" ")[0] ?? "";
    assert.ok(!rows.has(name));
    rows.set(name, number);
    return name;
  };
  const pinned = await take("--permanent");
  const dropped = [await take("--full"), await take("--type", "incr")];
  const full = await take("--full");
  const increment = await take("--type", "incr");
  assert.match(increment, /_D_/);
  await cluster.query("insert into seen values (100, 'the end')");
  await cluster.switchWal();
  await cluster.waitForArchiver();

  const listNames = async (): Promise<readonly string[]> =>
    (await walnut.mustRun("backup-list")).stdout
      .trimEnd()
      .split("\n")
      .slice(1)
      .map((line) => line.split(" ")[0] ?? "");
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
    const directory = join(cluster.directory, `restored ${rows.get(name)} ${target}`);
    await walnut.mustRun("backup-fetch", directory, name);
    await using restored = await restoreCluster(directory, {
      major: MAJOR,
      signal: "recovery",
      restoreCommand: walnut.restoreCommand,
      settings:
        target === "immediate"
          ? { recovery_target: "immediate", recovery_target_action: "promote" }
          : {},
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    const found = Number(await restored.value("select max(number) from seen where number < 100"));
    assert.ok(found >= (rows.get(name) ?? 0), `${name} has ${found}`);
    const hasEnd = (await restored.value("select count(*) from seen where number = 100")) === "1";
    if (target === "end") assert.ok(hasEnd, "the last commit is there");
  }
});
