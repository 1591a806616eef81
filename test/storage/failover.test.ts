import assert from "node:assert/strict";
import { test } from "node:test";
import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../../src/errors.ts";
import { readAll } from "../../src/io/bytes.ts";
import { failingSource } from "../support/bodies.ts";
import { FailoverWorld } from "../support/failover-world.ts";
import { VERSION_ANSWERS, versionUpkeep } from "../support/version-keeping.ts";
import { keysOf, putAll, text, textOf } from "./contract-lists.ts";
import { storageContract } from "./contract.ts";
import { until } from "../support/until.ts";

const signal = new AbortController().signal;
const BACKUP = "basebackups_005/base_000000010000000000000002";
const PART = `${BACKUP}/tar_partitions/part_001.tar.zst`;
const SENTINEL = `${BACKUP}_backup_stop_sentinel.json`;

storageContract("failover", async () => {
  const storage = await new FailoverWorld().open();
  return { storage, close: async () => await storage[Symbol.asyncDispose]() };
});

test("what one store lacks is read from the next, and deleted everywhere", async () => {
  const world = new FailoverWorld(3);
  await putAll(world.store(0).memory, ["wal_005/a", "wal_005/d"]);
  await putAll(world.store(1).memory, ["wal_005/b", "wal_005/d"]);
  await putAll(world.store(2).memory, ["wal_005/c"]);
  await using storage = await world.open();
  assert.deepEqual(await keysOf(storage, ""), ["wal_005/a", "wal_005/b", "wal_005/c", "wal_005/d"]);
  const infos = await Array.fromAsync(storage.list("wal_005/", { signal }));
  assert.deepEqual(infos.at(-1)?.stores, ["default", "b"]);
  for (const key of ["wal_005/b", "wal_005/c"]) {
    assert.equal((await readAll(storage.get(key, { signal }))).length > 0, true);
    assert.equal((await storage.stat(key, { signal })).key, key);
  }
  await storage.delete(["wal_005/d", "wal_005/c"], { signal });
  assert.deepEqual(
    world.stores.map(({ memory }) => memory.keys),
    [["wal_005/a"], ["wal_005/b"], []],
  );
});

test("missing is proved by all stores; one that is away fails the call instead", async () => {
  const world = new FailoverWorld();
  await putAll(world.store(1).memory, ["wal_005/b"]);
  {
    await using storage = await world.open();
    await assert.rejects(storage.stat("wal_005/x", { signal }), ObjectNotFoundError);
    await assert.rejects(readAll(storage.get("wal_005/x", { signal })), ObjectNotFoundError);
  }
  world.store(0).die();
  await using storage = await world.open();
  assert.equal((await readAll(storage.get("wal_005/b", { signal }))).length > 0, true);
  for (const call of [
    async () => await readAll(storage.get("wal_005/x", { signal })),
    async () => await storage.stat("wal_005/x", { signal }),
    async () => await keysOf(storage, "wal_005/"),
    async () => await storage.delete(["wal_005/b"], { signal }),
  ]) {
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof StorageError, String(error));
      assert.match(error.message, /default: .*connection refused/);
      return true;
    });
  }
  // The other store did it all the same.
  assert.deepEqual(world.store(1).memory.keys, []);
});

test("a store that dies while an object is read is no end of the object", async () => {
  const world = new FailoverWorld();
  for (const { memory } of world.stores) await memory.put("wal_005/a", text("content"), { signal });
  const error = new StorageError("reset", { isRetryable: false });
  world.store(0).faulty.fault("get", 1, { kind: "fail-after", count: 3, error });
  await using storage = await world.open();
  await assert.rejects(readAll(storage.get("wal_005/a", { signal })), /reset/);
  assert.equal(await textOf(storage, "wal_005/a"), "content");
});

