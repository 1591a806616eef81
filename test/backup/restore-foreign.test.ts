import assert from "node:assert/strict";
import { existsSync, lstatSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { bytesSource } from "../../src/io/bytes.ts";
import {
  controlKey,
  filesMetadataKey,
  labelKey,
  partKey,
  sentinelKey,
  tarFolder,
} from "../../src/layout/keys.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { collectingLog, restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import {
  putSyntheticBackup,
  specialEntries,
  SYNTHETIC_NAME,
  SYNTHETIC_SYSTEM_ID,
  type SyntheticEntry,
} from "../support/synthetic-backup.ts";
import { tarArchive, tarEntry } from "../support/tar-archive.ts";

const signal = AbortSignal.timeout(60_000);

async function put(storage: MemoryStorage, key: string, bytes: Uint8Array): Promise<void> {
  await storage.put(key, bytesSource(bytes), { signal });
}

function controlBytes(): Buffer {
  const [control] = specialEntries();
  assert.ok(control?.kind === "file");
  return control.content;
}

/** As WAL-G stores what a server sends: no slashes, no ends, labels among the other files. */
async function remoteBackup(): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  const control = controlBytes();
  const first = Buffer.concat([
    tarEntry({ name: "pg_tblspc/16385/PG_15_1/5/16400", content: "in a tablespace" }),
  ]);
  const second = Buffer.concat([
    tarEntry({ name: "backup_label", content: "START WAL LOCATION: 0/2000028\n" }),
    tarEntry({ name: "tablespace_map", content: "16385 /recorded\n" }),
    tarEntry({ name: "pg_wal", typeflag: "5", mode: 0o700 }),
    tarEntry({ name: "global/pg_control", content: control }),
    tarEntry({ name: "PG_VERSION", content: "15\n" }),
  ]);
  await put(storage, partKey(SYNTHETIC_NAME, 1, ""), first);
  // The last padding may be missing, too.
  await put(storage, partKey(SYNTHETIC_NAME, 2, ""), second.subarray(0, second.length - 509));
  const alone = tarEntry({ name: "global/pg_control", content: control });
  await put(storage, controlKey(SYNTHETIC_NAME, ""), alone);
  const file = '{"IsIncremented":false,"IsSkipped":false,"MTime":"2026-08-21T20:00:11Z"}';
  const names = [
    "pg_tblspc/16385/PG_15_1/5/16400",
    "backup_label",
    "tablespace_map",
    "global/pg_control",
    "PG_VERSION",
  ];
  const files = names.map((name) => `${JSON.stringify(name)}:${file}`).join(",");
  await put(storage, filesMetadataKey(SYNTHETIC_NAME), Buffer.from(`{"Files":{${files}}}`));
  const sentinel =
    `{"LSN":33554472,"PgVersion":0,"SystemIdentifier":${SYNTHETIC_SYSTEM_ID},"Version":2,` +
    '"UncompressedSize":9000,"Spec":{"16385":{"loc":"/recorded","link":"pg_tblspc/16385"},' +
    '"base_prefix":"/data","tablespaces":["16385"]}}';
  await put(storage, sentinelKey(SYNTHETIC_NAME), Buffer.from(sentinel));
  return storage;
}

test("remote backups are restored, into a private directory", async () => {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  const location = join(scratch.path, "ts");
  const log = collectingLog();
  await restoreInto(await remoteBackup(), destination, {
    tablespaces: { mappings: [{ from: "16385", to: location }] },
    log,
  });
  const found = snapshot(destination);
  assert.equal(found.get(""), "directory 0700");
  assert.equal(found.get("PG_VERSION"), "file 0600 15\n");
  assert.equal(found.get("backup_label"), "file 0600 START WAL LOCATION: 0/2000028\n");
  assert.equal(found.get("tablespace_map"), `file 0600 16385 ${location}\n`);
  assert.equal(lstatSync(join(destination, "global/pg_control")).size, 8192);
  assert.equal(snapshot(location).get("PG_15_1/5/16400"), "file 0600 in a tablespace");
  assert.deepEqual(log.lines, []);
});

