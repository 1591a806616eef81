import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { StorageAccessError, StorageError } from "../../src/errors.ts";
import { readAll } from "../../src/io/bytes.ts";
import { overlay } from "../../src/storage/overlay.ts";
import { RetryingStorage } from "../../src/storage/retrying.ts";
import type { OpenedObject } from "../../src/storage/storage.ts";
import { patternBytes, patternSource } from "../support/bodies.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import type { StorageMethod } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { keysOf, putAll, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const cut = new StorageError("connection cut", { isRetryable: true });
const policy = { attempts: 4, baseMs: 100, capMs: 1000, totalMs: 60_000 };

function open() {
  const memory = new MemoryStorage();
  const faulty = new FaultyStorage(memory);
  const clock = new SkippingClock();
  const storage = new RetryingStorage(faulty, policy, { clock, random: () => 0.5 });
  return { memory, faulty, storage };
}

const calls: Readonly<Record<StorageMethod, (storage: RetryingStorage) => Promise<unknown>>> = {
  get: (storage) => textOf(storage, "a"),
  put: (storage) => storage.put("b", text("x"), { signal }),
  stat: (storage) => storage.stat("a", { signal }),
  list: (storage) => keysOf(storage, ""),
  delete: (storage) => storage.delete(["a"], { signal }),
};
const methods: readonly StorageMethod[] = ["get", "put", "stat", "list", "delete"];

for (const method of methods) {
  test(`${method} is repeated after passing failures, until the policy is used up`, async () => {
    const { memory, faulty, storage } = open();
    await putAll(memory, ["a"]);
    faulty.fault(method, 1, { kind: "fail", error: cut });
    faulty.fault(method, 2, { kind: "lose-answer", error: cut });
    await calls[method](storage);
    assert.equal(faulty.count(method), method === "get" ? 2 : 3);

    faulty.fault(method, "every", { kind: "fail", error: cut });
    await assert.rejects(calls[method](storage), {
      message: /^connection cut \(gave up after 4 attempts in 0\.[0-9] s\)$/,
      isRetryable: false,
    });
  });

  test(`${method} is not repeated when the store refuses`, async () => {
    const { memory, faulty, storage } = open();
    await putAll(memory, ["a"]);
    const refusal = new StorageAccessError("credentials expired");
    faulty.fault(method, 1, { kind: "fail", error: refusal });
    await assert.rejects(calls[method](storage), (error) => error === refusal);
    assert.equal(faulty.count(method), 1);
  });
}

test("a get that is cut again and again goes on where it was and gives each byte once", async () => {
  // Before some cuts a failure without any byte: only progress keeps the call going so long.
  const cuts = fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 1, max: 900_000 })), {
    maxLength: 8,
  });
  const bound = fc.nat(3_500_000);
  await fc.assert(
    fc.asyncProperty(fc.nat(3_000_000), cuts, bound, bound, async (sizeBytes, cuts, one, other) => {
      const { memory, faulty, storage } = open();
      await memory.put("a", patternSource(sizeBytes), { signal });
      const counts = cuts.flatMap(([isFailedFirst, count]) =>
        isFailedFirst ? [0, count] : [count],
      );
      for (const [index, count] of counts.entries()) {
        faulty.fault("get", index + 1, { kind: "fail-after", count, error: cut });
      }
      const range = { start: Math.min(one, other), end: Math.max(one, other) };
      const opened: OpenedObject[] = [];
      const onOpened = (object: OpenedObject) => opened.push(object);
      const received = await readAll(storage.get("a", { signal, range, onOpened }));
      assert.ok(received.equals(patternBytes(sizeBytes).subarray(range.start, range.end)));
      assert.deepEqual(
        opened.map((object) => object.sizeBytes),
        [sizeBytes],
      );
    }),
    { numRuns: 100 },
  );
});

test("a get does not go on in an object that was written again meanwhile", async () => {
  for (const other of [patternSource(3_000_000, 2), patternSource(2_999_999)]) {
    const { memory, faulty, storage } = open();
    await memory.put("a", patternSource(3_000_000), { signal });
    faulty.fault("get", 1, { kind: "fail-after", count: 2_000_000, error: cut });
    const run = () => memory.put("a", other, { signal });
    faulty.fault("get", 2, { kind: "before", run });
    await assert.rejects(readAll(storage.get("a", { signal })), /was changed/);
  }
});

test("a get whose first bytes never came takes whatever object is there then", async () => {
  const { memory, faulty, storage } = open();
  await memory.put("a", text("old"), { signal });
  faulty.fault("get", 1, { kind: "fail-after", count: 0, error: cut });
  faulty.fault("get", 2, { kind: "before", run: () => memory.put("a", text("newer"), { signal }) });
  assert.equal(await textOf(storage, "a"), "newer");
});

