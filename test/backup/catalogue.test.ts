import assert from "node:assert/strict";
import { test } from "node:test";
import { findBackup, listBackups } from "../../src/backup/catalogue.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { backupFolder, metadataKey, sentinelKey } from "../../src/layout/keys.ts";
import { parseJson } from "../../src/layout/json.ts";
import type { ListOptions } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { putSyntheticBackup, specialEntries } from "../support/synthetic-backup.ts";

const signal = AbortSignal.timeout(60_000);
const nameOf = (number: number): string =>
  `base_00000001${number.toString(16).toUpperCase().padStart(16, "0")}`;

interface Recorded {
  readonly number: number;
  readonly startS?: number;
  readonly finishS?: number;
  readonly userData?: string;
}

async function storageWith(recorded: readonly Recorded[]): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  for (const { number, startS, finishS, userData } of recorded) {
    await putSyntheticBackup(storage, {
      name: nameOf(number),
      entries: specialEntries(),
      style: "bare",
      sentinel: {
        startTimeNs: startS === undefined ? undefined : BigInt(startS) * 1_000_000_000n,
        finishTimeNs: finishS === undefined ? undefined : BigInt(finishS) * 1_000_000_000n,
        userData: userData === undefined ? undefined : parseJson(userData),
      },
    });
  }
  return storage;
}

async function put(storage: MemoryStorage, key: string, text: string): Promise<void> {
  await storage.put(key, bytesSource(Buffer.from(text)), { signal });
}

async function remove(storage: MemoryStorage, ...keys: string[]): Promise<void> {
  await storage.delete(keys, { signal });
}

test("the order is that of the recorded times, whatever was stored last (P26)", async () => {
  const recorded = [
    { number: 3, startS: 100, finishS: 400 },
    { number: 1, startS: 200, finishS: 300 },
    { number: 2, startS: 500, finishS: 500 },
  ];
  for (const order of [recorded, recorded.toReversed()]) {
    const storage = await storageWith(order);
    const entries = await listBackups(storage, { hasMetadata: false, signal });
    assert.deepEqual(
      entries.map(({ name, isTimeRecorded }) => [name, isTimeRecorded]),
      [1, 3, 2].map((number) => [nameOf(number), true]),
    );
    assert.equal(await findBackup(storage, { kind: "latest" }, { signal }), nameOf(2));
  }
});

test("equal times are ordered by name; the start counts where no end is recorded", async () => {
  const storage = await storageWith([
    { number: 2, finishS: 100 },
    { number: 1, finishS: 100 },
    { number: 3, startS: 50 },
  ]);
  await remove(storage, metadataKey(nameOf(3)));
  const entries = await listBackups(storage, { hasMetadata: false, signal });
  assert.deepEqual(
    entries.map(({ name }) => name),
    [nameOf(3), nameOf(1), nameOf(2)],
  );
});

test("the object's time counts only where nothing is recorded", async () => {
  const storage = await storageWith([{ number: 1 }, { number: 2, finishS: 4_000_000_000 }]);
  const entries = await listBackups(storage, { hasMetadata: false, signal });
  assert.deepEqual(
    entries.map(({ name, isTimeRecorded }) => [name, isTimeRecorded]),
    [
      [nameOf(1), false],
      [nameOf(2), true],
    ],
  );
});

test("documents that are missing or no documents hide nothing else", async () => {
  const storage = await storageWith([1, 2, 3].map((number) => ({ number, finishS: number })));
  await remove(storage, metadataKey(nameOf(1)));
  await put(storage, metadataKey(nameOf(2)), '{"start_time":7}');
  await put(storage, sentinelKey(nameOf(3)), "not JSON");
  const entries = await listBackups(storage, { hasMetadata: true, signal });
  assert.deepEqual(
    entries.map(({ name, sentinel, metadata, problems }) => [
      name,
      sentinel !== undefined,
      metadata !== undefined,
      problems.length,
    ]),
    [
      [nameOf(1), true, false, 1],
      [nameOf(2), true, false, 1],
      [nameOf(3), false, true, 1],
    ],
  );
  assert.match(entries[0]?.problems[0] ?? "", /metadata\.json does not exist/);
  assert.match(
    entries[1]?.problems[0] ?? "",
    /metadata\.json is damaged: start_time of metadata\.json of .* is not a string$/,
  );
  assert.match(
    entries[2]?.problems[0] ?? "",
    /_backup_stop_sentinel\.json is damaged: JSON is wrong/,
  );
});