test("archiving goes on in the next store, and takes the dead one for empty", async () => {
  const world = new FailoverWorld();
  await putAll(world.store(0).memory, ["wal_005/old"]);
  world.store(0).die();
  await using storage = await world.open({ use: "archive" });
  await storage.put("wal_005/new", text("new"), { signal, ifAbsent: true });
  assert.deepEqual(world.store(1).memory.keys, ["wal_005/new"]);
  assert.deepEqual(await keysOf(storage, ""), ["wal_005/new"]);
  await assert.rejects(storage.stat("wal_005/old", { signal }), ObjectNotFoundError);
  // Known now: the dead store is not asked again.
  const calls = world.store(0).faulty.calls.length;
  await storage.put("wal_005/new2", text("new"), { signal, ifAbsent: true });
  await storage.delete(["wal_005/new2"], { signal });
  assert.equal(world.store(0).faulty.calls.length, calls);
});

test("with all stores dead each is tried, and each is named", async () => {
  const world = new FailoverWorld();
  for (const store of world.stores) store.die();
  await using storage = await world.open({ use: "archive" });
  for (let round = 0; round < 2; round++) {
    await assert.rejects(
      storage.put("wal_005/new", text("new"), { signal }),
      /default: .*connection refused.*; b: .*connection refused/,
    );
  }
  world.store(1).revive();
  await storage.put("wal_005/new", text("new"), { signal });
  for (const use of ["alive", "backup"] as const) {
    world.store(1).die();
    await assert.rejects(world.open({ use }), /no storage is alive: default, b/);
  }
});

test("a create-only put is lost to any store that is alive", async () => {
  const world = new FailoverWorld();
  await putAll(world.store(1).memory, ["wal_005/a"]);
  await using storage = await world.open({ use: "archive" });
  const put = () => storage.put("wal_005/a", text("other"), { signal, ifAbsent: true });
  await assert.rejects(put, ObjectExistsError);
  assert.deepEqual(world.store(0).memory.keys, []);
  world.store(1).die();
  await put();
  assert.deepEqual(world.store(0).memory.keys, ["wal_005/a"]);
});

test("a body that fails is no fault of the store, and goes nowhere else", async () => {
  const world = new FailoverWorld();
  await using storage = await world.open();
  const body = failingSource(10, new StorageError("the source broke", { isRetryable: false }));
  await assert.rejects(storage.put("wal_005/a", body, { signal }), /the source broke/);
  assert.deepEqual(
    world.stores.map(({ faulty }) => faulty.count("put")),
    [1, 0],
  );
});

test("a backup is put into one store, whatever becomes of it", async () => {
  const world = new FailoverWorld();
  await using storage = await world.open();
  await storage.put(PART, text("part"), { signal });
  world.store(0).die(["put"]);
  await assert.rejects(storage.put(SENTINEL, text("{}"), { signal }), /connection refused/);
  assert.deepEqual(world.store(1).memory.keys, []);
  // Also by a process that does not know of the first one's choice.
  await using another = await world.open();
  await assert.rejects(another.put(SENTINEL, text("{}"), { signal }), /connection refused/);
  // A new one goes to the store that is alive; what belongs to it follows, though both are alive.
  await using backup = await world.open({ use: "backup" });
  assert.equal(backup.name, "memory://1");
  world.store(0).revive();
  await backup.put(SENTINEL, text("{}"), { signal });
  assert.deepEqual(world.store(1).memory.keys, [SENTINEL]);
  const metadata = `${BACKUP}/metadata.json`;
  await (await world.open()).put(metadata, text("{}"), { signal });
  assert.deepEqual(world.store(1).memory.keys, [metadata, SENTINEL]);
});