test("a store that tells no version is still held to the size", async () => {
  const { memory } = open();
  const silent = new Proxy(memory, {
    get: (target, name) =>
      name === "get"
        ? (key: string, options: Parameters<MemoryStorage["get"]>[1]) => {
            const { ifVersion: _, onOpened, ...rest } = options;
            return target.get(key, {
              ...rest,
              onOpened: ({ sizeBytes }) => onOpened?.({ sizeBytes }),
            });
          }
        : Reflect.get(target, name),
  });
  const faulty = new FaultyStorage(silent);
  const clock = new SkippingClock();
  const storage = new RetryingStorage(faulty, policy, { clock, random: () => 0 });
  await memory.put("a", patternSource(3_000_000), { signal });
  faulty.fault("get", 1, { kind: "fail-after", count: 2_000_000, error: cut });
  const run = () => memory.put("a", patternSource(2_500_000), { signal });
  faulty.fault("get", 2, { kind: "before", run });
  await assert.rejects(readAll(storage.get("a", { signal })), /3000000 bytes before, 2500000 now/);
});

test("a list that is cut goes on behind the last key", async () => {
  const { memory, faulty, storage } = open();
  const keys = Array.from({ length: 30 }, (_, index) => `k${String(index).padStart(2, "0")}`);
  await putAll(memory, keys);
  for (let call = 1; call <= 12; call++) {
    faulty.fault("list", call, { kind: "fail-after", count: call % 3, error: cut });
  }
  assert.deepEqual(await keysOf(storage, "k", { startAfter: "k04" }), keys.slice(5));
});

test("a key that is changed on its way is asked for again, where its place can show it", async () => {
  const keys = ["w/03", "w/05", "w/07", "w/09"];
  const seen = { caught: 0, hidden: 0 };
  const places = fc.record({
    index: fc.nat(keys.length - 1),
    at: fc.nat(3),
    bit: fc.nat(6),
    startAfter: fc.option(fc.constantFrom("w/03", "w/04"), { nil: undefined }),
  });
  await fc.assert(
    fc.asyncProperty(places, async ({ index, at, bit, startAfter }) => {
      const { memory } = open();
      await putAll(memory, keys);
      const wanted = keys.filter((key) => startAfter === undefined || key > startAfter);
      const changed = Buffer.from(keys[index] ?? "");
      changed.writeUInt8(changed.readUInt8(at) ^ (1 << bit), at);
      let calls = 0;
      const bad = overlay(memory, {
        async *list(prefix, options) {
          calls += 1;
          for await (const info of memory.list(prefix, options)) {
            const isHit = calls === 1 && info.key === keys[index];
            yield isHit ? { ...info, key: changed.toString() } : info;
          }
        },
      });
      const clock = new SkippingClock();
      const storage = new RetryingStorage(bad, policy, { clock, random: () => 0 });
      const listed = await keysOf(storage, "w/", startAfter === undefined ? {} : { startAfter });
      const hidden = wanted.map((key) => (key === keys[index] ? changed.toString() : key));
      // In its place among the others it looks like any key.
      const lower = startAfter ?? "w/";
      const isHidden = hidden.every(
        (key, place) => key.startsWith("w/") && key > (hidden[place - 1] ?? lower),
      );
      assert.deepEqual(listed, isHidden ? hidden : wanted);
      assert.equal(calls, isHidden ? 1 : 2);
      seen[isHidden ? "hidden" : "caught"] += 1;
    }),
    { numRuns: 200 },
  );
  assert.ok(seen.caught > 50 && seen.hidden > 0, JSON.stringify(seen));
});

test("keys that come out wrong again are the store's own: refused, in plain words", async () => {
  const { memory } = open();
  await putAll(memory, ["a/1", "b/1"]);
  for (const [prefix, listed, message] of [
    ["a/", "", /lists "b\/1" where keys were asked for that begin with "a\/"$/],
    ["", "a/", /lists "a\/1", which is not in byte order, after "a\/1"$/],
  ] as const) {
    const clock = new SkippingClock();
    const bad = overlay(memory, {
      async *list(_prefix, options) {
        yield* memory.list(listed, options);
        yield* memory.list(listed, options);
      },
    });
    const storage = new RetryingStorage(bad, policy, { clock, random: () => 0 });
    await assert.rejects(keysOf(storage, prefix), { name: "StorageError", message });
    assert.equal(clock.sleeps.length, 1);
  }
});

test("a body that can be opened once is sent once", async () => {
  const { faulty, storage } = open();
  faulty.fault("put", 1, { kind: "fail", error: cut });
  const once = { ...patternSource(10), isReopenable: false };
  await assert.rejects(storage.put("a", once, { signal }), (error) => error === cut);
  assert.equal(faulty.count("put"), 1);
});

test("a create-only put whose answer was lost finds its own object", async () => {
  const { memory, faulty, storage } = open();
  faulty.fault("put", 1, { kind: "lose-answer", error: cut });
  const put = storage.put("a", text("mine"), { signal, ifAbsent: true });
  await assert.rejects(put, { name: "ObjectExistsError" });
  assert.equal(memory.bytesOf("a")?.toString(), "mine");
});

test("an abort ends the pauses", async () => {
  const { memory, faulty } = open();
  const controller = new AbortController();
  const reason = new Error("told to stop");
  const clock = new SkippingClock();
  const onRetry = () => controller.abort(reason);
  const storage = new RetryingStorage(faulty, policy, { clock, random: () => 1, onRetry });
  await putAll(memory, ["a"]);
  for (const method of methods) faulty.fault(method, "every", { kind: "fail", error: cut });
  const options = { signal: controller.signal };
  await assert.rejects(storage.stat("a", options), (error) => error === reason);
  await assert.rejects(readAll(storage.get("a", options)), (error) => error === reason);
});
