import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { catchUp } from "../../src/storage/mirror-catch-up.ts";
import { silentLog } from "../../src/io/log.ts";
import type { MirrorPolicy } from "../../src/storage/mirrored.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { contentOf, killWriters, mirroredStorage, mirrorQueue } from "../support/mirror.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { VERSION_ANSWERS, versionUpkeep } from "../support/version-keeping.ts";
import { keysOf, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const gone = new StorageError("connection refused", { isRetryable: false });
const fail = { kind: "fail", error: gone } as const;
const POLICIES = ["primary", "all"] as const;

/** Stores in memory that can be made to fail, and the queue between them. */
function makeWorld(policy: MirrorPolicy = "primary", options: { notesMax?: number } = {}) {
  const scratch = scratchDirectory();
  const directory = join(scratch.path, "queue");
  const [primaryObjects, mirrorObjects] = [new MemoryStorage(), new MemoryStorage()];
  const primary = new FaultyStorage(primaryObjects);
  const mirror = new FaultyStorage(mirrorObjects);
  const open = (more: { isReader?: boolean } = {}) =>
    mirroredStorage({ primary, mirror, directory, policy, ...options, ...more });
  return {
    primary,
    mirror,
    primaryObjects,
    mirrorObjects,
    directory,
    open,
    notes: async () => (await mirrorQueue(directory).status()).notes,
    /** As a process does that comes later. */
    catchUp: (clock = systemClock) =>
      catchUp(
        { primary: primaryObjects, mirror: mirrorObjects },
        mirrorQueue(directory, { clock }),
        { clock, log: silentLog, signal },
      ),
    async assertEqual() {
      assert.deepEqual(await contentOf(mirrorObjects), await contentOf(primaryObjects));
    },
    [Symbol.dispose]: () => scratch[Symbol.dispose](),
  };
}

for (const policy of POLICIES) {
  test(`${policy}: what was put and deleted is in both, and no note stays`, async () => {
    using world = makeWorld(policy);
    await using storage = world.open();
    await storage.put("a/one", text("1"), { signal, ifAbsent: true });
    await storage.put("a/two", text("2"), { signal });
    await storage.put("a/one", text("new"), { signal });
    await storage.delete(["a/two"], { signal });
    await storage[Symbol.asyncDispose]();
    await world.assertEqual();
    assert.deepEqual(world.mirrorObjects.keys, ["a/one"]);
    assert.equal(await world.notes(), 0);
  });
}

test("primary: a mirror that is away costs nothing and is caught up later", async () => {
  using world = makeWorld();
  world.mirror.fault("put", "every", fail);
  world.mirror.fault("delete", "every", fail);
  const storage = world.open();
  for (const key of ["a", "b", "c"]) await storage.put(key, text(key), { signal });
  await storage.delete(["b"], { signal });
  await storage[Symbol.asyncDispose]();
  assert.deepEqual(world.mirrorObjects.keys, []);
  const status = await mirrorQueue(world.directory).status();
  assert.equal(status.notes, 4);
  assert.equal(status.away?.message, "connection refused");
  assert.ok((status.oldestAt ?? Infinity) <= Date.now());

  assert.deepEqual(await world.catchUp(), { copied: 2, removed: 2, failure: undefined });
  await world.assertEqual();
  assert.equal(await world.notes(), 0);
});

test("all: a mirror that is away fails the put, and the next one brings it there", async () => {
  using world = makeWorld("all");
  let isAway = true;
  world.mirror.fault("put", "every", {
    kind: "before",
    run: () => {
      if (isAway) throw gone;
    },
  });
  await using storage = world.open();
  const put = () => storage.put("a", text("x"), { signal, ifAbsent: true });
  const refusal = {
    name: "StorageError",
    message: "mirror memory://test did not take it: connection refused",
  };
  await assert.rejects(put(), refusal);
  assert.equal(await textOf(world.primaryObjects, "a"), "x");
  // The caller may take "it exists" for an acknowledgement.
  await assert.rejects(put(), refusal);
  isAway = false;
  await assert.rejects(put(), { name: "ObjectExistsError" });
  await world.assertEqual();
});

for (const policy of POLICIES) {
  test(`${policy}: a create-only put that loses brings the winner's object to the mirror`, async () => {
    using world = makeWorld(policy);
    await world.primaryObjects.put("a", text("winner"), { signal });
    const storage = world.open();
    const put = storage.put("a", text("loser"), { signal, ifAbsent: true });
    await assert.rejects(put, { name: "ObjectExistsError" });
    await storage[Symbol.asyncDispose]();
    assert.equal(await textOf(world.mirrorObjects, "a"), "winner");
    assert.equal(await world.notes(), 0);
  });

  test(`${policy}: a create-only put that loses leaves what a mirror has`, async () => {
    using world = makeWorld(policy);
    await world.primaryObjects.put("a", text("cut"), { signal });
    await world.mirrorObjects.put("a", text("cut off, and here it is whole"), { signal });
    const storage = world.open();
    const put = storage.put("a", text("cut off, and"), { signal, ifAbsent: true });
    await assert.rejects(put, { name: "ObjectExistsError" });
    await storage[Symbol.asyncDispose]();
    assert.equal(await textOf(world.mirrorObjects, "a"), "cut off, and here it is whole");
  });
}

test("an error of the primary's leaves a note, because it may have done it", async () => {
  using world = makeWorld();
  world.primary.fault("put", 1, { kind: "lose-answer", error: gone });
  const storage = world.open();
  await assert.rejects(storage.put("a", text("x"), { signal }), { message: "connection refused" });
  await storage[Symbol.asyncDispose]();
  assert.deepEqual(
    (await readdir(world.directory)).map((name) => name.split(".")[1]),
    ["unsure"],
  );
  assert.equal((await world.catchUp()).copied, 1);
  await world.assertEqual();
  // A request may still be on its way.
  assert.equal(await world.notes(), 1);
  await world.catchUp({ ...systemClock, now: () => Date.now() + 61_000 });
  assert.equal(await world.notes(), 0);
});

for (const isDone of [false, true]) {
  test(`a writer killed ${isDone ? "after" : "before"} the primary did it`, async () => {
    using world = makeWorld();
    await world.primaryObjects.put("a", text("old"), { signal });
    await world.mirrorObjects.put("a", text("old"), { signal });
    const reached = Promise.withResolvers<void>();
    const never = new Promise<never>(() => {});
    world.primary.fault("put", 1, {
      kind: "before",
      run: async () => {
        if (isDone) await world.primaryObjects.put("a", text("new"), { signal });
        reached.resolve();
        await never;
      },
    });
    const storage = world.open();
    void storage.put("a", text("new"), { signal });
    await reached.promise;
    // It lives: whatever it does next, it says so.
    assert.equal((await world.catchUp()).copied, 0);
    await killWriters(world.directory);
    await world.catchUp();
    await world.assertEqual();
    assert.equal(await textOf(world.mirrorObjects, "a"), isDone ? "new" : "old");
  });
}

test("a mirror never answers for what a note names", async () => {
  using world = makeWorld();
  world.mirror.fault("put", "every", fail).fault("delete", "every", fail);
  for (const key of ["gone", "changed", "kept"]) {
    await world.primaryObjects.put(key, text("old"), { signal });
    await world.mirrorObjects.put(key, text("old"), { signal });
  }
  await using storage = world.open();
  await storage.delete(["gone", "another"], { signal });
  await storage.put("changed", text("new"), { signal });
  await assert.rejects(textOf(storage, "gone"), { name: "ObjectNotFoundError" });
  await assert.rejects(storage.stat("gone", { signal }), { name: "ObjectNotFoundError" });
  assert.deepEqual(await keysOf(storage, ""), ["changed", "kept"]);

  world.primary.fault("get", "every", fail);
  await assert.rejects(textOf(storage, "changed"), { message: "connection refused" });
  assert.equal(await textOf(storage, "kept"), "old");
});

test("reads go on where the primary lacks an object, fails, or breaks off", async () => {
  using world = makeWorld();
  const { primaryObjects, mirrorObjects, primary } = world;
  await using storage = world.open();
  await mirrorObjects.put("only", text("in the mirror"), { signal });
  for (const store of [primaryObjects, mirrorObjects]) {
    await store.put("both", text("0123456789"), { signal });
  }
  assert.equal(await textOf(storage, "only"), "in the mirror");
  assert.equal((await storage.stat("only", { signal })).sizeBytes, 13);
  assert.deepEqual(await keysOf(storage, ""), ["both", "only"]);

  primary.fault("get", 2, { kind: "fail-after", count: 4, error: gone });
  assert.equal(await textOf(storage, "both", 1, 9), "12345678");
  primary.fault("stat", 2, fail);
  assert.equal((await storage.stat("both", { signal })).sizeBytes, 10);
});

test("a get that breaks off does not go on in an object of another size", async () => {
  using world = makeWorld();
  await using storage = world.open();
  await world.primaryObjects.put("a", text("0123456789"), { signal });
  await world.mirrorObjects.put("a", text("abc"), { signal });
  world.primary.fault("get", "every", { kind: "fail-after", count: 4, error: gone });
  await assert.rejects(textOf(storage, "a"), { message: "connection refused" });
});

test("missing is what the primary says", async () => {
  using world = makeWorld();
  await using storage = world.open();
  world.mirror.fault("get", "every", fail).fault("stat", "every", fail);
  await assert.rejects(textOf(storage, "a"), { name: "ObjectNotFoundError" });
  await assert.rejects(storage.stat("a", { signal }), { name: "ObjectNotFoundError" });
  world.primary.fault("get", "every", fail).fault("stat", "every", fail);
  await assert.rejects(textOf(storage, "a"), { message: "connection refused" });
  await assert.rejects(storage.stat("a", { signal }), { message: "connection refused" });
});

const unlisted: readonly [
  failing: "primary" | "mirror",
  isReader: boolean,
  keys: string[] | "error",
][] = [
  ["mirror", false, ["a", "p"]],
  ["mirror", true, ["a", "p"]],
  ["primary", true, ["a", "m"]],
  ["primary", false, "error"],
];
for (const [failing, isReader, keys] of unlisted) {
  test(`a list without the ${failing}, ${isReader ? "to read" : "to decide by it"}`, async () => {
    using world = makeWorld();
    await using storage = world.open({ isReader });
    for (const key of ["a", "p"]) await world.primaryObjects.put(key, text(key), { signal });
    for (const key of ["a", "m"]) await world.mirrorObjects.put(key, text(key), { signal });
    world[failing].fault("list", "every", fail);
    if (keys === "error") await assert.rejects(keysOf(storage, ""), /connection refused/);
    else assert.deepEqual(await keysOf(storage, ""), keys);
    // Who takes a missing key for a proof is told, also when it is not asked again at once.
    for (let round = 1; round <= 2; round++) {
      const told: unknown[] = [];
      const onUnanswered = (error: unknown) => void told.push(error);
      await Array.fromAsync(storage.list("", { signal, onUnanswered }));
      assert.deepEqual(told, [gone]);
    }
  });
}

test("too many notes become a comparison of everything", async () => {
  using world = makeWorld("primary", { notesMax: 2 });
  world.mirror.fault("put", "every", fail).fault("delete", "every", fail);
  const storage = world.open();
  await world.primaryObjects.put("deleted", text("x"), { signal });
  await world.mirrorObjects.put("deleted", text("x"), { signal });
  await world.mirrorObjects.put("own", text("the last copy"), { signal });
  for (const key of ["a", "b", "c", "d"]) await storage.put(key, text(key), { signal });
  await storage.delete(["deleted"], { signal });
  await storage.put("c", text("C"), { signal });
  await storage[Symbol.asyncDispose]();
  const status = await mirrorQueue(world.directory).status();
  assert.equal(status.isOverflowing, true);
  assert.ok(status.notes <= 4, `${status.notes} notes`);
  await world.catchUp();
  assert.deepEqual(world.mirrorObjects.keys, ["a", "b", "c", "d", "own"]);
  assert.equal(await textOf(world.mirrorObjects, "c"), "C");
  const after = await mirrorQueue(world.directory).status();
  assert.deepEqual([after.notes, after.isOverflowing], [0, false]);
});

test("where no note can be written, the mirror has to take it at once", async () => {
  using world = makeWorld();
  await writeFile(world.directory, "a file in the place of the queue");
  await using storage = world.open();
  await storage.put("a", text("x"), { signal });
  await world.assertEqual();
  world.mirror.fault("put", "every", fail);
  await assert.rejects(storage.put("b", text("x"), { signal }), /did not take it/);
});

test("a copy does not bring back what was deleted meanwhile", async () => {
  using world = makeWorld();
  const { primaryObjects, mirrorObjects, directory } = world;
  const note = await mirrorQueue(directory).begin("create", ["a"], { signal });
  await note.acknowledge();
  await primaryObjects.put("a", text("x"), { signal });
  const mirror = new FaultyStorage(mirrorObjects).fault("put", 1, {
    kind: "before",
    run: async () => {
      await primaryObjects.delete(["a"], { signal });
      await primaryObjects.put("a", text("again"), { signal });
    },
  });
  mirror.fault("put", 2, {
    kind: "before",
    run: () => primaryObjects.delete(["a"], { signal }),
  });
  const options = { clock: systemClock, log: silentLog, signal };
  await catchUp({ primary: primaryObjects, mirror }, mirrorQueue(directory), options);
  assert.deepEqual(mirrorObjects.keys, []);
});

test("only one process at a time works a queue off", async () => {
  using world = makeWorld();
  const queue = mirrorQueue(world.directory);
  const release = await queue.lock();
  assert.ok(release !== undefined);
  assert.equal(await mirrorQueue(world.directory).lock(), undefined);
  await release();
  // Of a process that is gone.
  await writeFile(join(world.directory, "lock"), "1:1:another-boot 00");
  assert.ok((await queue.lock()) !== undefined);
});

for (const [first, second, together] of VERSION_ANSWERS) {
  test(`versions of a primary (${first}) and its mirror (${second}): ${together}`, async () => {
    using world = makeWorld();
    world.primaryObjects.upkeep = versionUpkeep(first);
    world.mirrorObjects.upkeep = versionUpkeep(second);
    await using storage = world.open();
    assert.equal(await storage.upkeep?.keepsVersions?.({ signal }), together);
  });
}
