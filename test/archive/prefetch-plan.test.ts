import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  afterEnd,
  afterFetch,
  afterStall,
  afterTake,
  FIRST_PACE,
  type Pace,
  reachOf,
  widthOf,
} from "../../src/archive/prefetch-pace.ts";
import { followingSegment, planPrefetch } from "../../src/archive/prefetch-plan.ts";
import { lsn } from "../../src/postgres/lsn.ts";

const MIB = 1024 * 1024;

const following = [
  { mib: 16, from: "000000010000000000000001", to: "000000010000000000000002" },
  { mib: 16, from: "0000000100000001000000FF", to: "000000010000000200000000" },
  { mib: 1, from: "000000010000000100000FFF", to: "000000010000000200000000" },
  // E08
  { mib: 64, from: "00000001000001130000003F", to: "000000010000011400000000" },
  { mib: 1024, from: "000000010000011300000003", to: "000000010000011400000000" },
  { mib: 16, from: "00000001FFFFFFFF000000FF", to: undefined },
  { mib: 1024, from: "00000001FFFFFFFF00000003", to: undefined },
];
for (const { mib, from, to } of following) {
  test(`${to} follows ${from} with segments of ${mib} MiB`, () => {
    const lineage = { segmentBytes: mib * MIB, history: undefined };
    assert.equal(followingSegment(from, lineage), to);
  });
}

test("names that can't be with this segment size are refused", () => {
  const lineage = { segmentBytes: 64 * MIB, history: undefined };
  assert.throws(() => followingSegment("000000010000000000000040", lineage), /at most 0000003F/);
});

const ancestor = (timeline: number, position: bigint) => ({
  timeline,
  endLsn: lsn(position),
  reason: "",
});

test("the newest timeline that began in or before a segment comes first", () => {
  // 1 was left within segment 5, 2 exactly at the start of segment 8.
  const history = {
    timeline: 4,
    ancestors: [ancestor(1, 0x580_0000n), ancestor(2, 0x800_0000n)],
  };
  const lineage = { segmentBytes: 16 * MIB, history };
  const names: (string | undefined)[] = ["000000010000000000000003"];
  for (let i = 0; i < 6; i += 1) names.push(followingSegment(names.at(-1) ?? "", lineage));
  assert.deepEqual(
    names.map((name) => `${name?.slice(7, 8)}:${name?.slice(-1)}`),
    ["1:3", "1:4", "2:5", "2:6", "2:7", "4:8", "4:9"],
  );
  // Never back to an older one.
  assert.equal(followingSegment("000000090000000000000005", lineage), "000000090000000000000006");
});

const next = (name: string) => String(Number(name) + 1).padStart(4, "0");
const numbers = fc.uniqueArray(fc.integer({ min: 1, max: 40 }));
const named = (values: readonly number[]) =>
  new Set(values.map((value) => String(value).padStart(4, "0")));

test("a plan never goes back, never twice, never behind what is missing, never too far", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 30 }),
      fc.record({ ready: numbers, underWay: numbers, blocked: numbers }),
      fc.record({
        reach: fc.integer({ min: 1, max: 12 }),
        more: fc.nat(5),
        concurrency: fc.integer({ min: 1, max: 8 }),
      }),
      (at, sets, { reach, more, concurrency }) => {
        const cursor = String(at).padStart(4, "0");
        const ready = named(sets.ready);
        const underWay = new Set([...named(sets.underWay)].filter((name) => !ready.has(name)));
        const blocked = named(sets.blocked);
        const keep = reach + more;
        const state = { cursor, ready, underWay, isBlocked: (name: string) => blocked.has(name) };
        const plan = planPrefetch(state, { reach, keep, concurrency }, next);
        for (const name of plan.begin) {
          assert.ok(Number(name) >= at && Number(name) < at + reach, name);
          assert.ok(!ready.has(name) && !underWay.has(name) && !blocked.has(name), name);
          const between = Array.from({ length: Number(name) - at }, (_, i) =>
            String(at + i).padStart(4, "0"),
          );
          assert.ok(
            between.every((one) => ready.has(one) || !blocked.has(one)),
            name,
          );
        }
        assert.equal(new Set(plan.begin).size, plan.begin.length);
        const going = underWay.size - plan.cancel.length + plan.begin.length;
        assert.ok(going <= Math.max(concurrency, underWay.size - plan.cancel.length));
        for (const name of [...plan.drop, ...plan.cancel]) {
          const isBehind = [...blocked].some((one) => one >= cursor && one <= name);
          assert.ok(Number(name) < at || Number(name) >= at + keep || isBehind, name);
        }
      },
    ),
  );
});

