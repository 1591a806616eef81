import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { FIRST_LEVEL, nextLevel } from "../../src/archive/drain-level.ts";
import { type DrainState, planDrain } from "../../src/archive/drain-plan.ts";

const segment = (timeline: number, number: number) =>
  `0000000${timeline}00000000000000${number.toString(16).toUpperCase().padStart(2, "0")}`;
const history = (timeline: number) => `0000000${timeline}.history`;

function state(ready: readonly string[], rest: Partial<DrainState> = {}): DrainState {
  return {
    ready,
    underWay: new Set(),
    wanted: new Set(),
    isResting: () => false,
    aheadCount: 0,
    ...rest,
  };
}

test("what is waited for comes first, then history files, then the rest by name", () => {
  const ready = [segment(1, 5), segment(1, 4), history(2), segment(1, 9)];
  const wanted = new Set([segment(1, 9)]);
  assert.deepEqual(planDrain(state(ready, { wanted }), { concurrency: 4, ahead: 9 }), [
    segment(1, 9),
    history(2),
    segment(1, 4),
    segment(1, 5),
  ]);
});

test("a timeline waits for its history, whether that is ready, under way or resting", () => {
  const limits = { concurrency: 9, ahead: 9 };
  const files = [segment(2, 4), segment(3, 5), segment(1, 3)];
  assert.deepEqual(planDrain(state([...files, history(2)]), limits), [history(2), segment(1, 3)]);
  assert.deepEqual(planDrain(state(files, { underWay: new Set([history(2)]) }), limits), [
    segment(1, 3),
  ]);
  const isResting = (name: string) => name === history(2);
  const wanted = new Set([segment(2, 4)]);
  assert.deepEqual(planDrain(state([...files, history(2)], { isResting, wanted }), limits), [
    segment(1, 3),
  ]);
});

test("a history file waits for no segment that is slow to store", () => {
  const underWay = new Set([segment(1, 3), segment(1, 4)]);
  const ready = [segment(1, 5), history(2), history(3), history(4)];
  assert.deepEqual(planDrain(state(ready, { underWay }), { concurrency: 2, ahead: 2 }), [
    history(2),
    history(3),
  ]);
});

test("nothing of a timeline is begun behind a file of it that collided", () => {
  const conflicts = new Set([segment(1, 4)]);
  const ready = [segment(1, 3), segment(1, 4), segment(1, 5), segment(2, 5)];
  const wanted = new Set([segment(1, 5)]);
  const limits = { concurrency: 9, ahead: 9 };
  assert.deepEqual(planDrain(state(ready, { conflicts, wanted }), limits), [
    segment(1, 3),
    segment(1, 4),
    segment(2, 5),
  ]);
});

const isHistory = (name: string) => name.endsWith(".history");

test("no plan goes beyond its limits, begins a file twice, or a segment before its history", () => {
  const name = fc.oneof(
    fc.tuple(fc.integer({ min: 1, max: 4 }), fc.nat(40)).map(([t, n]) => segment(t, n)),
    fc.integer({ min: 2, max: 4 }).map(history),
  );
  const names = fc.uniqueArray(name, { maxLength: 30 });
  fc.assert(
    fc.property(
      names,
      fc.nat(5),
      fc.nat(30),
      fc.record({ concurrency: fc.integer({ min: 1, max: 6 }), ahead: fc.nat(12) }),
      (all, underWayCount, wantedCount, limits) => {
        const underWay = new Set(all.slice(0, underWayCount));
        const ready = all.slice(underWayCount);
        const wanted = new Set(ready.slice(0, wantedCount));
        const plan = planDrain(state(ready, { underWay, wanted, aheadCount: 2 }), limits);
        assert.equal(new Set(plan).size, plan.length);
        assert.ok(plan.every((one) => ready.includes(one)));
        const others = plan.filter((one) => !isHistory(one));
        const busy = [...underWay].filter((one) => !isHistory(one)).length;
        assert.ok(others.length === 0 || busy + others.length <= limits.concurrency);
        assert.ok([...underWay, ...plan].filter(isHistory).length <= Math.max(2, underWayCount));
        const unasked = others.filter((one) => !wanted.has(one)).length;
        assert.ok(unasked === 0 || underWay.size + 2 + unasked <= limits.ahead);
        for (const one of plan.filter((file) => !file.endsWith(".history"))) {
          const older = all.filter((file) => file.endsWith(".history") && file < one);
          assert.deepEqual(older, []);
        }
      },
    ),
  );
});

test("the level falls at once with a backlog and rises slowly", () => {
  let level = FIRST_LEVEL;
  const step = (backlog: number, nowMs: number) => (level = nextLevel(level, { backlog, nowMs }));
  assert.equal(step(0, 0).level, 3);
  assert.equal(step(3, 1000).level, 3);
  assert.equal(step(4, 2000).level, 1);
  for (let count = 0; count < 19; count += 1) assert.equal(step(1, 3000 + count).level, 1);
  assert.equal(step(2, 4000).level, 1);
  for (let count = 0; count < 19; count += 1) assert.equal(step(0, 5000 + count).level, 1);
  assert.equal(step(0, 6000).level, 3);
  assert.equal(step(16, 60_000).level, 1);
});

test("a steady short backlog keeps the level", () => {
  let level = FIRST_LEVEL;
  for (let count = 0; count < 100; count += 1) {
    level = nextLevel(level, { backlog: 3, nowMs: count * 1000 });
    assert.equal(level.level, 3);
  }
});
