import assert from "node:assert/strict";
import { statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { parseFilesMetadata } from "../../src/layout/files-metadata.ts";
import { filesMetadataKey, metadataKey, tarFolder } from "../../src/layout/keys.ts";
import { parseMetadata } from "../../src/layout/metadata.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const signal = AbortSignal.timeout(300_000);
const scan = { maxSteps: 9, origin: "latest", ways: ["page-scan"] } as const;

/** "whole", "pages" or "unchanged" by the file's name, as WAL-G is told. */
async function fates(world: BackupWorld, backup: string): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  const bytes = world.storage.get(filesMetadataKey(backup), { signal });
  for await (const item of parseFilesMetadata(backup, bytes)) {
    if (item.kind !== "file") continue;
    const fate = item.isSkipped ? "unchanged" : item.isIncremented ? "pages" : "whole";
    found.set(item.name, fate);
  }
  return found;
}

describe("increments of one server", () => {
  const all: { world?: BackupWorld } = {};
  function world(): BackupWorld {
    if (all.world === undefined) throw new Error("no world");
    return all.world;
  }
  const pathOf = (table: string): Promise<string> =>
    world().cluster.value(`SELECT pg_relation_filepath('${table}')`);
  const push = async (change: object = {}) =>
    await world().push({ increments: scan, hasDatabaseNames: false, ...change });

  before(async () => {
    all.world = await startBackupWorld({ major: 15 });
    const { cluster } = world();
    await cluster.query(
      `CREATE TABLE cold AS SELECT g AS id, repeat('c', 90) AS t FROM generate_series(1, 20000) g;
       CREATE TABLE warm AS SELECT g AS id, repeat('w', 90) AS t FROM generate_series(1, 20000) g;
       CREATE TABLE shrinking AS SELECT g AS id FROM generate_series(1, 20000) g`,
    );
    for (const table of ["cold", "warm", "shrinking"]) await cluster.query(`VACUUM ${table}`);
  });
  after(async () => await all.world?.[Symbol.asyncDispose]());

  test("times of files prove nothing, whether they stay, change or go back", async () => {
    const { cluster } = world();
    await push();
    const path = (table: string) => pathOf(table).then((name) => join(cluster.dataDirectory, name));
    const [cold, warm, shrinking] = [
      await path("cold"),
      await path("warm"),
      await path("shrinking"),
    ];
    const times = new Map([warm, shrinking].map((file) => [file, statSync(file).mtime]));
    await cluster.query("UPDATE warm SET t = 'changed' WHERE id = 10000");
    await cluster.query("DELETE FROM shrinking WHERE id > 300");
    for (const sql of ["VACUUM shrinking", "CHECKPOINT"]) await cluster.query(sql);
    for (const [file, mtime] of times) utimesSync(file, mtime, mtime);
    utimesSync(cold, new Date(1), new Date(1));
    const pushed = await push();
    const found = await fates(world(), pushed.name);
    const names = await Promise.all(["cold", "warm", "shrinking"].map(pathOf));
    assert.deepEqual(
      names.map((name) => found.get(`/${name}`)),
      ["unchanged", "pages", "pages"],
    );
    assert.equal(found.get("/PG_VERSION"), "unchanged");
    assert.ok(pushed.contentBytes < 3_000_000, `${pushed.contentBytes} bytes`);
  });

  test("a database with an earlier one's oid and old pages is compared as a whole", async () => {
    const { cluster } = world();
    const oid = 30_000;
    await cluster.query("CREATE DATABASE first");
    await cluster.query("CREATE TABLE same AS SELECT g FROM generate_series(1, 5000) g", "first");
    await cluster.query("CREATE DATABASE second TEMPLATE = first STRATEGY = file_copy");
    await cluster.query("UPDATE same SET g = g + 1", "second");
    await cluster.query("CHECKPOINT");
    await cluster.query(`CREATE DATABASE copy TEMPLATE = first OID = ${oid} STRATEGY = file_copy`);
    await push();
    await cluster.query("DROP DATABASE copy");
    await cluster.query(`CREATE DATABASE copy TEMPLATE = second OID = ${oid} STRATEGY = file_copy`);
    const name = await cluster.value("SELECT pg_relation_filepath('same')", "copy");
    const { name: backup } = await push();
    assert.equal((await fates(world(), backup)).get(`/${name}`), "whole");
  });

  test("a permanent increment makes its chain permanent", async () => {
    const { storage } = world();
    const { name, baseName } = await push({ isPermanent: true });
    assert.ok(baseName !== undefined);
    for (const backup of [name, baseName]) {
      const text = await readAll(storage.get(metadataKey(backup), { signal }));
      assert.equal(parseMetadata(backup, text.toString()).isPermanent, true);
    }
    const next = await push();
    assert.equal(next.baseName, undefined, "what is not permanent is not based on it");
  });

  test("an interrupted restore of a chain goes on, and gives the same", async () => {
    using scratch = scratchDirectory();
    await world().cluster.query("UPDATE warm SET t = 'again' WHERE id < 50");
    const { name: backup } = await push();
    const [whole, resumed] = [join(scratch.path, "whole"), join(scratch.path, "resumed")];
    await restoreInto(world().storage, whole, { backup });
    const stop = new AbortController();
    const failing = restoreInto(world().storage, resumed, {
      backup,
      signal: stop.signal,
      onProgress: (doneBytes) => {
        if (doneBytes > 12_000_000) stop.abort(new Error("stopped by the test"));
      },
    });
    await assert.rejects(failing, { message: "stopped by the test" });
    const report = await restoreInto(world().storage, resumed, { backup });
    assert.ok(report.keptBytes > 4_000_000, `${report.keptBytes} bytes were kept`);
    assert.deepEqual(snapshot(resumed), snapshot(whole));
  });

  test("a backup that lacks a part is no base", async () => {
    const { storage, logged } = world();
    const { name } = await push();
    const [part = ""] = (await world().keys(tarFolder(name))).filter((key) => /part_/.test(key));
    const bytes = await readAll(storage.get(part, { signal }));
    await storage.put(part, bytesSource(bytes.subarray(0, 512)), { signal });
    const found = logged.length;
    assert.notEqual((await push()).baseName, name);
    assert.match(
      logged.slice(found).join("\n"),
      /warning: .* and can't be restored backup=\S+ reason=lacks its part part_001.tar, or that is cut/,
    );
    await assert.rejects(push({ increments: { ...scan, from: { kind: "name", name } } }), {
      name: "RefusedError",
      message: /lacks its part part_001\.tar, or that is cut off$/,
      hint: /^It can't be restored either: .* Take a full backup/,
    });
  });

  test("a base that was asked for is refused, one that was not is passed over", async () => {
    const { logged } = world();
    const increments = { ...scan, from: { kind: "name" as const, name: "base_unknown" } };
    await assert.rejects(push({ increments }), {
      name: "RefusedError",
      message: /can't be based on what was asked for: backup base_unknown does not exist$/,
    });
    const asked = logged.length;
    const none = { maxSteps: 0, from: increments.from };
    assert.equal((await push({ increments: { ...increments, ...none } })).baseName, undefined);
    assert.match(logged.slice(asked).join("\n"), /WALG_DELTA_MAX_STEPS is 0 hint=with --type incr/);
    const found = logged.length;
    assert.equal((await push({ hash: "sha256" })).baseName, undefined);
    const told = logged.slice(found).join("\n");
    assert.match(
      told,
      /can't be the base of an increment backup=base_\w+ reason=has hashes by xxh64/,
    );
    assert.match(told, /Doing full backup: /);
  });
});
