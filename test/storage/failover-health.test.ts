import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { afterResult } from "../../src/storage/failover-health.ts";
import {
  formatHealth,
  parseHealth,
  readHealth,
  writeHealth,
} from "../../src/storage/failover-memory.ts";
import { FailoverWorld, HEALTH_RULES } from "../support/failover-world.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { text } from "./contract-lists.ts";

const signal = new AbortController().signal;

function results(
  status: { aliveness: number; isAlive: boolean },
  isSuccess: boolean,
  count: number,
) {
  let next = status;
  for (let round = 0; round < count; round++) next = afterResult(next, isSuccess, HEALTH_RULES);
  return next;
}

test("a store dies by the failures in a row that the numbers say, and comes back by successes", () => {
  const healthy = { aliveness: 1, isAlive: true };
  assert.ok(results(healthy, false, 8).isAlive);
  assert.ok(!results(healthy, false, 12).isAlive);
  assert.ok(results(healthy, true, 100).aliveness === 1);
  const dead = { aliveness: 0, isAlive: false };
  assert.ok(!results(dead, true, 10).isAlive);
  assert.ok(results(dead, true, 40).isAlive);
  // Between the limits it stays what it is.
  assert.ok(afterResult({ aliveness: 0.95, isAlive: true }, true, HEALTH_RULES).isAlive);
  assert.ok(!afterResult({ aliveness: 0.95, isAlive: false }, true, HEALTH_RULES).isAlive);
});

test("aliveness stays between 0 and 1 whatever happens", () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.boolean(),
      fc.boolean(),
      (a, b, c) => {
        const next = afterResult({ aliveness: a, isAlive: b }, c, HEALTH_RULES);
        assert.ok(next.aliveness >= 0 && next.aliveness <= 1);
        assert.ok(c ? next.aliveness >= a : next.aliveness <= a);
      },
    ),
  );
});

test("what is remembered comes back, and everything else is nothing", async () => {
  using scratch = scratchDirectory();
  const path = join(scratch.path, "cache", "stores.json");
  const memory = new Map([["b#1 write", { aliveness: 0.5, isAlive: false, updatedMs: 1000 }]]);
  await writeHealth(path, memory, 2000);
  assert.deepEqual(await readHealth(path, 2000), memory);
  // What another process knows more recently stays.
  const other = { aliveness: 1, isAlive: true, updatedMs: 1500 };
  await writeHealth(path, new Map([["b#1 write", other]]), 2000);
  await writeHealth(path, memory, 2000);
  assert.deepEqual(await readHealth(path, 2000), new Map([["b#1 write", other]]));
  // An entry of the future is none.
  assert.deepEqual(await readHealth(path, 1499), new Map());

  const whole = readFileSync(path, "utf8");
  for (let end = 0; end < whole.length - 1; end++) {
    writeFileSync(path, whole.slice(0, end));
    assert.deepEqual(await readHealth(path, 2000), new Map(), `cut after ${end}`);
  }
  for (const wrong of [
    "null",
    "[]",
    "3",
    '{"a":null}',
    '{"a":{"aliveness":2,"alive":true,"updated":1}}',
  ]) {
    assert.deepEqual(parseHealth(wrong, 2000), new Map(), wrong);
  }
  assert.deepEqual(await readHealth(join(scratch.path, "none"), 0), new Map());
});

