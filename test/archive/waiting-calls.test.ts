import assert from "node:assert/strict";
import { test } from "node:test";
import { WaitingCalls } from "../../src/archive/waiting-calls.ts";
import { systemClock } from "../../src/io/clock.ts";

const STORED = { kind: "stored", outcome: "archived" } as const;

/** Calls that wait for files, and what each was told. */
function waiting({ aheadMax = 32, names = ["a"] } = {}) {
  const time = { nowMs: 1000 };
  const calls = new WaitingCalls(aheadMax, { ...systemClock, monotonicMs: () => time.nowMs });
  const told: unknown[] = [];
  for (const name of names) calls.add(name, (answer) => told.push([name, answer]));
  return { time, calls, told };
}

for (const [what, { aheadMax, ahead, left, isTold }] of Object.entries({
  "none done, many left": { aheadMax: 32, ahead: 1, left: 16, isTold: false },
  "nearly enough done, many left": { aheadMax: 32, ahead: 15, left: 500, isTold: false },
  "enough done": { aheadMax: 32, ahead: 16, left: 500, isTold: true },
  "none done, few left": { aheadMax: 32, ahead: 1, left: 15, isTold: true },
  "less than half of what may be ahead": { aheadMax: 9, ahead: 4, left: 500, isTold: false },
  "half of what may be ahead": { aheadMax: 9, ahead: 5, left: 500, isTold: true },
  "nothing is done ahead": { aheadMax: 0, ahead: 0, left: 500, isTold: true },
})) {
  test(`${what}: who waits for a stored file is ${isTold ? "told" : "told later"}`, () => {
    const { calls, told } = waiting({ aheadMax });
    calls.tellStored("a", STORED.outcome);
    assert.deepEqual([calls.names, calls.has("a")], [[], false]);
    calls.release({ ahead, left });
    assert.deepEqual(told, isTold ? [["a", STORED]] : []);
    assert.equal(calls.leftMs, isTold ? undefined : 500);
  });
}

test("half a second after the first of them all are told, once", () => {
  const { calls, told, time } = waiting({ names: ["a", "b", "a"] });
  const many = { ahead: 0, left: 500 };
  calls.tellStored("a", STORED.outcome);
  time.nowMs += 400;
  calls.tellStored("b", STORED.outcome);
  assert.equal(calls.leftMs, 100);
  time.nowMs += 99;
  calls.release(many);
  assert.deepEqual(told, []);
  time.nowMs += 1;
  calls.release(many);
  calls.release(many);
  assert.deepEqual(told, [
    ["a", STORED],
    ["a", STORED],
    ["b", STORED],
  ]);
});

test("a failure is told at once, and to those who wait for that file only", () => {
  const { calls, told } = waiting({ names: ["a", "b"] });
  const failed = { kind: "declined", reason: "r" } as const;
  calls.tell("a", failed);
  assert.deepEqual(told, [["a", failed]]);
  assert.deepEqual(calls.names, ["b"]);
});

test("that nobody waits for a file puts nothing off", () => {
  const { calls } = waiting({ names: [] });
  calls.tellStored("a", STORED.outcome);
  assert.equal(calls.leftMs, undefined);
});
