import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { segmentSets } from "../../src/catalogue/segment-set.ts";
import { sizeOfNames, sizesOfName } from "../../src/catalogue/segment-size.ts";
import { WalObjects } from "../../src/catalogue/wal-objects.ts";
import { untilAborted } from "../../src/io/abort.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { metadataKey, sentinelKey } from "../../src/layout/keys.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { putSyntheticBackup, specialEntries } from "../support/synthetic-backup.ts";
import { unpackWalgFixture, WALG_CASES } from "../support/walg-fixture.ts";

const signal = AbortSignal.timeout(60_000);
const MIB = 1024 * 1024;

async function put(storage: MemoryStorage, ...keys: readonly string[]): Promise<void> {
  for (const key of keys) await storage.put(key, bytesSource(Buffer.from("x")), { signal });
}

describe("WAL objects", () => {
  const names = [
    ["wal_005/000000010000000000000001", "segment", ""],
    ["wal_005/000000010000000000000001.", "segment", ""],
    ["wal_005/000000010000000000000001.00000028.backup.zst", "backup-label", "zst"],
    ["wal_005/000000010000000000000001.json", "note", ""],
    ["wal_005/000000010000000000000001.lz4", "segment", "lz4"],
    ["wal_005/000000010000000000000001.partial.br", "partial", "br"],
    ["wal_005/000000010000000000000001_delta.lz4", "delta", "lz4"],
    ["wal_005/0000000100000000000000FF.tmp", "unknown", ""],
    ["wal_005/0000000A0000000B0000000C.zst", "segment", "zst"],
  ] as const;

  test("are told apart by what follows the digits, and give their keys back", () => {
    const wal = new WalObjects();
    for (const [key] of names) assert.equal(wal.add({ key, sizeBytes: 5 }), true);
    for (const [row, [key, kind, extension]] of names.entries()) {
      assert.deepEqual(
        [wal.keyAt(row), wal.kindAt(row), wal.extensionAt(row)],
        [key, kind, extension],
      );
      assert.equal(wal.sizeAt(row), 5);
    }
    assert.deepEqual(wal.timelineRanges(), [
      { timeline: 1, start: 0, end: 8 },
      { timeline: 10, start: 8, end: 9 },
    ]);
    assert.equal(wal.segmentNumberAt(8, 16 * MIB), 0xb * 256 + 0xc);
    assert.throws(() => wal.keyAt(9), RangeError);
  });

  test("other names are not taken in", () => {
    const wal = new WalObjects();
    for (const name of ["00000002.history", "00000001000000000000000.json", "readme", "sub/x"]) {
      assert.equal(wal.add({ key: `wal_005/${name}`, sizeBytes: 1 }), false);
    }
    assert.equal(wal.add({ key: "wal_005/000000010000000000000001/x", sizeBytes: 1 }), false);
    assert.equal(wal.count, 0);
  });

  test("keep a thousand and more in order", () => {
    const wal = new WalObjects();
    for (let number = 0; number < 3000; number += 1) {
      const low = number.toString(16).toUpperCase().padStart(8, "0");
      wal.add({ key: `wal_005/0000000100000000${low}.zst`, sizeBytes: number });
    }
    assert.equal(wal.lowAt(2999), 2999);
    assert.equal(wal.sizeAt(1500), 1500);
    assert.deepEqual(segmentSets(wal, MIB).get(1)?.runs, [{ first: 0, last: 2999 }]);
    // 64 MiB: the last eight digits can't exceed 3F.
    assert.deepEqual(segmentSets(wal, 64 * MIB).get(1)?.runs, [{ first: 0, last: 63 }]);
    const odd = segmentSets(wal, MIB, (row) => row % 1000 > 0).get(1);
    assert.equal(odd?.firstMissing(1, 999), undefined);
    assert.equal(odd?.firstMissing(1, 1001), 1000);
    assert.equal(odd?.firstMissing(2000, 2001), 2000);
    assert.deepEqual(
      [0, 1, 999, 1000, 2999, 3000].map((number) => odd?.has(number)),
      [false, true, true, false, true, false],
    );
  });
});

describe("segment size", () => {
  test("follows from where a backup began and what it is called", () => {
    assert.deepEqual(sizesOfName({ startLsn: 0xf000028n, high: 0, low: 0xf }), [16 * MIB]);
    assert.deepEqual(sizesOfName({ startLsn: 0xf000028n, high: 0, low: 0xf0 }), [MIB]);
    // On the border of two, a server before 16 names the one before.
    assert.deepEqual(sizesOfName({ startLsn: 0xf000000n, high: 0, low: 0xe }), [16 * MIB]);
    assert.deepEqual(sizesOfName({ startLsn: 0xf000028n, high: 1, low: 0xf }), []);
    assert.equal(sizesOfName({ startLsn: 0x28n, high: 0, low: 0 }).length, 11);
  });

  test("is what all backups agree on", () => {
    const first = { startLsn: 0x28n, high: 0, low: 0 };
    const second = { startLsn: 0x200028n, high: 0, low: 2 };
    const other = { startLsn: 0xf000028n, high: 0, low: 0xf };
    assert.equal(sizeOfNames([]), undefined);
    assert.equal(sizeOfNames([first]), undefined);
    assert.equal(sizeOfNames([first, second]), MIB);
    assert.equal(sizeOfNames([first, second, other]), "mixed");
    // A resumed backup has the name of its first try.
    const resumed = { startLsn: 0x19000028n, high: 0, low: 0x13 };
    assert.equal(sizeOfNames([resumed]), undefined);
    assert.equal(sizeOfNames([resumed, other]), 16 * MIB);
  });
});