test("a backup does without another store that dies, and never without its own", async () => {
  const world = new FailoverWorld();
  await putAll(world.store(0).memory, ["wal_005/in-its-own"]);
  await putAll(world.store(1).memory, ["wal_005/elsewhere"]);
  await using storage = await world.open({ use: "backup" });
  world.store(1).die();
  assert.deepEqual(await keysOf(storage, "wal_005/"), ["wal_005/in-its-own"]);
  await assert.rejects(textOf(storage, "wal_005/elsewhere"), ObjectNotFoundError);
  world.store(1).revive();
  // As long as a store that is the only one: whoever begins anew has lost hours.
  const attempts = world.store(0).faulty.count("get");
  world.store(0).die();
  await assert.rejects(textOf(storage, "wal_005/in-its-own"), {
    name: "StorageError",
    message: /failed in default: .*connection refused/,
  });
  assert.equal(world.store(0).faulty.count("get") - attempts, 3);
  await assert.rejects(keysOf(storage, "wal_005/"), /failed in default: /);
});

test("a backup is read from the store with its sentinel, and never mixed", async () => {
  const world = new FailoverWorld();
  const [first, second] = [world.store(0).memory, world.store(1).memory];
  // An attempt that was cut off, and the whole backup of the same name.
  await first.put(PART, text("cut off"), { signal });
  await first.put(`${BACKUP}/tar_partitions/part_009.tar.zst`, text("cut off"), { signal });
  await second.put(PART, text("whole"), { signal });
  await second.put(SENTINEL, text("{}"), { signal });
  await using storage = await world.open();
  assert.deepEqual(await keysOf(storage, ""), [PART, SENTINEL]);
  assert.deepEqual(await keysOf(storage, `${BACKUP}/`), [PART]);
  assert.equal(await textOf(storage, PART), "whole");
  assert.equal((await storage.stat(PART, { signal })).sizeBytes, 5);
  // Whoever makes the backup sees what is in its own store only, and deletes nothing else.
  world.store(1).die(["put"]);
  await using making = await world.open({ use: "backup" });
  assert.equal(await textOf(making, PART), "cut off");
  await assert.rejects(making.stat(SENTINEL, { signal }), ObjectNotFoundError);
  await making.delete([PART], { signal });
  assert.deepEqual(second.keys, [PART, SENTINEL]);
  // The store with the sentinel away: nobody knows which parts are right.
  world.store(1).die();
  await using blind = await world.open();
  await assert.rejects(textOf(blind, `${BACKUP}/tar_partitions/part_009.tar.zst`), StorageError);
});

test("of what is replaced the newer one is read, whichever store has it", async () => {
  const world = new FailoverWorld();
  const key = "wal_005/000000010000000000000003.partial.zst";
  await world.store(0).memory.put(key, text("less"), { signal });
  const storedMs = Date.now();
  await until("a later moment", () => Date.now() > storedMs);
  await world.store(1).memory.put(key, text("more of it"), { signal });
  await using storage = await world.open();
  assert.equal(await textOf(storage, key), "more of it");
  assert.equal((await storage.stat(key, { signal })).sizeBytes, 10);
  const [listed] = await Array.fromAsync(storage.list("wal_005/", { signal }));
  assert.equal(listed?.sizeBytes, 10);
  world.store(1).die();
  await assert.rejects(textOf(storage, key), StorageError);
});

test("reading without a store that does not answer is said, and asks the others only", async () => {
  const world = new FailoverWorld();
  await putAll(world.store(0).memory, ["wal_005/a"]);
  await putAll(world.store(1).memory, ["wal_005/b"]);
  world.store(0).die();
  const warnings: string[] = [];
  const log = {
    debug() {},
    info() {},
    error() {},
    warning: (line: string) => void warnings.push(line),
  };
  await using storage = await world.open({ use: "alive", log });
  assert.deepEqual(await keysOf(storage, ""), ["wal_005/b"]);
  assert.ok(
    warnings.some((line) => line.includes("what it holds is not seen")),
    warnings.join(),
  );
});

for (const [first, second, together] of VERSION_ANSWERS) {
  test(`versions of two stores (${first}, ${second}): ${together}`, async () => {
    const world = new FailoverWorld();
    world.store(0).memory.upkeep = versionUpkeep(first);
    world.store(1).memory.upkeep = versionUpkeep(second);
    await using storage = await world.open();
    assert.equal(await storage.upkeep?.keepsVersions?.({ signal }), together);
  });
}
