import assert from "node:assert/strict";
import { test } from "node:test";
import { readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { RateLimit } from "../../src/io/rate-limit.ts";
import { systemRandom } from "../../src/io/retry.ts";
import { borrowed } from "../../src/storage/overlay.ts";
import { countedStorage, noCounts } from "../../src/storage/counted.ts";
import { deadlineStorage } from "../../src/storage/deadline.ts";
import { EncryptedStorage } from "../../src/storage/encrypted.ts";
import { PrefixedStorage } from "../../src/storage/prefixed.ts";
import { rateLimitedStorage } from "../../src/storage/rate-limited.ts";
import { RetryingStorage } from "../../src/storage/retrying.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { sodiumCrypter } from "../crypto/crypters.ts";
import { patternSource } from "../support/bodies.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { keysOf, putAll, text, textOf } from "./contract-lists.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;
const crypter = await sodiumCrypter();

const wrappers: Readonly<Record<string, (inner: Storage) => Storage>> = {
  retrying: (inner) =>
    new RetryingStorage(
      inner,
      { attempts: 3, baseMs: 1, capMs: 1, totalMs: 1000 },
      { clock: systemClock, random: systemRandom },
    ),
  deadline: (inner) => deadlineStorage(inner, 30_000, systemClock),
  "rate-limited": (inner) => rateLimitedStorage(inner, new RateLimit(1e9, systemClock)),
  borrowed: (inner) => borrowed(inner),
  counted: (inner) => countedStorage(inner, noCounts()),
  prefixed: (inner) => new PrefixedStorage(inner, "main/cluster one"),
  "encrypted, without a key": (inner) =>
    new EncryptedStorage(inner, { decrypters: [], isSecret: () => true, isPlainRead: false }),
  "encrypted, of plain objects": (inner) =>
    new EncryptedStorage(inner, {
      crypter,
      decrypters: [],
      isSecret: () => false,
      isPlainRead: false,
    }),
  faulty: (inner) => new FaultyStorage(inner),
};

for (const [name, wrap] of Object.entries(wrappers)) {
  storageContract(name, async () => ({
    storage: wrap(new MemoryStorage()),
    close: async () => {},
  }));
}

test("a prefix keeps neighbours apart and out of messages", async () => {
  const inner = new MemoryStorage();
  await putAll(inner, ["main", "main2/a", "mai/a", "main/a"]);
  const storage = new PrefixedStorage(inner, "main");
  assert.equal(storage.name, "memory://test/main");
  assert.deepEqual(await keysOf(storage, ""), ["a"]);
  await storage.put("b/c", text("x"), { signal });
  assert.deepEqual(inner.keys, ["mai/a", "main", "main/a", "main/b/c", "main2/a"]);
  assert.equal((await storage.stat("b/c", { signal })).key, "b/c");
  await assert.rejects(textOf(storage, "main/a"), {
    message: "object main/a does not exist in memory://test/main",
  });
  await storage.delete(["a", "b/c"], { signal });
  assert.deepEqual(inner.keys, ["mai/a", "main", "main2/a"]);
});

for (const prefix of ["", "/a", "a/", "a//b", "..", "a/../b"]) {
  test(`the prefix ${JSON.stringify(prefix)} is refused`, () => {
    assert.throws(() => new PrefixedStorage(new MemoryStorage(), prefix), /is refused/);
  });
}

test("calls and bytes are counted, failures too", async () => {
  const counts = noCounts();
  const storage = countedStorage(new MemoryStorage(), counts);
  await storage.put("a", text("12345"), { signal });
  await assert.rejects(storage.put("a", text("1234567"), { signal, ifAbsent: true }));
  await readAll(storage.get("a", { signal, range: { start: 1, end: 3 } }));
  await assert.rejects(storage.stat("b", { signal }));
  await keysOf(storage, "");
  await storage.delete(["a"], { signal });
  assert.deepEqual(counts, {
    get: 1,
    put: 2,
    stat: 1,
    list: 1,
    delete: 1,
    gotBytes: 2,
    putBytes: 12,
  });
});

test("puts and gets share one rate", async () => {
  const clock = new SkippingClock();
  const limit = new RateLimit(1_000_000, clock);
  const storage = rateLimitedStorage(new MemoryStorage(), limit);
  const beganMs = clock.monotonicMs();
  await storage.put("a", patternSource(2_000_000), { signal });
  await readAll(storage.get("a", { signal }));
  const elapsedMs = clock.monotonicMs() - beganMs;
  assert.ok(Math.abs(elapsedMs - 3750) < 1, `${elapsedMs} ms for 4 MB at 1 MB/s after the burst`);
});
