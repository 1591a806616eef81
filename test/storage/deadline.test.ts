import assert from "node:assert/strict";
import { test } from "node:test";
import { readAll } from "../../src/io/bytes.ts";
import { deadlineStorage } from "../../src/storage/deadline.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { overlay } from "../../src/storage/overlay.ts";
import { stallingSource } from "../support/bodies.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import type { StorageMethod } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { keysOf, putAll, text } from "./contract-lists.ts";

const signal = new AbortController().signal;

function open() {
  const memory = new MemoryStorage();
  const faulty = new FaultyStorage(memory);
  const clock = new FakeClock();
  return { memory, faulty, clock, storage: deadlineStorage(faulty, 60_000, clock) };
}

const calls: Readonly<Record<StorageMethod, [(storage: Storage) => Promise<unknown>, string]>> = {
  get: [(storage) => readAll(storage.get("a", { signal })), "get of a from memory://test"],
  put: [(storage) => storage.put("a", text("x"), { signal }), "put of a to memory://test"],
  stat: [(storage) => storage.stat("a", { signal }), "stat of a in memory://test"],
  list: [(storage) => keysOf(storage, "wal_005/"), "list of wal_005/ in memory://test"],
  delete: [
    (storage) => storage.delete(["a", "b"], { signal }),
    "delete of 2 objects in memory://test",
  ],
};
const methods: readonly StorageMethod[] = ["get", "put", "stat", "list", "delete"];

for (const method of methods) {
  for (const isDeaf of [false, true]) {
    test(`${method} ends on time on a store that ${isDeaf ? "can't be stopped" : "hangs"}`, async () => {
      const { faulty, clock, storage } = open();
      faulty.fault(method, 1, { kind: "hang", isDeaf });
      const [call, what] = calls[method];
      const outcome = assert.rejects(call(storage), {
        name: "DeadlineError",
        message: `${what} did not end within 60 s`,
        hint: /safe to try again/,
      });
      await clock.advance(60_000);
      await outcome;
    });
  }
}

test("a body that stalls ends on time too, and nothing becomes visible", async () => {
  const { memory, clock, storage } = open();
  const put = storage.put(
    "a",
    stallingSource(1000, () => {}),
    { signal },
  );
  const outcome = assert.rejects(put, { name: "DeadlineError" });
  await clock.advance(60_000);
  await outcome;
  assert.deepEqual(memory.keys, []);
});

test("calls that end in time leave no timer behind", async () => {
  const { memory, clock, storage } = open();
  await putAll(memory, ["a"]);
  for (const method of methods) await calls[method][0](storage);
  assert.equal(clock.sleeps.length, methods.length);
  assert.equal(clock.sleeperCount, 0);
});

test("what else the storage can, it can with a limit, too: copies as well", async () => {
  const { memory, faulty, clock } = open();
  const inner = overlay(memory, {
    copies: [memory, faulty],
    primary: faulty,
    isWriteOnly: true,
    readableBytes: (_key, storedBytes) => storedBytes - 7,
  });
  const storage = deadlineStorage(inner, 60_000, clock);
  const { copies, primary, isWriteOnly, name } = storage;
  assert.deepEqual([name, isWriteOnly, copies?.length], [memory.name, true, 2]);
  assert.equal(storage.readableBytes?.("a", 10), 3);
  for (const copy of [copies?.[1], primary]) {
    assert.ok(copy !== undefined);
    faulty.fault("stat", "every", { kind: "hang", isDeaf: true });
    const stat = assert.rejects(copy.stat("a", { signal }), { name: "DeadlineError" });
    await clock.advance(60_000);
    await stat;
  }
});
