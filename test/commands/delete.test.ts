import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { deleteCommand } from "../../src/commands/delete.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { COMMIT_INDEX_FOLDER, metadataKey, sentinelKey } from "../../src/layout/keys.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { runCommand } from "../support/command-run.ts";
import type { MemoryStorage } from "../support/memory-storage.ts";
import {
  FIRST_MS,
  HOUR_MS,
  listed,
  nameOf,
  range,
  repository,
  segments,
} from "../retention/one-timeline.ts";
import { segmentName } from "../retention/world.ts";

const del = (storage: Storage, ...words: readonly string[]) =>
  runCommand(deleteCommand, storage, words);

const timeOf = (segment: number): string =>
  `${new Date(FIRST_MS + segment * HOUR_MS + HOUR_MS / 2).toISOString().slice(0, 19)}Z`;

describe("delete retain", () => {
  test("without --confirm removes nothing and says what it would", async () => {
    const storage = await repository({ segment: 10 }, { segment: 20 }, { segment: 30 });
    const before = storage.keys;
    const { log, stdout } = await del(storage, "retain", "1");
    assert.deepEqual(storage.keys, before);
    assert.equal(stdout, "");
    const marked = log.filter((line) => line.startsWith("info: Object marked for deletion: "));
    assert.match(
      marked[0] ?? "",
      /basebackups_005\/base_0+1\w+_backup_stop_sentinel\.json \{"storage":"default"\}/,
    );
    assert.equal(
      log.at(-1),
      `info: Dry run: objects would be deleted count=${marked.length}, Run with --confirm to execute`,
    );
    await del(storage, "retain", "1", "--confirm");
    assert.equal(before.length - storage.keys.length, marked.length);
    assert.deepEqual(listed(storage), [30]);
    assert.deepEqual(segments(storage), range(30, 99));
  });

  test("FULL counts full backups, FIND_FULL goes on to one (delete_retain_full, _find_full)", async () => {
    const chain = [
      { segment: 10 },
      { segment: 15, base: 10 },
      { segment: 20 },
      { segment: 25, base: 20 },
      { segment: 28, base: 25 },
    ];
    const full = await repository(...chain);
    await del(full, "retain", "FULL", "1", "--confirm");
    assert.deepEqual(listed(full), [20, 25, 28]);
    const found = await repository(...chain);
    await del(found, "retain", "FIND_FULL", "2", "--confirm");
    assert.deepEqual(listed(found), [20, 25, 28]);
    const three = await repository(...chain);
    await del(three, "retain", "FIND_FULL", "4", "--confirm");
    assert.deepEqual(listed(three), [10, 15, 20, 25, 28]);
    await assert.rejects(del(full, "retain", "2"), {
      name: "RefusedError",
      message:
        /is incremental and it's predecessors cannot be deleted\. Consider FIND_FULL option\.$/,
    });
  });

  test("keeps what was taken after a time or a name (delete_retain_after)", async () => {
    for (const after of [timeOf(20), nameOf({ segment: 20 })]) {
      const storage = await repository(...[10, 20, 30, 40].map((segment) => ({ segment })));
      await del(storage, "retain", "1", "--after", after, "--confirm");
      assert.deepEqual(listed(storage), [20, 30, 40]);
    }
  });

  test("fewer backups than asked for: nothing to do, and no failure (E25 a)", async () => {
    const storage = await repository({ segment: 10 }, { segment: 20 }, { segment: 30 });
    const before = storage.keys;
    const { log } = await del(storage, "retain", "7", "--confirm");
    assert.equal(log.at(-1), "info: No backup found for deletion");
    assert.deepEqual(storage.keys, before);
  });

  test("pinned oldest, WAL-E's leftovers, unfinished backups (E25 b, c, d)", async () => {
    const numbers = [10, 20, 30, 40, 50, 60, 70, 80, 90];
    const storage = await repository(
      ...numbers.map((segment) => ({ segment, isPermanent: segment === 10 })),
      { segment: 35, isSentinelThere: false },
      { segment: 75, isSentinelThere: false },
    );
    const signal = AbortSignal.timeout(120_000);
    const wale = "basebackups_005/base_000000010000000000000005_00000040";
    for (const key of [
      `${wale}/tar_partitions/part_00000000.tar.lzo`,
      `${wale}/extended_version.txt`,
    ]) {
      await storage.put(key, bytesSource(Buffer.from("x")), { signal });
    }
    await del(storage, "retain", "7", "--confirm");
    assert.deepEqual(listed(storage), [10, 30, 40, 50, 60, 70, 80, 90]);
    assert.deepEqual(segments(storage), [10, ...range(30, 99)]);
    const left = storage.keys.filter((key) => /base_\w+(23|4B|_00000040)\//.test(key));
    assert.deepEqual(left, []);
  });

  test("WAL-E's backups count, and go, beside those of WAL-G (wale_compatibility)", async () => {
    const names = [5, 7].map((segment) => `base_${segmentName(1, segment)}_00000040`);
    const mixed = await repository({ segment: 10 });
    const signal = AbortSignal.timeout(120_000);
    for (const name of names) {
      const folder = `basebackups_005/${name}`;
      const text = `{"wal_segment_backup_stop":"${segmentName(1, 8)}","spec":null}`;
      for (const key of [
        `${folder}/tar_partitions/part_00000000.tar.lzo`,
        `${folder}/extended_version.txt`,
      ]) {
        await mixed.put(key, bytesSource(Buffer.from("x")), { signal });
      }
      await mixed.put(sentinelKey(name), bytesSource(Buffer.from(text)), { signal });
    }
    await del(mixed, "retain", "2", "--confirm");
    assert.deepEqual(listed(mixed), [7, 10]);
    await del(mixed, "retain", "1", "--confirm");
    assert.deepEqual(listed(mixed), [10]);
    assert.deepEqual(segments(mixed), range(10, 99));
    assert.ok(!mixed.keys.some((key) => key.includes("_00000040")));
  });

  test("the last backup without damaged pages stays beside newer ones that have some", async () => {
    const storage = await repository(
      { segment: 10 },
      { segment: 20 },
      { segment: 30, corruptPages: 2 },
      { segment: 40, corruptPages: 1 },
    );
    await del(storage, "retain", "2", "--confirm");
    assert.deepEqual(listed(storage), [20, 30, 40]);
    assert.deepEqual(segments(storage), range(20, 99));
  });
});

describe("delete before", () => {
  const four = [10, 20, 30, 40].map((segment) => ({ segment }));

  test("a name, the beginning of one, or a time of backup-list", async () => {
    for (const target of [nameOf({ segment: 30 }), timeOf(30), timeOf(25)]) {
      const storage = await repository(...four);
      await del(storage, "before", target, "--confirm");
      assert.deepEqual(listed(storage), [30, 40]);
      assert.deepEqual(segments(storage), range(30, 99));
    }
    const storage = await repository(...four);
    await assert.rejects(del(storage, "before", "base_nothing"), { name: "RefusedError" });
    const future = new Date(Date.now() + 24 * HOUR_MS).toISOString();
    await assert.rejects(del(storage, "before", future), { name: "UsageError" });
    await assert.rejects(del(storage, "before", "2026-13-01T00:00:00Z"), {
      name: "UsageError",
      message: 'no such time: "2026-13-01T00:00:00Z"',
    });
    await assert.rejects(del(storage, "before", "FULL", timeOf(30)), { name: "UsageError" });
  });

  test("FIND_FULL goes back to the full backup; the base of what is kept stays", async () => {
    const chain = [
      { segment: 10 },
      { segment: 20 },
      { segment: 30, base: 20 },
      { segment: 40, base: 10 },
    ];
    const storage = await repository(...chain);
    await del(storage, "before", "FIND_FULL", nameOf({ segment: 30, base: 20 }), "--confirm");
    // WAL-G would remove 10, and with it the base of 40.
    assert.deepEqual(listed(storage), [10, 20, 30, 40]);
    assert.deepEqual(segments(storage), [10, ...range(20, 99)]);
  });

  test("a permanent backup survives with its chain and its own WAL", async () => {
    const storage = await repository(
      { segment: 10 },
      { segment: 12, base: 10, isPermanent: true },
      { segment: 20 },
      { segment: 30 },
    );
    const { log } = await del(storage, "before", nameOf({ segment: 30 }), "--confirm");
    assert.deepEqual(listed(storage), [10, 12, 30]);
    assert.deepEqual(segments(storage), [10, 12, ...range(30, 99)]);
    assert.ok(log.some((line) => line.includes('"why":"base of increment base_')));
  });
});

describe("delete target", () => {
  const chain = [
    { segment: 10 },
    { segment: 20, base: 10 },
    { segment: 30, base: 20 },
    { segment: 40 },
    { segment: 50, base: 10 },
  ];

  test("removes a backup and what is based on it, and no WAL", async () => {
    const full = await repository(...chain);
    const { log } = await del(full, "target", nameOf({ segment: 10 }), "--confirm");
    assert.deepEqual(listed(full), [40]);
    assert.deepEqual(segments(full), range(1, 99));
    const marked = log.filter((line) => line.includes("marked for deletion"));
    assert.ok(marked.every((line) => /deletion: base_/.test(line)));

    const increment = await repository(...chain);
    await del(increment, "target", nameOf({ segment: 20, base: 10 }), "--confirm");
    assert.deepEqual(listed(increment), [10, 40, 50]);
    const family = await repository(...chain);
    await del(family, "target", "FIND_FULL", nameOf({ segment: 20, base: 10 }), "--confirm");
    assert.deepEqual(listed(family), [40]);
    const latest = await repository(...chain);
    await del(latest, "target", "LATEST", "--confirm");
    assert.deepEqual(listed(latest), [10, 20, 30, 40]);
  });

  test("refuses permanent ones, and names that are not there", async () => {
    const storage = await repository({ segment: 10 }, { segment: 20, base: 10, isPermanent: true });
    await assert.rejects(del(storage, "target", nameOf({ segment: 10 }), "--confirm"), {
      message: /^Unable to delete permanent backup basebackups_005\/base_/,
    });
    await assert.rejects(del(storage, "target", nameOf({ segment: 11 }), "--confirm"), {
      message: "Requested backup was not found",
    });
    assert.deepEqual(listed(storage), [10, 20]);
  });
});

describe("delete everything", () => {
  test("refuses while there are permanent backups; FORCE leaves what is not ours", async () => {
    const storage = await repository({ segment: 10, isPermanent: true }, { segment: 20 });
    const before = storage.keys;
    await assert.rejects(del(storage, "everything", "--confirm"), {
      message: `Found permanent backups=[${nameOf({ segment: 10 })}]`,
    });
    assert.deepEqual(storage.keys, before);
    await del(storage, "everything", "FORCE", "--confirm");
    assert.deepEqual(storage.keys, ["somebody/else", "wal_005/notes.txt"]);
    await del(storage, "everything", "FORCE", "--confirm");
  });

  test("names each object once, those of ours that speak of removed WAL, too", async () => {
    const storage = await repository({ segment: 10 });
    const signal = AbortSignal.timeout(120_000);
    const index = `${COMMIT_INDEX_FOLDER}${segmentName(1, 0)}.json`;
    await storage.put(index, bytesSource(Buffer.from("{}")), { signal });
    const { log } = await del(storage, "everything", "FORCE");
    const marked = log.filter((line) => line.startsWith("info: Object marked for deletion: "));
    assert.ok(marked.some((line) => line.includes(index)));
    assert.equal(new Set(marked).size, marked.length);
  });

  test("the folder of a backup that may be running stays without FORCE", async () => {
    const storage = await repository({ segment: 10 }, { segment: 90, isSentinelThere: false });
    await del(storage, "everything", "--confirm");
    assert.deepEqual(listed(storage), []);
    assert.deepEqual(segments(storage), range(90, 99));
    assert.ok(storage.keys.some((key) => key.includes(nameOf({ segment: 90 }))));
  });
});

async function littered(): Promise<MemoryStorage> {
  const storage = await repository({ segment: 10 }, { segment: 20 }, { segment: 30 });
  // As a user makes leftovers: the sentinel goes, the folder stays.
  const signal = AbortSignal.timeout(120_000);
  await storage.delete([sentinelKey(nameOf({ segment: 10 }))], { signal });
  return storage;
}

const own = (folder: string, ...numbers: readonly number[]): readonly string[] =>
  numbers.map((number) => `walnut_005/${folder}/${segmentName(1, number)}`);

describe("delete garbage", () => {
  test("names only what was asked for (delete_garbage)", async () => {
    const storage = await littered();
    const text = async (...words: readonly string[]): Promise<string> =>
      (await del(storage, "garbage", ...words)).log.join("\n");
    const archives = await text("ARCHIVES");
    assert.match(archives, /wal_005/);
    assert.doesNotMatch(archives.replaceAll("wal_005/notes.txt", ""), /basebackups_005/);
    const backups = await text("BACKUPS");
    assert.match(backups, /basebackups_005/);
    assert.doesNotMatch(backups.replaceAll("wal_005/notes.txt", ""), /wal_005/);
    const both = await text();
    assert.match(both, /basebackups_005/);
    assert.match(both, /Object marked for deletion: wal_005/);
  });

  test("removes it, and nothing that a backup needs", async () => {
    const storage = await littered();
    await del(storage, "garbage", "--confirm");
    assert.deepEqual(listed(storage), [20, 30]);
    assert.deepEqual(segments(storage), range(20, 99));
    assert.ok(!storage.keys.some((key) => key.includes(`${nameOf({ segment: 10 })}/`)));
  });

  test("what speaks of segments that go goes with them", async () => {
    const storage = await repository({ segment: 40 });
    const signal = AbortSignal.timeout(120_000);
    const keys = [
      ...own("gaps", 7, 50).map((key) => `${key}.json`),
      ...own("changes", 0, 16, 32, 48).map((key) => `${key}.zst`),
      ...own("index", 0, 64).map((key) => `${key}.json`),
      ...own("quarantine", 7).map((key) => `${key}/0123456789abcdef.zst`),
      `wal_005/${segmentName(1, 16).slice(0, 23)}.json`,
      `wal_005/${segmentName(1, 32).slice(0, 23)}.json`,
    ];
    for (const key of keys) await storage.put(key, bytesSource(Buffer.from("x")), { signal });
    await del(storage, "garbage", "--confirm");
    const gone = keys.filter((key) => !storage.keys.includes(key));
    assert.deepEqual(gone, [keys[0], keys[2], keys[3], keys[9]]);
  });

  test("without a backup that is not permanent it does nothing unless told to", async () => {
    const storage = await repository({ segment: 10, isPermanent: true });
    const before = storage.keys;
    const { log } = await del(storage, "garbage", "--confirm");
    assert.deepEqual(log.slice(-2), [
      "info: Couldn't find any non-permanent backups in storage.",
      "info: Not doing anything.",
    ]);
    assert.deepEqual(storage.keys, before);
    await del(storage, "garbage", "--without-backup-check", "--confirm");
    assert.deepEqual(segments(storage), [10]);
    assert.deepEqual(listed(storage), [10]);
  });

  test("keeps what may be a running backup, its base and its WAL", async () => {
    const storage = await repository(
      { segment: 10 },
      { segment: 80, base: 10, isSentinelThere: false },
    );
    await del(storage, "retain", "1", "--confirm");
    assert.deepEqual(listed(storage), [10]);
    assert.ok(storage.keys.some((key) => key.includes(nameOf({ segment: 80, base: 10 }))));
  });
});

test("one unreadable metadata.json may belong to a permanent backup: it stays", async () => {
  const storage = await repository({ segment: 10 }, { segment: 20 }, { segment: 30 });
  const signal = AbortSignal.timeout(120_000);
  const key = metadataKey(nameOf({ segment: 10 }));
  await storage.put(key, bytesSource(Buffer.from("{")), { signal });
  await del(storage, "retain", "1", "--confirm");
  assert.deepEqual(listed(storage), [10, 30]);
});

test("refuses a command line that is wrong, rather than guess", async () => {
  const storage = await repository({ segment: 10 });
  const lines = [
    [],
    ["retain"],
    ["retain", "0"],
    ["retain", "-1"],
    ["retain", "x"],
    ["retain", "1", "2"],
    ["before"],
    ["everything", "force"],
    ["target"],
    ["target", "FULL", "x"],
    ["garbage", "WAL"],
    ["keep", "1"],
  ];
  for (const words of lines) {
    await assert.rejects(del(storage, ...words), { name: "UsageError" }, words.join(" "));
  }
});
