import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { RateLimit, rateLimited } from "../../src/io/rate-limit.ts";
import { patternSource } from "../support/bodies.ts";
import { FakeClock, SkippingClock } from "../support/fake-clock.ts";

const signal = new AbortController().signal;

test("after a burst of a quarter second no more than the rate passes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 3_000_000 }), { minLength: 1, maxLength: 50 }),
      fc.integer({ min: 1000, max: 50_000_000 }),
      async (sizes, bytesPerSecond) => {
        const clock = new SkippingClock();
        const limit = new RateLimit(bytesPerSecond, clock);
        const beganMs = clock.monotonicMs();
        for (const size of sizes) await limit.take(size, { signal });
        const totalBytes = sizes.reduce((sum, size) => sum + size, 0);
        const idealMs = (totalBytes / bytesPerSecond) * 1000 - 250;
        const elapsedMs = clock.monotonicMs() - beganMs;
        assert.ok(Math.abs(elapsedMs - Math.max(0, idealMs)) < 1, `${elapsedMs} of ${idealMs} ms`);
      },
    ),
    { numRuns: 50 },
  );
});

test("several takers share one rate, in their order", async () => {
  const clock = new FakeClock();
  const limit = new RateLimit(1000, clock);
  const order: string[] = [];
  const take = async (name: string, size: number) => {
    await limit.take(size, { signal });
    order.push(`${name} ${clock.monotonicMs() - beganMs}`);
  };
  const beganMs = clock.monotonicMs();
  const all = Promise.all([take("a", 1250), take("b", 1000), take("c", 1)]);
  await clock.advance(10_000);
  await all;
  assert.deepEqual(order, ["a 1000", "b 2000", "c 2001"]);
});

test("an abort ends the wait", async () => {
  const clock = new FakeClock();
  const controller = new AbortController();
  const limit = new RateLimit(1, clock);
  const waiting = limit.take(1_000_000, { signal: controller.signal });
  controller.abort(new Error("told to stop"));
  await assert.rejects(waiting, /told to stop/);
});

test("a stream arrives whole, no faster than allowed", async () => {
  const clock = new SkippingClock();
  const beganMs = clock.monotonicMs();
  let receivedBytes = 0;
  const limit = new RateLimit(1_000_000, clock);
  for await (const chunk of rateLimited(patternSource(3_000_000).open(), limit, { signal })) {
    receivedBytes += chunk.length;
  }
  assert.equal(receivedBytes, 3_000_000);
  assert.ok(Math.abs(clock.monotonicMs() - beganMs - 2750) < 1);
});

for (const rate of [0, -1, Number.NaN]) {
  test(`a rate of ${rate} is refused`, () => {
    assert.throws(() => new RateLimit(rate, new FakeClock()), /not a rate/);
  });
}
