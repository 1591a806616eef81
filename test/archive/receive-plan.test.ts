import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { planContinuation, startAt } from "../../src/archive/receive-plan.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { type TimelineHistory, timelineOf } from "../../src/postgres/timeline-history.ts";

const MIB = 1024 * 1024;

/** "1@300 2" is timeline 2, which left timeline 1 at 0x300. */
function history(text: string): TimelineHistory {
  const parts = text.split(" ");
  return {
    timeline: Number(parts.at(-1)),
    ancestors: parts.slice(0, -1).map((part) => {
      const [timeline, end = ""] = part.split("@");
      return { timeline: Number(timeline), endLsn: lsn(BigInt(`0x${end}`)), reason: "" };
    }),
  };
}

function position(hex: string) {
  return lsn(BigInt(`0x${hex}`));
}

test("a start is the beginning of the segment, on the timeline of the position", () => {
  const server = history("1@350000 2@500000 3");
  const cases = [
    { at: "0", timeline: 1, start: "0" },
    { at: "34ffff", timeline: 1, start: "300000" },
    { at: "350000", timeline: 2, start: "300000" },
    { at: "4fffff", timeline: 2, start: "400000" },
    { at: "500000", timeline: 3, start: "500000" },
    { at: "7abcde", timeline: 3, start: "700000" },
  ];
  for (const { at, timeline, start } of cases) {
    assert.deepEqual(startAt(server, position(at), MIB), {
      timeline,
      startLsn: position(start),
      positionLsn: position(at),
    });
  }
});

const cases = [
  { name: "nothing changed", server: "1", own: "1", end: "350000", at: "350000", on: 1 },
  {
    name: "promoted behind what we have",
    server: "1@380000 2",
    own: "1",
    end: "350000",
    at: "350000",
    on: 1,
  },
  {
    name: "promoted exactly where we are",
    server: "1@350000 2",
    own: "1",
    end: "350000",
    at: "350000",
    on: 2,
  },
  {
    name: "promoted before what we have",
    server: "1@320000 2",
    own: "1",
    end: "350000",
    at: "320000",
    on: 2,
    kind: "forked",
  },
  {
    name: "several promotions",
    server: "1@400000 2@500000 3",
    own: "1",
    end: "350000",
    at: "350000",
    on: 1,
  },
  {
    name: "several promotions, one of them known",
    server: "1@400000 2@500000 3@600000 4",
    own: "1@400000 2",
    end: "450000",
    at: "450000",
    on: 2,
  },
  {
    name: "a sibling of our timeline",
    server: "1@300000 3",
    own: "1@400000 2",
    end: "450000",
    at: "300000",
    on: 3,
    kind: "forked",
  },
  {
    name: "a sibling that left later",
    server: "1@420000 3",
    own: "1@400000 2",
    end: "450000",
    at: "400000",
    on: 1,
    kind: "forked",
  },
] as const;

for (const { name, server, own, end, at, on, ...rest } of cases) {
  test(`goes on: ${name}`, () => {
    const wal = { history: history(own), endLsn: position(end) };
    const plan = planContinuation(history(server), wal, MIB);
    assert.ok(plan.kind !== "stale");
    assert.equal(plan.kind, "kind" in rest ? rest.kind : "start");
    assert.equal(plan.start.positionLsn, position(at));
    assert.equal(plan.start.timeline, on);
  });
}

test("a server on an older timeline is not followed", () => {
  const own = { history: history("1@400000 2"), endLsn: position("450000") };
  assert.deepEqual(planContinuation(history("1"), own, MIB), { kind: "stale" });
});

const histories = fc
  .uniqueArray(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 9 })), {
    minLength: 1,
    maxLength: 5,
    selector: ([timeline]) => timeline,
  })
  .map((entries): TimelineHistory => {
    const timelines = entries.map(([timeline]) => timeline).toSorted((a, b) => a - b);
    const ends = entries.map(([, end]) => end).toSorted((a, b) => a - b);
    const ancestors = timelines.slice(0, -1).map((timeline, index) => ({
      timeline,
      endLsn: lsn(BigInt(ends[index] ?? 0) * BigInt(MIB / 2)),
      reason: "",
    }));
    return { timeline: timelines.at(-1) ?? 1, ancestors };
  });

test("nothing is skipped: where we go on, both histories were the same up to there", () => {
  fc.assert(
    fc.property(histories, histories, fc.integer({ min: 0, max: 20 }), (server, mine, halves) => {
      const last = mine.ancestors.at(-1)?.endLsn ?? lsn(0n);
      const endLsn = lsn(last + BigInt(halves) * BigInt(MIB / 4));
      const plan = planContinuation(server, { history: mine, endLsn }, MIB);
      if (plan.kind === "stale") {
        assert.ok(server.timeline < mine.timeline);
        return;
      }
      const { startLsn, positionLsn, timeline } = plan.start;
      assert.ok(startLsn <= positionLsn && positionLsn <= endLsn);
      assert.equal(timeline, timelineOf(server, positionLsn));
      assert.equal(plan.kind === "forked", positionLsn < endLsn);
      for (let at = 0n; at < positionLsn; at += BigInt(MIB / 4)) {
        assert.equal(timelineOf(server, lsn(at)), timelineOf(mine, lsn(at)));
      }
    }),
  );
});
