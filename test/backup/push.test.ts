import assert from "node:assert/strict";
import { readFile, realpath } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { readAll } from "../../src/io/bytes.ts";
import { createHasher } from "../../src/io/hash.ts";
import { parseFilesMetadata } from "../../src/layout/files-metadata.ts";
import { parseJson } from "../../src/layout/json.ts";
import { filesMetadataKey, manifestKey, metadataKey, tarFolder } from "../../src/layout/keys.ts";
import { type ManifestLine, parseManifest } from "../../src/layout/manifest.ts";
import { parseMetadata } from "../../src/layout/metadata.ts";
import { parseTablespaceMap } from "../../src/postgres/tablespace-map.ts";
import { readTar, type TarEntry } from "../../src/tar/read.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { type Cluster, MAJORS, restoreCluster } from "../support/postgres.ts";
import { checkHeaps } from "../support/soundness.ts";

const signal = AbortSignal.timeout(600_000);

async function fill(cluster: Cluster): Promise<void> {
  const space = await cluster.makeDirectory("table space");
  await cluster.query(`CREATE TABLESPACE fast LOCATION '${space}'`);
  await cluster.query(
    `CREATE TABLE kept AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g;
     CREATE INDEX ON kept (g);
     CREATE TABLE elsewhere (id int PRIMARY KEY, t text) TABLESPACE fast;
     INSERT INTO elsewhere SELECT g, repeat('x', g % 50) FROM generate_series(1, 3000) g;
     CREATE UNLOGGED TABLE volatile AS SELECT g FROM generate_series(1, 5000) g;
     CREATE UNLOGGED TABLE volatile_fast TABLESPACE fast AS SELECT 1 AS one;
     CREATE TABLE parted (id int) PARTITION BY RANGE (id);
     CREATE TABLE part_one PARTITION OF parted FOR VALUES FROM (0) TO (10)`,
  );
}

async function readManifest(world: BackupWorld, name: string): Promise<ManifestLine[]> {
  const stored = world.storage.get(manifestKey(name), { signal });
  const plain = codecOf("zstd").decompress(stored, { jobs: 1, signal });
  return await Array.fromAsync(parseManifest(plain));
}

interface StoredEntry extends Omit<TarEntry, "content"> {
  readonly part: string;
  readonly bytes: Buffer;
}

async function readParts(world: BackupWorld, name: string): Promise<StoredEntry[]> {
  const entries: StoredEntry[] = [];
  for (const key of await world.keys(tarFolder(name))) {
    const part = key.slice(tarFolder(name).length);
    for await (const entry of readTar(world.storage.get(key, { signal }))) {
      entries.push({ ...entry, part, bytes: await readAll(entry.content()) });
    }
  }
  return entries;
}