describe("catalogue", () => {
  test("ends every read that it begins, where only a segment tells the size", async () => {
    const storage = new MemoryStorage();
    const { first } = postgresFacts(17).segments;
    const body = bytesSource(postgresBytes(17, first));
    await storage.put(`wal_005/${first}`, body, { signal });
    const open = new Set<string>();
    const get = storage.get.bind(storage);
    storage.get = async function* (key, options) {
      open.add(key);
      try {
        yield* get(key, options);
      } finally {
        open.delete(key);
      }
    };
    const catalogue = await readCatalogue(storage, { signal });
    assert.equal(catalogue.segmentBytes, MIB);
    assert.deepEqual([...open], []);
  });

  for (const name of WALG_CASES) {
    test(`of WAL-G's own repository: ${name}`, async () => {
      await using fixture = await unpackWalgFixture(name);
      await using storage = new DirectoryStorage(fixture.repository, systemClock);
      const catalogue = await readCatalogue(storage, { signal });
      assert.equal(catalogue.segmentBytes, 16 * MIB);
      assert.deepEqual(catalogue.unknownKeys, []);
      assert.deepEqual(catalogue.unfinished, []);
      assert.ok(catalogue.backups.length > 0);
      const hasBase = catalogue.backups.map(({ baseName }) => baseName !== undefined);
      assert.deepEqual(
        hasBase,
        catalogue.backups.map((backup) => backup.name.includes("_D_")),
      );
      for (const backup of catalogue.backups) {
        assert.deepEqual(backup.problems, []);
        assert.ok((backup.finishLsn ?? 0n) > (backup.startLsn ?? 0n));
        assert.ok((backup.finishTimeNs ?? 0n) >= (backup.startTimeNs ?? 1n));
        assert.ok(backup.folder?.has("metadata.json"));
      }
      assert.equal(catalogue.histories.length, name === "timelines" ? 1 : 0);
      assert.deepEqual(
        catalogue.histories.map(({ problem }) => problem),
        catalogue.histories.map(() => undefined),
      );
    });
  }

  test("sorts what lies in a repository, and touches nothing that it does not know", async () => {
    const storage = new MemoryStorage();
    const name = "base_000000010000000000000002";
    await putSyntheticBackup(storage, { name, entries: specialEntries(), style: "bare" });
    const left = "base_000000010000000000000009_D_000000010000000000000002";
    await put(
      storage,
      `basebackups_005/${left}/tar_partitions/part_001.tar.lz4`,
      "basebackups_005/readme",
      "basebackups_005/other/file",
      "basebackups_005/foo_backup_stop_sentinel.json",
      "wal_005/00000002.history",
      "wal_005/00000001000000000000000.json",
      "wal_005/notes.txt",
      "wal_005/000000010000000000000002.zst",
      "walnut_005/gaps/000000010000000000000003.json",
      "elsewhere/file",
    );
    const catalogue = await readCatalogue(storage, { signal });
    assert.deepEqual(
      catalogue.backups.map((backup) => backup.name),
      [name],
    );
    assert.deepEqual(
      catalogue.unfinished.map(({ name, baseSegment }) => [name, baseSegment]),
      [[left, "000000010000000000000002"]],
    );
    assert.deepEqual(catalogue.unknownKeys, [
      "basebackups_005/foo_backup_stop_sentinel.json",
      "basebackups_005/other/file",
      "basebackups_005/readme",
      "wal_005/notes.txt",
    ]);
    assert.deepEqual(catalogue.noteKeys, ["wal_005/00000001000000000000000.json"]);
    assert.deepEqual(catalogue.ownKeys, ["walnut_005/gaps/000000010000000000000003.json"]);
    assert.match(catalogue.histories[0]?.problem ?? "", /^line 1 of a timeline history is not/);
    assert.equal(catalogue.wal.count, 1);
  });

  test("a backup whose metadata can't be read may be permanent; without it, it is not", async () => {
    const storage = new MemoryStorage();
    const names = ["base_000000010000000000000002", "base_000000010000000000000003"];
    for (const name of names) {
      await putSyntheticBackup(storage, { name, entries: specialEntries(), style: "bare" });
    }
    await storage.put(metadataKey(names[0] ?? ""), bytesSource(Buffer.from("{")), { signal });
    await storage.delete([metadataKey(names[1] ?? "")], { signal });
    const { backups } = await readCatalogue(storage, { signal });
    assert.deepEqual(
      backups.map(({ isPermanent, problems }) => [isPermanent, problems.length]),
      [
        [true, 1],
        [false, 0],
      ],
    );
  });

  test("reads the documents of backups while it lists the WAL", async () => {
    const document = Promise.withResolvers<void>();
    class Held extends MemoryStorage {
      override get(...args: Parameters<MemoryStorage["get"]>) {
        document.resolve();
        return super.get(...args);
      }
      override async *list(...[prefix, options]: Parameters<MemoryStorage["list"]>) {
        if (prefix === "wal_005/") await untilAborted(document.promise, options.signal);
        yield* super.list(prefix, options);
      }
    }
    const storage = new Held();
    await put(storage, sentinelKey("base_000000010000000000000002"));
    const catalogue = await readCatalogue(storage, { signal: AbortSignal.timeout(20_000) });
    assert.equal(catalogue.backups.length, 1);
  });

  test("a sentinel that can't be read is a backup still", async () => {
    const storage = new MemoryStorage();
    await put(storage, sentinelKey("base_000000010000000000000002"));
    const { backups } = await readCatalogue(storage, { signal });
    assert.deepEqual(
      backups.map(({ name, isReadable, low }) => [name, isReadable, low]),
      [["base_000000010000000000000002", false, 2]],
    );
  });
});