test("no flipped bit of the file makes more of it than entries that can be", () => {
  const entry = { aliveness: 0.5, isAlive: false, updatedMs: 1000 };
  const whole = Buffer.from(formatHealth(new Map([["b#1 write", entry]])));
  for (let bit = 0; bit < whole.length * 8; bit++) {
    const damaged = Buffer.from(whole);
    damaged.writeUInt8(damaged.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    let memory: ReturnType<typeof parseHealth>;
    try {
      memory = parseHealth(damaged.toString(), 2000);
    } catch (error) {
      assert.ok(error instanceof SyntaxError);
      continue;
    }
    for (const { aliveness, updatedMs } of memory.values()) {
      assert.ok(aliveness >= 0 && aliveness <= 1 && updatedMs <= 2000);
    }
  }
});

test("the next process knows who is dead, until its time has come", async () => {
  using scratch = scratchDirectory();
  const clock = new SkippingClock();
  const world = new FailoverWorld();
  const options = { use: "archive", cacheDirectory: scratch.path, clock } as const;
  const put = async (key: string): Promise<number> => {
    const before = world.store(0).faulty.calls.length;
    await using storage = await world.open(options);
    await storage.put(key, text("x"), { signal });
    await storage[Symbol.asyncDispose]();
    return world.store(0).faulty.calls.length - before;
  };
  world.store(0).die();
  assert.ok((await put("wal_005/1")) > 0);
  assert.equal(await put("wal_005/2"), 0);
  await clock.advance(14 * 60_000);
  assert.equal(await put("wal_005/3"), 0);
  await clock.advance(2 * 60_000);
  // Checked beside the work, by one process only, and found dead once more.
  assert.equal(await put("wal_005/4"), 1);
  assert.equal(await put("wal_005/5"), 0);

  world.store(0).revive();
  await clock.advance(16 * 60_000);
  assert.ok((await put("wal_005/6")) > 0);
  await put("wal_005/7");
  assert.deepEqual(world.store(0).memory.keys, ["wal_005/7"]);
  const others = [1, 2, 3, 4, 5, 6].map((number) => `wal_005/${number}`);
  assert.deepEqual(world.store(1).memory.keys, others);
});

test("a cache that can't be written, or was torn, stops nothing", async () => {
  using scratch = scratchDirectory();
  const world = new FailoverWorld();
  world.store(0).die();
  const file = join(scratch.path, "file");
  writeFileSync(file, "");
  for (const cacheDirectory of [file, scratch.path]) {
    await using storage = await world.open({ use: "archive", cacheDirectory });
    await storage.put("wal_005/a", text("x"), { signal });
  }
  const [name = ""] = readdirSync(scratch.path).filter((one) => one.startsWith("stores-"));
  for (const content of ["", "{", "\0".repeat(100)]) {
    writeFileSync(join(scratch.path, name), content);
    await using storage = await world.open({ use: "archive", cacheDirectory: scratch.path });
    await storage.put("wal_005/a", text("x"), { signal });
  }
  // Half a file of a process that was killed lies where the next one writes.
  writeFileSync(join(scratch.path, name), "");
  writeFileSync(join(scratch.path, `${name}.tmp`), '{"defa');
  await using storage = await world.open({ use: "archive", cacheDirectory: scratch.path });
  await storage.put("wal_005/a", text("x"), { signal });
  await storage[Symbol.asyncDispose]();
  assert.ok(!readdirSync(scratch.path).includes(`${name}.tmp`));
});

test("a store that can be read and not written takes no puts, and is read", async () => {
  const world = new FailoverWorld();
  await world.store(0).memory.put("wal_005/a", text("old"), { signal });
  world.store(0).die(["put"]);
  await using storage = await world.open({ use: "archive" });
  await storage.put("wal_005/b", text("new"), { signal });
  assert.deepEqual(world.store(1).memory.keys, ["wal_005/b"]);
  assert.equal((await storage.stat("wal_005/a", { signal })).sizeBytes, 3);
});

test("without checks nothing is remembered, and each put tries the stores in their order", async () => {
  using scratch = scratchDirectory();
  const world = new FailoverWorld();
  world.store(0).die();
  const options = { cacheDirectory: scratch.path, health: { isChecked: false } };
  await using storage = await world.open({ use: "archive", ...options });
  for (const key of ["wal_005/a", "wal_005/b"]) await storage.put(key, text("x"), { signal });
  assert.deepEqual(world.store(1).memory.keys, ["wal_005/a", "wal_005/b"]);
  assert.equal(world.store(0).faulty.count("put"), 6);
  assert.deepEqual(readdirSync(scratch.path), []);
});

test("a check leaves nothing behind, and removes what a killed one left", async () => {
  const world = new FailoverWorld();
  const clock = new SkippingClock(Date.now() + 2 * 3_600_000);
  await world.store(0).memory.put("walnut_005/probe/00", text("left"), { signal });
  await using storage = await world.open({ use: "backup", clock });
  assert.equal(storage.name, "memory://0");
  assert.deepEqual(world.store(0).memory.keys, []);
  // A store that lets nothing be deleted can be written.
  world.store(0).die(["delete"]);
  await using again = await world.open({ use: "backup", clock });
  assert.equal(again.name, "memory://0");
});

test("a store that hangs is dead when the time of a check is over", async () => {
  const world = new FailoverWorld();
  world.store(0).faulty.fault("put", "every", { kind: "hang", isDeaf: true });
  await using storage = await world.open({ use: "backup" });
  assert.equal(storage.name, "memory://1");
});