for (const major of MAJORS) {
  test(`a backup of PostgreSQL ${major} restores every row`, async () => {
    await using world = await startBackupWorld({ major, dataDirectoryName: "my data" });
    const { cluster } = world;
    await fill(cluster);
    const before = await cluster.contents();
    const pushed = await world.push({ thresholdBytes: 4 * 1024 ** 2, partConcurrency: 2 });
    assert.ok((await world.keys(tarFolder(pushed.name))).length > 5, "several parts");

    const directory = await world.unpack(pushed.name, "restored data");
    await cluster.stop();
    await using restored = await restoreCluster(directory, {
      major,
      signal: "recovery",
      restoreCommand: `cp "${world.repository}/wal_005/%f" "%p"`,
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    await checkHeaps(restored);
    assert.equal(await restored.value("SELECT count(*) FROM volatile"), "0");
    const empty = /volatile/;
    const logged = (text: string) => text.split("\n").filter((line) => !empty.test(line));
    assert.deepEqual(logged(await restored.contents()), logged(before));
  });
}

test("the documents of a backup agree with its parts", async () => {
  await using world = await startBackupWorld({ major: 17 });
  const { cluster } = world;
  await fill(cluster);
  const userData = parseJson('{"why":"<test>","exact":1.50}');
  const progress: number[] = [];
  const pushed = await world.push({
    isPermanent: true,
    userData,
    thresholdBytes: 8 * 1024 ** 2,
    onProgress: ({ doneBytes }) => progress.push(doneBytes),
  });
  const { name } = pushed;
  const entries = await readParts(world, name);
  const files = entries.filter(({ kind }) => kind === "file");
  const lines = await readManifest(world, name);

  assert.equal(pushed.fileCount, files.length);
  assert.equal(
    pushed.contentBytes,
    files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
  );
  assert.ok((progress.at(-1) ?? 0) > 20_000_000);

  await checkManifest(world, lines, entries);
  await checkSentinel(world, pushed, { userData });
  await checkFilesMetadata(world, name, entries);
});

async function checkManifest(
  world: BackupWorld,
  lines: readonly ManifestLine[],
  entries: readonly StoredEntry[],
): Promise<void> {
  const hasher = await createHasher("xxh64");
  const described = new Map<string, string>();
  for (const line of lines) {
    if (line.kind === "header") {
      const systemId = await world.cluster.value(
        "SELECT system_identifier FROM pg_control_system()",
      );
      assert.equal(line.systemId, BigInt(systemId));
    }
    if (line.kind === "part") {
      const key = `${tarFolder(headerOf(lines).backup)}${line.name}`;
      const stored = await readAll(world.storage.get(key, { signal }));
      assert.equal(line.sizeBytes, stored.length);
      assert.equal(line.plainBytes, stored.length, "the method is none");
      assert.equal(line.xxh64, hasher.digestOf(stored));
    }
    if (line.kind === "file") {
      described.set(line.name, `${line.part} ${line.offsetBytes} ${line.sizeBytes} ${line.hash}`);
    }
    if (line.kind === "directory") described.set(line.name, `directory ${line.mode}`);
  }
  const found = entries.map((entry) => {
    const { name, part, contentStart, sizeBytes, bytes } = entry;
    if (entry.kind === "directory") return [name, `directory ${entry.mode}`] as const;
    return [name, `${part} ${contentStart} ${sizeBytes} ${hasher.digestOf(bytes)}`] as const;
  });
  assert.deepEqual(described, new Map(found));
  assert.equal(described.get("/base")?.startsWith("directory"), true);
}

function headerOf(lines: readonly ManifestLine[]) {
  const [header] = lines;
  if (header?.kind !== "header") throw new Error("no header");
  return header;
}

async function checkSentinel(
  world: BackupWorld,
  { name, startLsn, stopLsn, contentBytes, storedBytes }: Awaited<ReturnType<BackupWorld["push"]>>,
  { userData }: { readonly userData: ReturnType<typeof parseJson> },
): Promise<void> {
  const { cluster } = world;
  const sentinel = await world.sentinel(name);
  const oid = await cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'");
  const dataDirectory = await realpath(cluster.dataDirectory);
  assert.equal(
    name,
    `base_${await cluster.value(`SELECT pg_walfile_name('${lsnText(startLsn)}')`)}`,
  );
  assert.deepEqual(sentinel, {
    ...sentinel,
    startLsn,
    finishLsn: stopLsn,
    base: undefined,
    pgVersion: Number(await cluster.value("SHOW server_version_num")),
    systemId: BigInt(await cluster.value("SELECT system_identifier FROM pg_control_system()")),
    uncompressedBytes: contentBytes,
    compressedBytes: storedBytes,
    spec: {
      basePrefix: dataDirectory,
      tablespaces: [
        {
          name: oid,
          location: join(cluster.directory, "table space"),
          link: `pg_tblspc/${oid}`,
        },
      ],
    },
    userData,
    isFilesMetadataDisabled: false,
    version: 2,
    hostname: hostname(),
    dataDirectory,
    isPermanent: true,
  });
  assert.ok((sentinel.dataCatalogBytes ?? 0) > contentBytes, "the unlogged tables count, too");
  assert.ok((sentinel.finishTimeNs ?? 0n) > (sentinel.startTimeNs ?? 0n));

  const text = await readAll(world.storage.get(metadataKey(name), { signal }));
  const metadata = parseMetadata(name, text.toString());
  assert.equal(metadata.startTimeNs, sentinel.startTimeNs);
  assert.equal(metadata.finishTimeNs, sentinel.finishTimeNs);
  assert.equal(metadata.compressedBytes, storedBytes);
  assert.equal(metadata.isPermanent, true);
  assert.deepEqual(metadata.userData, userData);
}

function lsnText(position: bigint): string {
  return `${(position >> 32n).toString(16)}/${(position & 0xffff_ffffn).toString(16)}`;
}

async function checkFilesMetadata(
  world: BackupWorld,
  name: string,
  entries: readonly StoredEntry[],
): Promise<void> {
  const bytes = world.storage.get(filesMetadataKey(name), { signal });
  const items = await Array.fromAsync(parseFilesMetadata(name, bytes));
  const inFiles = items.flatMap((item) => (item.kind === "file" ? [item.name] : []));
  const own = ["/global/pg_control", "tablespace_map", "backup_label"];
  const expected = entries.map((entry) => entry.name).filter((entry) => !own.includes(entry));
  assert.deepEqual(inFiles.toSorted(), expected.toSorted());

  const members = items.flatMap((item) =>
    item.kind === "member" ? [`${item.part} ${item.name}`] : [],
  );
  const inParts = entries
    .filter((entry) => entry.name !== "/global/pg_control")
    .map((entry) => `${entry.part} ${entry.name}`);
  assert.deepEqual(members.toSorted(), inParts.toSorted());
  assert.deepEqual(members.slice(0, 2), [
    "backup_label.tar tablespace_map",
    "backup_label.tar backup_label",
  ]);

  const relations = items.flatMap((item) => (item.kind === "relation" ? [item.relation] : []));
  const parted = relations.find((relation) => relation.name === "public.parted");
  assert.deepEqual(
    parted?.descendants.map((child) => child.name),
    ["public.part_one"],
  );
  const databases = items.flatMap((item) => (item.kind === "database" ? [item.name] : []));
  assert.deepEqual(databases.toSorted(), ["postgres", "template1"]);
}

test("label files, unlogged tables and what is left out are as they should be", async () => {
  await using world = await startBackupWorld({ major: 15 });
  const { cluster } = world;
  await fill(cluster);
  const node = await cluster.value("SELECT pg_relation_filepath('volatile')");
  const { name } = await world.push();
  const entries = await readParts(world, name);
  const names = entries.map((entry) => entry.name);
  assert.equal(new Set(names).size, names.length, "no name twice");
  assert.ok(names.includes(`/${node}_init`));
  for (const absent of [
    `/${node}`,
    "/postmaster.pid",
    "/postmaster.opts",
    "/pg_stat_tmp/global.stat",
  ]) {
    assert.equal(names.includes(absent), false, absent);
  }
  assert.equal(
    names.some((entry) => entry.startsWith("/pg_wal/0")),
    false,
  );
  assert.ok(names.includes("/pg_wal") && names.includes("/pg_wal/archive_status"));

  const label = entries.find((entry) => entry.name === "backup_label");
  const map = entries.find((entry) => entry.name === "tablespace_map");
  assert.match(label?.bytes.toString() ?? "", /^START WAL LOCATION: .*\nLABEL: walnut 20/ms);
  const [location] = parseTablespaceMap(map?.bytes.toString() ?? "", 15);
  assert.equal(location?.path, join(cluster.directory, "table space"));
  const control = entries.filter((entry) => entry.name === "/global/pg_control");
  assert.deepEqual(
    control.map((entry) => [entry.part, entry.sizeBytes]),
    [["pg_control.tar", 8192]],
  );
});

test("a linked pg_wal is restored as a directory", async () => {
  const walDirectory = `/tmp/walnut-pg-wal-${process.pid}`;
  await using _removed = {
    async [Symbol.asyncDispose]() {
      const { rm } = await import("node:fs/promises");
      await rm(walDirectory, { recursive: true, force: true });
    },
  };
  await using world = await startBackupWorld({ major: 16, walDirectory });
  const { name } = await world.push();
  const entries = await readParts(world, name);
  const wal = entries.filter((entry) => entry.name.startsWith("/pg_wal"));
  assert.deepEqual(
    wal.map((entry) => `${entry.name} ${entry.kind}`),
    ["/pg_wal directory", "/pg_wal/archive_status directory"],
  );
});

test("backups without files metadata, without names, with SHA-256", async () => {
  await using world = await startBackupWorld({ major: 18 });
  const first = await world.push({ hasFilesMetadata: false, hash: "sha256" });
  assert.equal((await world.sentinel(first.name)).isFilesMetadataDisabled, true);
  assert.equal((await world.keys()).includes(filesMetadataKey(first.name)), false);
  const lines = await readManifest(world, first.name);
  const versionFile = lines.find((line) => line.kind === "file" && line.name === "/PG_VERSION");
  const text = await readFile(join(world.cluster.dataDirectory, "PG_VERSION"));
  const expected = (await createHasher("sha256")).digestOf(text);
  assert.equal(versionFile?.kind === "file" && versionFile.hash, expected);

  const second = await world.push({ hasDatabaseNames: false });
  assert.notEqual(second.name, first.name, "each backup has a name of its own");
  const bytes = world.storage.get(filesMetadataKey(second.name), { signal });
  const kinds = new Set<string>();
  for await (const item of parseFilesMetadata(second.name, bytes)) kinds.add(item.kind);
  assert.deepEqual([...kinds].toSorted(), ["file", "member"]);
});

for (const method of ["zstd", "lz4", "brotli"] as const) {
  test(`parts compressed with ${method} hold the same`, async () => {
    await using world = await startBackupWorld({ major: 14 });
    const { name } = await world.push({ codec: codecOf(method), hasDatabaseNames: false });
    const codec = codecOf(method);
    let count = 0;
    for (const key of await world.keys(tarFolder(name))) {
      assert.ok(key.endsWith(`.tar.${codec.extension}`), key);
      const stored = world.storage.get(key, { signal });
      for await (const entry of readTar(codec.decompress(stored, { jobs: 2, signal }))) {
        assert.equal((await readAll(entry.content())).length, entry.sizeBytes);
        count += 1;
      }
    }
    assert.ok(count > 900, `${count} entries`);
    const sentinel = await world.sentinel(name);
    const sizes = (await readManifest(world, name)).flatMap((line) =>
      line.kind === "part" ? [line.sizeBytes] : [],
    );
    assert.equal(
      sentinel.compressedBytes,
      sizes.reduce((sum, size) => sum + size, 0),
    );
  });
}