test("a store that does not answer is no empty list", async () => {
  const storage = await storageWith([{ number: 1, finishS: 1 }]);
  storage.get = async function* () {
    yield await Promise.reject(new StorageError("gone", { isRetryable: true }));
  };
  await assert.rejects(listBackups(storage, { hasMetadata: false, signal }), { message: "gone" });
});

class CountedLists extends MemoryStorage {
  listed = 0;

  override async *list(prefix: string, options: ListOptions): ReturnType<MemoryStorage["list"]> {
    for await (const info of super.list(prefix, options)) {
      this.listed += 1;
      yield info;
    }
  }
}

test("folders with thousands of parts are passed over, and nothing beside them", async () => {
  const storage = new CountedLists();
  for (const number of [1, 2, 3]) {
    const name = nameOf(number);
    await putSyntheticBackup(storage, { name, entries: specialEntries(), style: "bare" });
    for (let part = 0; part < (number === 2 ? 5000 : 10); part += 1) {
      await put(storage, `${backupFolder(name)}tar_partitions/part_${part + 1}.tar`, "");
    }
  }
  const increment = `${nameOf(4)}_D_${nameOf(2).slice(5)}`;
  await putSyntheticBackup(storage, { name: increment, entries: specialEntries(), style: "bare" });
  const entries = await listBackups(storage, { hasMetadata: false, signal });
  assert.deepEqual(
    entries.map(({ name }) => name),
    [nameOf(1), nameOf(2), nameOf(3), increment],
  );
  assert.ok(storage.listed < 1100, `${storage.listed} listed`);
});

test("finds a backup by name and by user data; says what there is otherwise", async () => {
  const storage = await storageWith([
    { number: 1, finishS: 1, userData: '{"a":1,"b":[2]}' },
    { number: 2, finishS: 2, userData: '"twice"' },
    { number: 3, finishS: 3, userData: '"twice"' },
  ]);
  const find = (text: string) =>
    findBackup(storage, { kind: "user-data", value: parseJson(text) }, { signal });
  const one = await findBackup(storage, { kind: "name", name: nameOf(1) }, { signal });
  assert.equal(one, nameOf(1));
  assert.equal(await find('{"b":[2],"a":1}'), nameOf(1));
  await assert.rejects(find('"none"'), {
    name: "RefusedError",
    message: 'no backup in memory://test has the user data "none"',
    hint: `There are: ${nameOf(1)}, ${nameOf(2)}, ${nameOf(3)}.`,
  });
  await assert.rejects(find('"twice"'), {
    name: "RefusedError",
    message: '2 backups have the user data "twice"',
    hint: `Choose one by its name. There are: ${nameOf(2)}, ${nameOf(3)}.`,
  });
  for (const name of [nameOf(9), "nonsense", "../etc"]) {
    await assert.rejects(findBackup(storage, { kind: "name", name }, { signal }), {
      name: "RefusedError",
      message: `backup ${name} does not exist in memory://test`,
      hint: `There are: ${nameOf(1)}, ${nameOf(2)}, ${nameOf(3)}.`,
    });
  }
});

test("an empty repository has no latest backup", async () => {
  await assert.rejects(findBackup(new MemoryStorage(), { kind: "latest" }, { signal }), {
    name: "RefusedError",
    message: "there is no backup in memory://test",
  });
});
