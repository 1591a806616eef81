import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { copyRepository } from "../../src/catalogue/copy.ts";
import type { CopyWish } from "../../src/catalogue/copy-plan.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { manifestKey, metadataKey, sentinelKey, tarFolder } from "../../src/layout/keys.ts";
import { countedStorage, noCounts } from "../../src/storage/counted.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { putSyntheticBackup, specialEntries, SYNTHETIC_NAME } from "../support/synthetic-backup.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";
import { runWalnut } from "../support/walnut.ts";
import { range } from "../retention/one-timeline.ts";
import { Reference } from "../retention/reference.ts";
import {
  objectsOf,
  segmentName,
  storageOf,
  type World,
  type WorldBackup,
} from "../retention/world.ts";

const signal = AbortSignal.timeout(60_000);
const FULL = `base_${segmentName(1, 10)}`;
const INCREMENT = `base_${segmentName(1, 20)}_D_${segmentName(1, 10)}`;
const OTHER = `base_${segmentName(1, 30)}`;

function world(holes: readonly number[] = []): World {
  const backups = [FULL, INCREMENT, OTHER].map((name, index): WorldBackup => {
    const startMs = Date.UTC(2026, 9, 1 + index);
    return {
      name,
      timeline: 1,
      segment: 10 + 10 * index,
      lastSegment: 11 + 10 * index,
      base: index === 1 ? FULL : undefined,
      startMs,
      finishMs: startMs + 1000,
      isPermanent: false,
      corruptPages: 0,
      hasControl: true,
      isSentinelThere: true,
    };
  });
  const common = { holes, hasHistory: true };
  return {
    timelines: [
      { ...common, id: 1, parent: 0, forkSegment: 1, endSegment: 50, hasHistory: false },
      { ...common, id: 2, parent: 1, forkSegment: 40, endSegment: 45 },
    ],
    backups,
  };
}

const side = (storage: Storage) => ({ stored: storage, readable: storage, isEncrypted: false });

async function copy(source: Storage, target: Storage, wish: Partial<CopyWish> = {}) {
  return await copyRepository(side(source), side(target), {
    isWithHistory: false,
    jobs: 4,
    signal,
    ...wish,
  });
}

const segments = ({ keys }: MemoryStorage): readonly string[] =>
  keys.filter((key) => /^wal_005\/\w{24}\.zst$/.test(key)).map((key) => key.slice(8, 32));

async function put(storage: MemoryStorage, key: string, text: string): Promise<void> {
  await storage.put(key, bytesSource(Buffer.from(text)), { signal });
}