test("a remote backup's archive that ends within a file is damaged", async () => {
  using scratch = scratchDirectory();
  const storage = await remoteBackup();
  const key = partKey(SYNTHETIC_NAME, 1, "");
  await put(storage, key, storage.bytesOf(key)?.subarray(0, 520) ?? Buffer.alloc(0));
  const mappings = [{ from: "16385", to: join(scratch.path, "ts") }];
  await assert.rejects(
    restoreInto(storage, join(scratch.path, "data"), { tablespaces: { mappings } }),
    { name: "DamagedError", message: /before the end of a member's content$/ },
  );
});

test("WAL-E's backups have pg_control in a part, and no label", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const name = `${SYNTHETIC_NAME}_00000040`;
  const archive = tarArchive(
    { name: "PG_VERSION", content: "9.4\n", magic: "ustar  \0" },
    { name: "global/pg_control", content: controlBytes(), magic: "ustar  \0" },
  );
  await put(storage, `${tarFolder(name)}part_00000000.tar`, archive);
  const sentinel = '{"wal_segment_backup_stop":"x","expanded_size_bytes":1,"spec":null}';
  await put(storage, sentinelKey(name), Buffer.from(sentinel));
  await restoreInto(storage, join(scratch.path, "data"), { backup: name });
  assert.equal(snapshot(join(scratch.path, "data")).get("PG_VERSION"), "file 0600 9.4\n");
  assert.equal(lstatSync(join(scratch.path, "data/global/pg_control")).size, 8192);
});

test("a method that nobody can read is named before anything is written", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: specialEntries(), style: "bare" });
  await put(storage, partKey(SYNTHETIC_NAME, 1, "lzo"), Buffer.from("x"));
  await assert.rejects(restoreInto(storage, join(scratch.path, "data")), {
    name: "RefusedError",
    message: `${partKey(SYNTHETIC_NAME, 1, "lzo")} is compressed in a way that can't be read: .lzo`,
  });
  assert.equal(existsSync(join(scratch.path, "data")), false);
});

test("objects of method none before WAL-G 3.0.9 end with a dot", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const entries: SyntheticEntry[] = [
    { kind: "file", path: "PG_VERSION", content: Buffer.from("15\n") },
    ...specialEntries(),
  ];
  await putSyntheticBackup(storage, { entries, style: "bare", method: "none", partCount: 1 });
  for (const key of [
    partKey(SYNTHETIC_NAME, 1, ""),
    controlKey(SYNTHETIC_NAME, ""),
    labelKey(SYNTHETIC_NAME, ""),
  ]) {
    await put(storage, `${key}.`, Buffer.from(storage.bytesOf(key) ?? ""));
    await storage.delete([key], { signal });
  }
  await restoreInto(storage, join(scratch.path, "data"));
  assert.equal(snapshot(join(scratch.path, "data")).get("PG_VERSION"), "file 0600 15\n");
});

test("a tablespace within the data directory needs no link", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const entries: SyntheticEntry[] = [
    { kind: "directory", path: "pg_tblspc" },
    { kind: "directory", path: "pg_tblspc/16400" },
    { kind: "file", path: "pg_tblspc/16400/PG_15_1/5/1", content: Buffer.from("x") },
    ...specialEntries(),
  ];
  await putSyntheticBackup(storage, { entries, style: "walg" });
  await restoreInto(storage, join(scratch.path, "data"));
  const found = snapshot(join(scratch.path, "data"));
  assert.equal(found.get("pg_tblspc/16400"), "directory 0700");
  assert.equal(found.get("pg_tblspc/16400/PG_15_1/5/1"), "file 0600 x");
});

test("the file list of a version 1 sentinel counts", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: specialEntries(), style: "bare" });
  const key = sentinelKey(SYNTHETIC_NAME);
  const text = storage.bytesOf(key)?.toString() ?? "";
  const files =
    '"Files":{"/x":{"MTime":"2020-01-01T00:00:00Z"}},"TarFileSets":{"part_007.tar.lz4":["/x"]}';
  await put(storage, key, Buffer.from(text.replace(/}$/, `,${files}}`)));
  await assert.rejects(restoreInto(storage, join(scratch.path, "data")), {
    name: "DamagedError",
    message: `part_007.tar.lz4 of backup ${SYNTHETIC_NAME} is missing in the repository`,
  });
});
