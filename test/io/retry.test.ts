import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { ObjectNotFoundError, StorageError } from "../../src/errors.ts";
import {
  Retries,
  STORAGE_RETRY_POLICY,
  retryDelayMs,
  systemRandom,
  withRetry,
} from "../../src/io/retry.ts";
import type { RetryEvent, RetryPolicy } from "../../src/io/retry.ts";
import { FakeClock, SkippingClock } from "../support/fake-clock.ts";

const policy: RetryPolicy = { attempts: 5, baseMs: 100, capMs: 1000, totalMs: 60_000 };
const signal = new AbortController().signal;

const passing = (text: string, retryAfterMs?: number) =>
  new StorageError(text, {
    isRetryable: true,
    hint: "Wait.",
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });

/** Fails with each of `errors` in turn, then gives "done". */
function failing(errors: readonly unknown[]) {
  const queue = [...errors];
  const work = async () => {
    work.calls++;
    if (queue.length > 0) throw queue.shift();
    return "done";
  };
  work.calls = 0;
  return work;
}

test("what passes is repeated until it succeeds, with doubling pauses up to the cap", async () => {
  const clock = new SkippingClock();
  const events: RetryEvent[] = [];
  const context = {
    clock,
    random: () => 1,
    signal,
    onRetry: (event: RetryEvent) => events.push(event),
  };
  const work = failing([passing("a"), passing("b"), passing("c"), passing("d")]);
  const generous = { ...policy, capMs: 300 };
  assert.equal(await withRetry(work, generous, context), "done");
  assert.deepEqual(clock.sleeps, [100, 200, 300, 300]);
  assert.deepEqual(
    events.map(({ error, failures, delayMs }) => [error.message, failures, delayMs]),
    [
      ["a", 1, 100],
      ["b", 2, 200],
      ["c", 3, 300],
      ["d", 4, 300],
    ],
  );
});

test("the last failure says how often and how long was tried, and is not retryable", async () => {
  const clock = new SkippingClock();
  const last = passing("store is down");
  const work = failing([passing("1"), passing("2"), passing("3"), passing("4"), last]);
  await assert.rejects(withRetry(work, policy, { clock, random: () => 1, signal }), {
    name: "StorageError",
    message: "store is down (gave up after 5 attempts in 1.5 s)",
    hint: "Wait.",
    isRetryable: false,
    cause: last,
  });
  assert.equal(work.calls, 5);
});

test("retries inside retries are not multiplied", async () => {
  const clock = new SkippingClock();
  const context = { clock, random: () => 0.5, signal };
  const work = failing(Array.from({ length: 100 }, () => passing("down")));
  await assert.rejects(withRetry(() => withRetry(work, policy, context), policy, context));
  assert.equal(work.calls, policy.attempts);
});

const final = [
  new StorageError("no", { isRetryable: false }),
  new ObjectNotFoundError("a", "memory://"),
  new TypeError("a bug"),
  "thrown text",
];
for (const error of final) {
  test(`not repeated: ${String(error)}`, async () => {
    const clock = new SkippingClock();
    const work = failing([error]);
    const call = withRetry(work, policy, { clock, random: () => 1, signal });
    await assert.rejects(call, (thrown) => thrown === error);
    assert.equal(work.calls, 1);
    assert.deepEqual(clock.sleeps, []);
  });
}

test("the store's own wish is obeyed, even above the cap", async () => {
  const clock = new SkippingClock();
  const work = failing([passing("slow down", 7000), passing("slow down", 50)]);
  await withRetry(work, policy, { clock, random: () => 0.5, signal });
  assert.deepEqual(clock.sleeps, [7000, 100]);
});

