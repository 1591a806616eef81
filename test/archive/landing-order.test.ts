import assert from "node:assert/strict";
import { test } from "node:test";
import { LandingOrder } from "../../src/archive/landing-order.ts";

const signal = AbortSignal.timeout(60_000);

/** Names of those that have their turn, in the order of it. */
function watched(order: LandingOrder) {
  const turns: string[] = [];
  const turn = async (name: string) => {
    await order.turn(name, { signal });
    turns.push(name);
  };
  return { turns, turn };
}

/** Everything that can go on has gone on. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("one lands at a time, the nearest of all that are under way first", async () => {
  const order = new LandingOrder();
  const { turns, turn } = watched(order);
  for (const name of ["2", "1", "3"]) order.begin(name);
  const waiting = [turn("3"), turn("2")];
  await settled();
  assert.deepEqual(turns, []);
  await turn("1");
  await settled();
  assert.deepEqual(turns, ["1"]);
  // Read again, it has its turn still.
  await turn("1");
  order.end("1");
  await settled();
  assert.deepEqual(turns, ["1", "1", "2"]);
  order.end("2");
  order.end("3");
  await Promise.all(waiting);
  assert.deepEqual(turns, ["1", "1", "2", "3"]);
});

test("one that lands and waits for an earlier one that began later lets it land", async () => {
  const order = new LandingOrder();
  const { turns, turn } = watched(order);
  order.begin("2");
  await turn("2");
  order.begin("1");
  const first = turn("1");
  await settled();
  assert.deepEqual(turns, ["2"]);
  const aside = order.aside("2", () => first, { signal });
  await first;
  assert.deepEqual(turns, ["2", "1"]);
  order.end("1");
  await aside;
});

test("one that is not wanted any more stops waiting and holds nobody up", async () => {
  const order = new LandingOrder();
  const { turn } = watched(order);
  const stop = new AbortController();
  for (const name of ["1", "2"]) order.begin(name);
  const second = order.turn("2", { signal: stop.signal });
  stop.abort(new Error("another was asked for"));
  await assert.rejects(second, /another was asked for/);
  order.end("2");
  await turn("1");
  order.end("1");
});