describe("copy", () => {
  test("one backup comes with its chain, the WAL of each of them, and all histories", async () => {
    const source = await storageOf(objectsOf(world()));
    const target = new MemoryStorage();
    await copy(source, target, { names: [INCREMENT] });
    const there = new Reference(world(), target.keys);
    assert.deepEqual(
      there.listed.map(({ name }) => name),
      [FULL, INCREMENT],
    );
    for (const backup of there.listed) assert.ok(there.canRestore(backup));
    assert.deepEqual(
      segments(target),
      [10, 11, 20, 21].map((number) => segmentName(1, number)),
    );
    assert.ok(target.keys.includes("wal_005/00000002.history"));
    assert.ok(target.keys.includes("walnut_005/cluster.json"));
    assert.ok(!target.keys.some((key) => /notes|somebody/.test(key)));
  });

  test("with history comes everything behind it; a second run copies nothing", async () => {
    const source = await storageOf(objectsOf(world()));
    const target = new MemoryStorage();
    await copy(source, target, { names: [OTHER], isWithHistory: true });
    const numbers = Array.from({ length: 20 }, (_, index) => segmentName(1, 30 + index));
    const behind = Array.from({ length: 5 }, (_, index) => segmentName(2, 40 + index));
    assert.deepEqual(segments(target), [...numbers, ...behind]);
    assert.deepEqual(await copy(source, target, { names: [OTHER], isWithHistory: true }), {
      copied: 0,
      there: target.keys.length - 1,
    });
  });

  test("a backup that ended where its timeline was left comes with the newer one's file", async () => {
    const { timelines, backups } = world();
    const ended = backups.map((one) =>
      one.name === OTHER ? { ...one, segment: 39, lastSegment: 40 } : one,
    );
    const name = `base_${segmentName(1, 39)}`;
    const left = {
      timelines: timelines.map((one) => (one.id === 1 ? { ...one, endSegment: 40 } : one)),
      backups: ended.map((one) => (one.name === OTHER ? { ...one, name } : one)),
    };
    const source = await storageOf(objectsOf(left));
    for (const isWithHistory of [false, true]) {
      const target = new MemoryStorage();
      await copy(source, target, { names: [name], isWithHistory });
      const [backup] = new Reference(left, target.keys).listed;
      assert.ok(backup !== undefined && new Reference(left, target.keys).canRestore(backup));
      const behind = isWithHistory ? [41, 42, 43, 44] : [];
      const wanted = [segmentName(1, 39), ...[40, ...behind].map((one) => segmentName(2, one))];
      assert.deepEqual(segments(target), wanted);
    }
  });

  test("a resumed backup comes with what its name tells of gone", async () => {
    const { timelines, backups } = world(range(10, 24));
    // Named by its first try, whose WAL nothing needs any more.
    const resumed = { name: FULL, segment: 25, lastSegment: 26, base: undefined };
    const left = { timelines, backups: backups.slice(0, 1).map((one) => ({ ...one, ...resumed })) };
    const target = new MemoryStorage();
    await copy(await storageOf(objectsOf(left)), target, { isWithHistory: false });
    const there = new Reference(left, target.keys);
    assert.deepEqual(
      there.listed.map((one) => there.canRestore(one)),
      [true],
    );
    assert.deepEqual(segments(target), [segmentName(1, 25), segmentName(1, 26)]);
  });

  test("refuses a backup of which nobody knows where it ends", async () => {
    const source = await storageOf(objectsOf(world()));
    for (const key of [sentinelKey(FULL), metadataKey(FULL)]) {
      const text = source.bytesOf(key)?.toString() ?? "";
      await put(source, key, text.replace(/("(?:FinishLSN|finish_lsn)":)\d+/, "$10"));
    }
    const target = new MemoryStorage();
    await assert.rejects(copy(source, target, { names: [FULL] }), {
      name: "RefusedError",
      message: `backup ${FULL} does not record where it ends`,
    });
    assert.deepEqual(target.keys, []);
  });

  test("where its timeline was left behind its end, both files of its last segment come", async () => {
    const { timelines, backups } = world();
    const name = `base_${segmentName(1, 39)}`;
    const forked = {
      timelines,
      backups: backups.map((one) =>
        one.name === OTHER ? { ...one, name, segment: 39, lastSegment: 40 } : one,
      ),
    };
    const target = new MemoryStorage();
    // Recovery asks for timeline 2's file first: without it, it would replay what was given up.
    await copy(await storageOf(objectsOf(forked)), target, { names: [name] });
    const wanted = [segmentName(1, 39), segmentName(1, 40), segmentName(2, 40)];
    assert.deepEqual(segments(target), wanted);
    assert.deepEqual(target.keys.filter((key) => key.endsWith(".history")).length, 1);
  });

  test("refuses before anything is copied what could not be restored", async () => {
    for (const hole of [10, 11]) {
      const target = new MemoryStorage();
      await assert.rejects(copy(await storageOf(objectsOf(world([hole]))), target), {
        message: new RegExp(
          `^WAL segment ${segmentName(1, hole)}, which backup ${FULL} needs, is missing`,
        ),
      });
      assert.deepEqual(target.keys, []);
    }
    const source = await storageOf(objectsOf(world()));
    await source.delete([sentinelKey(FULL)], { signal });
    await assert.rejects(copy(source, new MemoryStorage(), { names: [INCREMENT] }), {
      message: new RegExp(
        `^backup ${INCREMENT} .* could not be restored: its base ${FULL} is missing`,
      ),
    });
  });

  test("a kill at any put leaves no backup that is listed and lost; then it goes on", async () => {
    const source = await storageOf(objectsOf(world()));
    const whole = new MemoryStorage();
    await copy(source, whole);
    for (let call = 1; call <= whole.keys.length; call += 1) {
      const target = new MemoryStorage();
      const error = new Error("killed");
      const dying = new FaultyStorage(target).fault("put", call, { kind: "fail", error });
      await assert.rejects(copy(source, dying), { message: "killed" });
      const there = new Reference(world(), target.keys);
      for (const backup of there.listed) assert.ok(there.canRestore(backup), `${call}`);
      await copy(source, target);
      assert.deepEqual(target.keys, whole.keys);
    }
  });

  test("overwrites nothing of another cluster or another backup; brings a mark", async () => {
    const source = await storageOf(objectsOf(world()));
    const foreign = new MemoryStorage();
    await put(foreign, "walnut_005/cluster.json", '{"system_identifier":5}');
    await assert.rejects(copy(source, foreign), { name: "WrongClusterError" });
    assert.equal(foreign.keys.length, 1);

    const other = new MemoryStorage();
    await put(other, `wal_005/${segmentName(1, 10)}.zst`, "something else");
    await assert.rejects(copy(source, other), { name: "ConflictError" });

    const target = new MemoryStorage();
    await copy(source, target);
    const marked = source.bytesOf(metadataKey(OTHER))?.toString().replace("false", "true") ?? "";
    await put(source, metadataKey(OTHER), marked);
    await copy(source, target);
    assert.equal(target.bytesOf(metadataKey(OTHER))?.toString(), marked);
    const changed = source.bytesOf(sentinelKey(OTHER))?.toString().replace('"h"', '"i"') ?? "";
    await put(source, sentinelKey(OTHER), changed);
    await assert.rejects(copy(source, target), { message: /is another backup of the same name$/ });
  });

  test("takes no object of the same size for the same", async () => {
    for (const tellsSums of [false, true]) {
      const source = await storageOf(objectsOf(world()));
      const target = new MemoryStorage();
      source.tellsSums = tellsSums;
      target.tellsSums = tellsSums;
      await copy(source, target);
      for (const key of target.keys.filter((one) => !/metadata|sentinel|cluster/.test(one))) {
        const bytes = target.bytesOf(key);
        if (bytes === undefined || bytes.length === 0) continue;
        bytes.writeUInt8(bytes.readUInt8(0) ^ 1, 0);
        await assert.rejects(copy(source, target), {
          name: "ConflictError",
          message: `object ${key} in memory://test has other content than the one to copy, of the same size`,
        });
        bytes.writeUInt8(bytes.readUInt8(0) ^ 1, 0);
      }
    }
  });

  test("reads nothing again where both stores tell the same sums", async () => {
    const source = await storageOf(objectsOf(world()));
    const target = new MemoryStorage();
    await copy(source, target);
    for (const tellsSums of [true, false]) {
      source.tellsSums = tellsSums;
      target.tellsSums = tellsSums;
      const counts = noCounts();
      await copy(source, countedStorage(target, counts));
      // Whose cluster it is, and the documents of three backups that may be others.
      assert.equal(counts.get === 1 + 2 * 3, tellsSums, `${counts.get} reads`);
    }
  });

  test("one wrong bit in a part of ours is found on the way", async () => {
    const source = new MemoryStorage();
    await putSyntheticBackup(source, { entries: specialEntries() });
    await source.put("wal_005/000000010000000000000002.zst", bytesSource(Buffer.from("x")), {
      signal,
    });
    assert.ok(source.keys.includes(manifestKey(SYNTHETIC_NAME)));
    const good = new MemoryStorage();
    await copy(source, good);
    const part = source.keys.find((key) => key.startsWith(tarFolder(SYNTHETIC_NAME))) ?? "";
    const bytes = source.bytesOf(part);
    bytes?.writeUInt8(bytes.readUInt8(20) ^ 4, 20);
    const target = new MemoryStorage();
    await assert.rejects(copy(source, target), {
      name: "DamagedError",
      message: new RegExp(`^object ${part} in .* is not what its manifest says$`),
    });
    assert.ok(!target.keys.includes(part));
    assert.ok(!target.keys.includes(sentinelKey(SYNTHETIC_NAME)));
  });
});

