import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
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

test("over any ten seconds that are busy, it is the rate within 5 %", async () => {
  const clock = new FakeClock();
  const limit = new RateLimit(1_000_000, clock);
  const passed: { atMs: number; bytes: number }[] = [];
  const stop = new AbortController();
  const taker = async (bytes: number): Promise<void> => {
    for (;;) {
      await limit.take(bytes, { signal: stop.signal });
      passed.push({ atMs: clock.monotonicMs(), bytes });
    }
  };
  const takers = [1_000, 65_536, 262_144].map(taker);
  const beganMs = clock.monotonicMs();
  await clock.advance(30_000);
  stop.abort();
  await Promise.allSettled(takers);
  for (let startMs = beganMs; startMs <= beganMs + 20_000; startMs += 100) {
    const within = passed.filter(({ atMs }) => atMs >= startMs && atMs < startMs + 10_000);
    const sumBytes = within.reduce((sum, { bytes }) => sum + bytes, 0);
    assert.ok(Math.abs(sumBytes - 10_000_000) <= 500_000, `${sumBytes} from ${startMs}`);
  }
});

test("a new rate counts at once, for what already waits too", async () => {
  const clock = new FakeClock();
  const limit = new RateLimit(1000, clock);
  const beganMs = clock.monotonicMs();
  const done: string[] = [];
  const take = async (name: string, size: number) => {
    const waitedMs = await limit.take(size, { signal });
    done.push(`${name} ${clock.monotonicMs() - beganMs} ${waitedMs}`);
  };
  const all = [take("a", 1250), take("b", 1000), take("c", 4000)];
  await clock.advance(500);
  limit.setRate(500);
  await clock.advance(2000);
  limit.setRate(8000);
  await clock.advance(1000);
  await Promise.all(all);
  // Half of a's second is left at 500 bytes/s, half of b's, and then c's at 8000 bytes/s.
  assert.deepEqual(done, ["a 1500 1500", "b 2562.5 2562.5", "c 3062.5 3062.5"]);
});

test("without a rate nothing waits, and one that waits is let go", async () => {
  const clock = new FakeClock();
  const limit = new RateLimit(undefined, clock);
  assert.equal(await limit.take(1e12, { signal }), 0);
  limit.setRate(10);
  const waiting = limit.take(1e9, { signal });
  await clock.advance(1000);
  limit.setRate(undefined);
  assert.equal(await waiting, 1000);
  limit.setRate(1000);
  const again = limit.take(1000, { signal });
  await clock.advance(1000);
  assert.equal(await again, 1000);
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
