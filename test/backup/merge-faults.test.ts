import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { listBackups } from "../../src/backup/catalogue.ts";
import { verifyRepository } from "../../src/catalogue/verify.ts";
import { DamagedError, InterruptedError, StorageError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { describeHolder } from "../../src/io/process-identity.ts";
import {
  backupFolder,
  filesMetadataKey,
  partKey,
  sentinelKey,
  tarFolder,
} from "../../src/layout/keys.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { mergeInto } from "../support/merging.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const signal = AbortSignal.timeout(300_000);
const FULL = "base_000000010000000000000003";
const MIDDLE = "base_000000010000000000000005_D_000000010000000000000003";
const NEWEST = "base_000000010000000000000007_D_000000010000000000000005";
const MERGED = "base_000000010000000000000007";

function leftIn({ keys }: MemoryStorage): readonly string[] {
  return keys.filter((key) => key.startsWith(backupFolder(MERGED)) || key === sentinelKey(MERGED));
}

describe("a merge of WAL-G's chain", () => {
  const objects = new Map<string, Buffer>();
  const expected: { files?: ReadonlyMap<string, string> } = {};
  const scratch = scratchDirectory();
  const spoolDirectory = join(scratch.path, "spool");
  const merge = async (storage: Storage, change: object = {}) =>
    await mergeInto(storage, NEWEST, { spoolDirectory, thresholdBytes: 5_000_000, ...change });

  const copyOf = async (): Promise<MemoryStorage> => {
    const storage = new MemoryStorage();
    for (const [key, bytes] of objects) {
      await storage.put(key, bytesSource(Buffer.from(bytes)), { signal });
    }
    return storage;
  };
  const assertRestores = async (storage: Storage, backup = MERGED): Promise<void> => {
    using place = scratchDirectory();
    const directory = join(place.path, "data");
    await restoreInto(storage, directory, { backup });
    const [found, wanted] = [snapshot(directory), expected.files ?? new Map<string, string>()];
    const paths = new Set([...found.keys(), ...wanted.keys()]);
    const different = [...paths].filter((path) => found.get(path) !== wanted.get(path));
    assert.deepEqual(different, []);
    assert.ok(paths.size > 300);
  };

  before(async () => {
    await using fixture = await unpackWalgFixture("lz4-chain");
    const storage = new DirectoryStorage(fixture.repository, systemClock);
    for await (const { key } of storage.list("basebackups_005/", { signal })) {
      objects.set(key, await readAll(storage.get(key, { signal })));
    }
    const directory = join(scratch.path, "chain");
    await restoreInto(storage, directory, { backup: NEWEST });
    expected.files = snapshot(directory);
  });
  after(() => scratch[Symbol.dispose]());

  test("one changed bit of the merged list of files is found by a quick verify", async () => {
    const storage = await copyOf();
    await merge(storage);
    const key = filesMetadataKey(MERGED);
    const faultsOfList = async () => {
      const { findings } = await verifyRepository(storage, {
        level: "quick",
        jobs: 2,
        codecJobs: 1,
        isRelearning: false,
        clock: systemClock,
        onProgress: () => {},
        signal,
      });
      return findings.filter(({ subject }) => subject === key).map(({ text }) => text);
    };
    assert.deepEqual(await faultsOfList(), []);
    const bytes = storage.bytesOf(key) ?? Buffer.alloc(0);
    // A digit that becomes another one: neither JSON nor our manifest tells that it is wrong.
    const place = bytes.indexOf('"UpdatesCount":') + '"UpdatesCount":'.length;
    assert.match(bytes.toString("latin1", place, place + 1), /[0-7]/);
    bytes[place] = (bytes[place] ?? 0) ^ 1;
    assert.deepEqual(await faultsOfList(), ["it does not have the hash that the sentinel says"]);
  });

  test("restores as the chain does, and is the newest backup", async () => {
    const storage = await copyOf();
    const merged = await merge(storage, { isPermanent: true });
    assert.equal(merged.name, MERGED);
    assert.ok(merged.patchedCount > 5);
    assert.ok(leftIn(storage).includes(partKey(MERGED, 2, "")), leftIn(storage).join(" "));
    const listed = await listBackups(storage, { hasMetadata: true, signal });
    const newest = listed.at(-1);
    assert.equal(newest?.name, MERGED);
    assert.equal(newest.metadata?.isPermanent, true);
    const source = listed.at(-2)?.sentinel;
    for (const name of ["startLsn", "finishLsn", "startTimeNs", "finishTimeNs"] as const) {
      assert.equal(newest.sentinel?.[name], source?.[name]);
    }
    assert.equal(newest.sentinel?.base, undefined);
    for (const name of [FULL, MIDDLE, NEWEST]) {
      await storage.delete([sentinelKey(name)], { signal });
    }
    await assertRestores(storage);
  });

  test("whatever put fails or is killed, nothing is visible, and the next run succeeds", async () => {
    const counted = { puts: 0 };
    await merge(new HookedStorage(await copyOf(), { beforePut: () => void (counted.puts += 1) }));
    assert.ok(counted.puts >= 9, `${counted.puts} puts`);
    for (let failing = 1; failing <= counted.puts; failing += 1) {
      for (const isKill of IS_LONG ? [false, true] : [failing % 2 === 0]) {
        const storage = await copyOf();
        const stop = new AbortController();
        let puts = 0;
        const failure = isKill
          ? new InterruptedError("killed")
          : new StorageError("no answer", { isRetryable: false });
        const faulty = new HookedStorage(storage, {
          beforePut: () => {
            puts += 1;
            if (puts !== failing) return;
            if (isKill) stop.abort(failure);
            throw failure;
          },
        });
        const failed = merge(faulty, isKill ? { signal: stop.signal } : {});
        await assert.rejects(failed, (error) => error === failure, `put ${failing}`);
        const left = leftIn(storage);
        assert.ok(!left.includes(sentinelKey(MERGED)));
        // Nothing is removed when the sentinel may have arrived.
        if (!isKill && failing < counted.puts) assert.deepEqual(left, [], `put ${failing}`);
        if (!IS_LONG && failing % 4 !== 0) continue;
        const again = await merge(storage, { thresholdBytes: 20_000_000 });
        assert.equal(again.name, MERGED);
        assert.ok(!leftIn(storage).includes(partKey(MERGED, 2, "")));
        if (failing === 4) await assertRestores(storage);
      }
    }
  });

  test("damage in any backup of the chain is refused, and leaves nothing", async () => {
    for (const name of [FULL, MIDDLE, NEWEST]) {
      const storage = await copyOf();
      const key = storage.keys.find(
        (one) => one.startsWith(tarFolder(name)) && one.includes("part_"),
      );
      assert.ok(key !== undefined);
      const bytes = storage.bytesOf(key) ?? Buffer.alloc(0);
      bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
      await assert.rejects(merge(storage), (error) => {
        assert.ok(error instanceof DamagedError, String(error));
        assert.match(error.message, new RegExp(`of backup ${name} is refused`));
        return true;
      });
      assert.deepEqual(leftIn(storage), []);
    }
  });

  test("a chain that is deleted meanwhile ends the merge without a sentinel", async () => {
    const storage = await copyOf();
    const deleting = new HookedStorage(storage, {
      beforePut: async (key) => {
        if (key.endsWith("metadata.json")) await storage.delete([sentinelKey(NEWEST)], { signal });
      },
    });
    await assert.rejects(merge(deleting), {
      name: "RefusedError",
      message: `backup ${NEWEST} was removed while it was merged`,
    });
    assert.deepEqual(leftIn(storage), []);
  });

  test("a merge that runs is not taken over; one that was for dead makes no sentinel", async () => {
    const storage = await copyOf();
    const other: { tried?: boolean } = {};
    const first = new HookedStorage(storage, {
      afterPut: async (key) => {
        if (key !== partKey(MERGED, 1, "") || other.tried === true) return;
        other.tried = true;
        await assert.rejects(merge(storage), {
          name: "RefusedError",
          message: /^base_.* is being made by another backup-merge/,
        });
      },
    });
    await merge(first, { holder: describeHolder() });
    assert.equal(other.tried, true);
    await assertRestores(storage);

    const taken = await copyOf();
    const late = new HookedStorage(taken, {
      afterPut: async (key) => {
        if (!key.endsWith("walnut_manifest.jsonl.zst")) return;
        const claims = taken.keys.filter((one) => one.includes("walnut_merge-"));
        await taken.delete(claims, { signal });
      },
    });
    await assert.rejects(merge(late), {
      message: /^the claim of this merge of base_.* was removed$/,
    });
    assert.ok(!taken.keys.includes(sentinelKey(MERGED)));
  });

  test("what somebody else put into the folder is seen before the sentinel", async () => {
    const storage = await copyOf();
    const stray = partKey(MERGED, 77, "");
    const disturbed = new HookedStorage(storage, {
      beforePut: async (key) => {
        if (!key.endsWith("files_metadata.json")) return;
        await storage.put(stray, bytesSource(Buffer.from("stray")), { signal });
      },
    });
    await assert.rejects(merge(disturbed), { name: "RefusedError", message: /holds .*part_077/ });
    assert.ok(!storage.keys.includes(sentinelKey(MERGED)));
  });

  test("refuses a full backup, a name that is taken, and a folder that no merge left", async () => {
    const storage = await copyOf();
    const options = { spoolDirectory };
    await assert.rejects(mergeInto(storage, FULL, options), {
      name: "RefusedError",
      message: `backup ${FULL} is a full backup: there is nothing to merge`,
    });
    const stray = partKey(MERGED, 1, "lz4");
    await storage.put(stray, bytesSource(Buffer.from("on its way")), { signal });
    await assert.rejects(merge(storage), { message: /of a backup without sentinel$/ });
    assert.deepEqual(leftIn(storage), [stray]);
    await storage.delete([stray], { signal });
    await merge(storage);
    const before = leftIn(storage);
    await assert.rejects(merge(storage), { message: /already holds .*_backup_stop_sentinel/ });
    assert.deepEqual(leftIn(storage), before);
  });

  test("a merged backup in the middle of a chain changes nothing for the rest", async () => {
    const storage = await copyOf();
    const merged = await mergeInto(storage, MIDDLE, { spoolDirectory });
    assert.equal(merged.name, "base_000000010000000000000005");
    await assertRestores(storage, NEWEST);
  });
});