test("WAL-G's repository by the command, with two configurations (copy_all, copy_backup)", async (t) => {
  await using fixture = await unpackWalgFixture("lz4-chain");
  const root = mkdtempSync(join(tmpdir(), "walnut-copy-"));
  t.after(() => rmSync(root, { recursive: true }));
  const configure = (name: string, path: string, more: Record<string, string> = {}): string => {
    mkdirSync(path, { recursive: true });
    const file = join(root, `${name}.json`);
    writeFileSync(file, JSON.stringify({ WALG_FILE_PREFIX: path, ...more }));
    return file;
  };
  const from = configure("from", fixture.repository);
  const to = configure("to", join(root, "all"));
  const result = await runWalnut(["copy", "--from", from, "--to", to]);
  assert.equal(result.code, 0, result.stderr);
  assert.match(result.stderr, /Success copy\./);
  assert.doesNotMatch(result.stderr, /WARNING/);
  const lists = await Promise.all(
    [from, to].map((config) => runWalnut(["backup-list", "--config", config, "--detail"])),
  );
  assert.equal(lists[1]?.stdout, lists[0]?.stdout);
  assert.ok((lists[0]?.stdout.split("\n").length ?? 0) > 2);

  const key = { WALG_LIBSODIUM_KEY: "0".repeat(64), WALG_LIBSODIUM_KEY_TRANSFORM: "hex" };
  const one = configure("one", join(root, "one"), key);
  const latest = await runWalnut(["copy", "-f", from, "-t", one, "-b", "LATEST", "-w"]);
  assert.equal(latest.code, 0, latest.stderr);
  assert.match(latest.stderr, /WARNING: .* the copies stay unencrypted/);
  const target = new DirectoryStorage(join(root, "one"), systemClock);
  const keys: string[] = [];
  for await (const { key } of target.list("basebackups_005/", { signal })) keys.push(key);
  assert.ok(keys.some((key) => key.includes("_D_") && key.endsWith("sentinel.json")));
  const same = await runWalnut(["copy", "-f", from, "-t", from]);
  assert.equal(same.code, 2);
});
