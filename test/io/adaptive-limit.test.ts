import assert from "node:assert/strict";
import { test } from "node:test";
import { AdaptiveLimit } from "../../src/io/adaptive-limit.ts";
import type { Turn } from "../../src/io/adaptive-limit.ts";

const { signal } = new AbortController();

async function beginAll(limit: AdaptiveLimit, count: number): Promise<Turn[]> {
  const turns: Turn[] = [];
  for (let index = 0; index < count; index++) turns.push(await limit.begin({ signal }));
  return turns;
}

test("overload halves what was under way, once for all that was begun before it", async () => {
  const limit = new AdaptiveLimit(100);
  const turns = await beginAll(limit, 16);
  for (const turn of turns) turn.end("overloaded");
  assert.equal(limit.current, 8);

  const [next] = await beginAll(limit, 8);
  assert.equal(limit.isTaken, true);
  next?.end("overloaded");
  assert.equal(limit.current, 4);
  assert.equal(limit.lowest, 4);
});

test("each round that goes well allows one more, up to the most", async () => {
  const limit = new AdaptiveLimit(6);
  for (const turn of await beginAll(limit, 4)) turn.end("overloaded");
  assert.equal(limit.current, 2);
  const sizes: number[] = [];
  for (let round = 0; round < 7; round++) {
    for (const turn of await beginAll(limit, limit.current)) turn.end("done");
    sizes.push(limit.current);
  }
  assert.deepEqual(sizes, [3, 4, 5, 6, 6, 6, 6]);
});

test("one is always allowed, and what is unclear changes nothing", async () => {
  const limit = new AdaptiveLimit(2);
  for (let index = 0; index < 5; index++) (await limit.begin({ signal })).end("overloaded");
  assert.equal(limit.current, 1);
  (await limit.begin({ signal })).end("unclear");
  assert.equal(limit.current, 1);
  assert.equal(limit.isTaken, false);
});

test("those that wait come in their order; one that is aborted leaves the line", async () => {
  const limit = new AdaptiveLimit(1);
  const first = await limit.begin({ signal });
  const order: string[] = [];
  const waiting = ["a", "b", "c"].map(async (name) => {
    const controller = new AbortController();
    const begun = limit.begin({ signal: controller.signal });
    if (name === "b") controller.abort(new Error("b was stopped"));
    const turn = await begun;
    order.push(name);
    turn.end("done");
  });
  first.end("done");
  const outcomes = await Promise.allSettled(waiting);
  assert.deepEqual(order, ["a", "c"]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled"],
  );
  assert.equal(limit.isTaken, false);
});

test("a turn that came together with the abort is given back", async () => {
  const limit = new AdaptiveLimit(1);
  const first = await limit.begin({ signal });
  const controller = new AbortController();
  const begun = limit.begin({ signal: controller.signal });
  first.end("done");
  controller.abort(new Error("stopped"));
  await begun.then(
    (turn) => turn.end("done"),
    (error: unknown) => assert.match(String(error), /stopped/),
  );
  (await limit.begin({ signal })).end("done");
});

test("a limit below one is refused", () => {
  assert.throws(() => new AdaptiveLimit(0), /not a limit/);
});