test("without a cursor nothing is begun and nothing kept", () => {
  const plan = planPrefetch(
    {
      cursor: undefined,
      ready: new Set(["0001"]),
      underWay: new Set(["0002"]),
      isBlocked: () => false,
    },
    { reach: 5, keep: 5, concurrency: 2 },
    next,
  );
  assert.deepEqual(plan, { begin: [], drop: ["0001"], cancel: ["0002"] });
});

const limits = { ahead: 10 };
const times = (pace: Pace, count: number, step: (pace: Pace, index: number) => Pace): Pace =>
  Array.from({ length: count }).reduce<Pace>((one, _, index) => step(one, index), pace);

/** Recovery waits again and again; one fetch takes so long. */
const waiting = (pace: Pace, count: number, fetchMs: (concurrency: number) => number): Pace =>
  times(pace, count, (one) => afterStall(afterFetch(one, fetchMs(one.concurrency), limits)));

const far = () => 500;
const busy = (concurrency: number) => 60 * concurrency;

test("the end of the archive costs one request, its middle is trusted step by step", () => {
  assert.equal(widthOf(FIRST_PACE), 1);
  const stalled = waiting(FIRST_PACE, 20, far);
  assert.equal(stalled.concurrency, 6);
  assert.equal(widthOf(stalled), 6);
  const ended = afterEnd(stalled);
  const grown = [0, 1, 2, 3].map((count) =>
    times(ended, count, (one) => afterFetch(one, 50, limits)),
  );
  assert.deepEqual(grown.map(widthOf), [1, 2, 4, 6]);
});

test("a fast replay gets all that is allowed, a slow one two segments", () => {
  const fetched = times(FIRST_PACE, 5, (pace) => afterFetch(pace, 100, limits));
  const fast = times(fetched, 20, (pace, index) => afterTake(pace, index * 60));
  assert.equal(reachOf(fast, limits), 10);
  const slow = times(fetched, 40, (pace, index) => afterTake(pace, index * 5000));
  assert.equal(reachOf(slow, limits), 2);
  const slowStore = times(slow, 40, (pace) => afterFetch(pace, 4000, limits));
  assert.equal(reachOf(slowStore, limits), 5);
});

test("a store that is far away gets more fetches at the same time, step by step", () => {
  assert.equal(waiting(FIRST_PACE, 3, far).concurrency, 2);
  assert.equal(waiting(FIRST_PACE, 4, far).concurrency, 4);
  assert.equal(waiting(FIRST_PACE, 12, far).concurrency, 6);
  const most = waiting(FIRST_PACE, 200, far);
  assert.equal(most.concurrency, 16);
  // Until recovery does not wait any more.
  const calm = (count: number) => times(most, count, (pace, index) => afterTake(pace, index));
  assert.equal(calm(31).concurrency, 16);
  assert.equal(calm(64).concurrency, 14);
  assert.equal(calm(1000).concurrency, 2);
});

test("where processors are the limit more at the same time is given up again", () => {
  const seen = new Set<number>();
  let pace: Pace = FIRST_PACE;
  let most = 0;
  for (let i = 0; i < 300; i += 1) {
    pace = waiting(pace, 1, busy);
    seen.add(pace.concurrency);
    if (pace.concurrency > 2) most += 1;
  }
  assert.deepEqual([...seen], [2, 4]);
  assert.ok(most < 60, `${most} of 300 fetches`);
});