test("no attempt begins later than the total after the first failure", async () => {
  const clock = new SkippingClock();
  const slow = { attempts: 1000, baseMs: 1000, capMs: 1000, totalMs: 3500 };
  const work = failing(Array.from({ length: 1000 }, () => passing("down")));
  await assert.rejects(
    withRetry(work, slow, { clock, random: () => 1, signal }),
    /after 4 attempts/,
  );

  const patient = failing([passing("come tomorrow", 86_400_000)]);
  await assert.rejects(withRetry(patient, slow, { clock, random: () => 1, signal }), {
    message: "come tomorrow (not tried again)",
  });
});

test("a long call that fails once is repeated however long it took", async () => {
  const clock = new SkippingClock();
  let calls = 0;
  const work = async () => {
    calls++;
    if (calls > 1) return "done";
    await clock.sleep(policy.totalMs * 10, { signal });
    throw passing("cut");
  };
  assert.equal(await withRetry(work, policy, { clock, random: () => 0, signal }), "done");
});

test("an abort ends the pause and wins over the failure", async () => {
  const clock = new FakeClock();
  const controller = new AbortController();
  const reason = new Error("told to stop");
  const work = failing([passing("down"), passing("down")]);
  const call = withRetry(work, policy, { clock, random: () => 1, signal: controller.signal });
  await clock.advance(50);
  controller.abort(reason);
  await assert.rejects(call, (thrown) => thrown === reason);
  assert.equal(work.calls, 1);
});

test("after an abort no other failure is told", async () => {
  const controller = new AbortController();
  const reason = new Error("told to stop");
  const work = async () => {
    controller.abort(reason);
    throw new TypeError("the aborted request broke in its own way");
  };
  const context = { clock: new FakeClock(), random: () => 1, signal: controller.signal };
  await assert.rejects(withRetry(work, policy, context), (thrown) => thrown === reason);
});

test("progress lets the count begin again", async () => {
  const clock = new SkippingClock();
  const retries = new Retries(policy, { clock, random: () => 1 });
  for (let round = 0; round < 20; round++) {
    await retries.afterFailure(passing("cut"), { signal });
    await retries.afterFailure(passing("cut"), { signal });
    retries.reset();
  }
  assert.deepEqual(clock.sleeps.slice(0, 4), [100, 200, 100, 200]);
});

test("pauses are random up to the doubled base, never above the cap", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2000 }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (failures, random) => {
        const delayMs = retryDelayMs(policy, failures, () => random);
        const limitMs = Math.min(policy.capMs, policy.baseMs * 2 ** Math.min(failures - 1, 30));
        assert.ok(delayMs >= 0 && delayMs <= limitMs, `${delayMs} of ${limitMs}`);
        assert.equal(delayMs, Math.max(0, random * limitMs));
      },
    ),
  );
});

test("the policy for stores outlasts one that is away for ten minutes, and not one for ever", async () => {
  for (let run = 0; run < 20; run++) {
    const clock = new SkippingClock();
    const backMs = clock.monotonicMs() + 600_000;
    const work = async () => {
      if (clock.monotonicMs() < backMs) throw passing("connection refused");
      return "done";
    };
    const context = { clock, random: systemRandom, signal };
    assert.equal(await withRetry(work, STORAGE_RETRY_POLICY, context), "done");
  }
  const clock = new SkippingClock();
  const beganMs = clock.monotonicMs();
  const failure = passing("connection refused");
  const away = async () => {
    throw failure;
  };
  const context = { clock, random: systemRandom, signal };
  await assert.rejects(withRetry(away, STORAGE_RETRY_POLICY, context), /gave up/);
  assert.ok(clock.monotonicMs() - beganMs <= STORAGE_RETRY_POLICY.totalMs);
});

test("our random numbers lie in [0, 1) and differ", () => {
  const numbers = Array.from({ length: 1000 }, systemRandom);
  assert.ok(numbers.every((number) => number >= 0 && number < 1));
  assert.ok(new Set(numbers).size > 990);
  assert.ok(Math.min(...numbers) < 0.1 && Math.max(...numbers) > 0.9);
});
