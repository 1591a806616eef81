import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  indexManifest,
  type ManifestIndex,
  readManifestLines,
} from "../../src/backup/backup-documents.ts";
import { codecOf } from "../../src/codec/table.ts";
import { readAll } from "../../src/io/bytes.ts";
import { parseFilesMetadata } from "../../src/layout/files-metadata.ts";
import { filesMetadataKey, tarFolder } from "../../src/layout/keys.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { assertRestoresLive } from "../support/restored-compare.ts";
import { restoreInto } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const signal = AbortSignal.timeout(300_000);

function partsOf({ files }: ManifestIndex): ReadonlyMap<string, readonly string[]> {
  return Map.groupBy(files.keys(), (path) => files.get(path)?.part ?? "");
}

function databaseOf(path: string): string {
  return /^base\/(\d+)\//.exec(path)?.[1] ?? "";
}

describe("composers", () => {
  const all: { world?: BackupWorld } = {};
  const world = (): BackupWorld => {
    if (all.world === undefined) throw new Error("no world");
    return all.world;
  };
  const push = async (change: object) =>
    await world().push({ thresholdBytes: 1024 ** 2, partConcurrency: 2, ...change });
  const manifestOf = async (backup: string): Promise<ManifestIndex> =>
    await indexManifest(
      readManifestLines(world().storage, backup, { zstd: codecOf("zstd"), signal }),
    );
  const pathOf = async (table: string): Promise<string> =>
    await world().cluster.value(`SELECT pg_relation_filepath('${table}')`);
  const bytesOf = async (backup: string, part: string): Promise<Buffer> =>
    await readAll(world().storage.get(`${tarFolder(backup)}${part}`, { signal }));

  before(async () => {
    all.world = await startBackupWorld({ major: 16, settings: { autovacuum: "off" } });
    const { cluster } = world();
    await cluster.query("CREATE DATABASE shop");
    await cluster.query(
      `CREATE TABLE cold AS SELECT g AS id, repeat('c', 500) AS t FROM generate_series(1, 8000) g;
       CREATE TABLE hot (id int PRIMARY KEY, t text)`,
    );
    await cluster.query("CREATE TABLE goods AS SELECT g FROM generate_series(1, 9000) g", "shop");
    await cluster.query("INSERT INTO hot SELECT g, 'h' FROM generate_series(1, 5000) g");
    for (const text of ["VACUUM", "CHECKPOINT", "SELECT pg_stat_reset()"])
      await cluster.query(text);
  });
  after(async () => await all.world?.[Symbol.asyncDispose]());

  test("by database, one database is restored from its own parts alone", async () => {
    using scratch = scratchDirectory();
    const { name: backup } = await push({ composer: "database" });
    const manifest = await manifestOf(backup);
    const parts = partsOf(manifest);
    for (const [part, paths] of parts) {
      assert.equal(new Set(paths.map(databaseOf)).size, 1, `${part} holds several databases`);
    }
    const oid = await world().cluster.value("SELECT oid FROM pg_database WHERE datname = 'shop'");
    const own = [...parts].flatMap(([part, [path = ""]]) => (databaseOf(path) === oid ? part : []));
    assert.ok(own.length > 1 && own.length < parts.size / 2, `${own.length} of ${parts.size}`);

    const counting = new FaultyStorage(world().storage);
    const directory = join(scratch.path, "data");
    const mask = (path: string): boolean => databaseOf(path) === oid;
    await restoreInto(counting, directory, { backup, mask });
    const fetched = counting.calls
      .filter(({ method, key }) => method === "get" && key.startsWith(tarFolder(backup)))
      .map(({ key }) => key.slice(tarFolder(backup).length));
    assert.deepEqual(fetched.toSorted(), own.toSorted());
  });

  test("by rating, what changes often shares no part with what does not", async () => {
    const { cluster } = world();
    await cluster.query("UPDATE hot SET t = t || 'x'");
    await cluster.waitFor("SELECT n_tup_upd = 5000 FROM pg_stat_all_tables WHERE relname = 'hot'");
    await cluster.query("CHECKPOINT");
    const { name: backup } = await push({ composer: "rating", hasDatabaseNames: false });
    const manifest = await manifestOf(backup);
    const parts = partsOf(manifest);
    const hot = [await pathOf("hot"), await pathOf("hot_pkey")];
    const hotParts = new Set(hot.map((path) => manifest.files.get(path)?.part ?? ""));
    const cold = await pathOf("cold");
    const beside = [...hotParts].flatMap((part) => parts.get(part) ?? []);
    assert.ok(beside.length >= 2 && !beside.includes(cold));
    const counts = new Map<string, bigint>();
    const text = world().storage.get(filesMetadataKey(backup), { signal });
    for await (const item of parseFilesMetadata(backup, text)) {
      if (item.kind === "file") counts.set(item.name.slice(1), item.updatesCount);
    }
    assert.deepEqual(
      [...hot, cold].map((path) => counts.get(path)),
      [5000n, 5000n, 0n],
    );
    for (const path of beside) assert.ok((counts.get(path) ?? 0n) > 0n, `${path} is cold`);
    // Every file, once: as in a backup in order.
    const { name: plain } = await push({ hasDatabaseNames: false });
    const names = [...(await manifestOf(plain)).files.keys()].toSorted();
    assert.deepEqual([...manifest.files.keys()].toSorted(), names);
  });

  test("parts of which nothing changed are copied as they are", async () => {
    const { cluster } = world();
    const { name: base } = await push({ hasDatabaseNames: false });
    await cluster.query("UPDATE hot SET t = 'changed' WHERE id < 100");
    await cluster.query("CREATE TABLE fresh AS SELECT 1 AS id");
    await cluster.query("CHECKPOINT");
    const before = world().logged.length;
    const { name: backup, baseName } = await push({ composer: "copy", hasDatabaseNames: false });
    assert.equal(baseName, undefined);
    const manifest = await manifestOf(backup);
    const source = await manifestOf(base);
    const copies = [...manifest.parts.keys()].filter((part) => part.startsWith("copy_"));
    const logged = world().logged.slice(before).join("\n");
    assert.ok(copies.length > 5, logged);
    for (const copy of copies) {
      const [path = ""] = partsOf(manifest).get(copy) ?? [];
      const original = source.files.get(path)?.part ?? "";
      assert.ok((await bytesOf(backup, copy)).equals(await bytesOf(base, original)));
    }
    for (const path of [await pathOf("hot"), await pathOf("fresh")]) {
      assert.match(manifest.files.get(path)?.part ?? "", /^part_/);
    }

    // A part that is damaged by now is packed from the cluster's files instead.
    const [damaged = ""] = copies;
    const path = join(world().repository, tarFolder(backup), damaged);
    const bytes = readFileSync(path);
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 5000) ^ 1, bytes.length - 5000);
    writeFileSync(path, bytes);

    // Copies of copies; then the newest one has to be all that the cluster is.
    await cluster.query("UPDATE hot SET t = 'again' WHERE id < 50");
    const { name: second } = await push({ composer: "copy", hasDatabaseNames: false });
    const again = [...(await manifestOf(second)).parts.keys()];
    assert.ok(again.filter((part) => part.startsWith("copy_")).length > 4);
    const told = world().logged.filter((line) => line.includes("a part can't be copied"));
    assert.equal(told.length, 1, told.join("\n"));
    assert.ok(told[0]?.includes(damaged));

    // A backup that read all files has the same bytes under the names of those that were copied.
    const { name: read } = await push({ hasDatabaseNames: false });
    const [copied, plain] = [await manifestOf(second), await manifestOf(read)];
    for (const [path, { part, hash, sizeBytes }] of copied.files) {
      if (!part.startsWith("copy_")) continue;
      const { hash: actual, sizeBytes: actualBytes } = plain.files.get(path) ?? {};
      assert.deepEqual([path, hash, sizeBytes], [path, actual, actualBytes]);
    }
    if (IS_LONG) await assertRestoresLive(world(), second, 16);
  });
});
