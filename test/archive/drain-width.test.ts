import assert from "node:assert/strict";
import { test } from "node:test";
import { DrainWidth } from "../../src/archive/drain-width.ts";
import { DeadlineError, StorageError } from "../../src/errors.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { fc } from "../support/property.ts";

const ROUNDS = 300;
const TIMEOUT_MS = 60_000;

/**
 * Pushes in rounds over a line on which so many files end in their time. `isTold` if their time
 * tells how slow it is. Gives how it was used.
 */
async function drainOver(
  lineWidth: number,
  { configured, isTold }: { readonly configured: number; readonly isTold: boolean },
) {
  const underWay = { count: 0 };
  const clock = new FakeClock();
  const options = { concurrency: configured, timeoutMs: TIMEOUT_MS, clock };
  const width = new DrainWidth(options, () => underWay.count);
  const sent = { inTime: 0, inVain: 0 };
  for (let round = 0; round < ROUNDS; round += 1) {
    // The drainer's first file is alone.
    const begun = (underWay.count = round === 0 ? 1 : width.current);
    const roundMs = isTold ? (begun * TIMEOUT_MS) / (lineWidth + 0.5) : 0;
    const passed = Promise.withResolvers<undefined>();
    const push = async (): Promise<void> => {
      await passed.promise;
      if (begun > lineWidth) throw new DeadlineError("the time is up");
    };
    const ends = Array.from({ length: begun }, async () => {
      try {
        await width.learn(push);
        sent.inTime += 1;
      } catch {
        sent.inVain += 1;
      }
    });
    await clock.advance(roundMs);
    passed.resolve(undefined);
    await Promise.all(ends);
  }
  return { ...sent, width: width.current };
}

const lines = {
  lineWidth: fc.integer({ min: 1, max: 12 }),
  configured: fc.integer({ min: 1, max: 16 }),
};

test("whatever the line, most of what is sent arrives, and a line that is wide is filled", async () => {
  const line = fc.record(lines);
  await fc.assert(
    fc.asyncProperty(line, async ({ lineWidth, configured }) => {
      const used = await drainOver(lineWidth, { configured, isTold: false });
      const { inTime, inVain, width } = used;
      const best = Math.min(lineWidth, configured, 8);
      assert.ok(inVain * 6 < inTime, `${inVain} in vain, ${inTime} in time`);
      assert.ok(width >= Math.max(best - 1, 1) && width <= best + 1, `${width} at last`);
      assert.ok(inTime > ROUNDS * best * 0.8, `${inTime} of ${ROUNDS * best}`);
    }),
  );
});

test("where the time of the first file tells how slow the line is, nothing is sent in vain", async () => {
  const line = fc.record(lines);
  await fc.assert(
    fc.asyncProperty(line, async ({ lineWidth, configured }) => {
      const { inVain, width } = await drainOver(lineWidth, { configured, isTold: true });
      assert.equal(inVain, 0);
      const best = Math.min(lineWidth, configured, 8);
      assert.ok(width > 0.7 * best - 1 && width <= best, `${width} of ${best}`);
    }),
  );
});

function optionsFor(concurrency: number) {
  return { concurrency, timeoutMs: TIMEOUT_MS, clock: new FakeClock() };
}

const away = async (): Promise<never> => {
  throw new StorageError("away", { isRetryable: true });
};
const late = async (): Promise<never> => {
  throw new DeadlineError("late");
};

test("only time that is up makes fewer, once for all that began together", async () => {
  const width = new DrainWidth(optionsFor(8), () => 8);
  await assert.rejects(width.learn(away));
  assert.equal(width.current, 8);
  await Promise.allSettled(Array.from({ length: 8 }, () => width.learn(late)));
  assert.equal(width.current, 4);
  await Promise.allSettled([width.learn(late)]);
  assert.equal(width.current, 2);
});

test("one that was alone waited for a store that is away, and makes no fewer", async () => {
  const width = new DrainWidth(optionsFor(4), () => 1);
  await assert.rejects(width.learn(late));
  assert.equal(width.current, 4);
});
