import assert from "node:assert/strict";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { heardStorage, LifeSign } from "../../src/storage/life-sign.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const { signal } = new AbortController();
const away = new StorageError("503", { isRetryable: true });

function world() {
  const clock = new FakeClock();
  const sign = new LifeSign(clock);
  let failure: Error | undefined;
  const beforePut = (): void => {
    if (failure !== undefined) throw failure;
  };
  const inner = new HookedStorage(new MemoryStorage(), { beforePut });
  const storage = heardStorage(inner, sign);
  const put = (error?: Error) => {
    failure = error;
    return storage.put("a", bytesSource(Buffer.of(1)), { signal });
  };
  return { clock, sign, storage, put };
}

test("an answer is a sign of life, also that there is no such object", async () => {
  const { clock, sign, storage, put } = world();
  assert.deepEqual([sign.heardAtMs, sign.hasAnswered], [Number.NEGATIVE_INFINITY, false]);
  await assert.rejects(storage.stat("none", { signal }), { name: "ObjectNotFoundError" });
  assert.deepEqual([sign.heardAtMs, sign.hasAnswered], [clock.monotonicMs(), true]);
  for (const work of [
    () => put(),
    () => readAll(storage.get("a", { signal })),
    () => Array.fromAsync(storage.list("", { signal })),
    () => storage.delete(["a"], { signal }),
  ]) {
    await clock.advance(1000);
    await work();
    assert.equal(sign.heardAtMs, clock.monotonicMs());
  }
});

test("bytes that move are one until a call has failed, and again once one has not", async () => {
  const { clock, sign, put } = world();
  sign.moved();
  const firstMs = clock.monotonicMs();
  await assert.rejects(put(away), away);
  assert.equal(sign.hasAnswered, false);
  await clock.advance(1000);
  sign.moved();
  assert.equal(sign.heardAtMs, firstMs);
  await put();
  assert.equal(sign.heardAtMs, clock.monotonicMs());
  await clock.advance(1000);
  sign.moved();
  assert.equal(sign.heardAtMs, clock.monotonicMs());
});
