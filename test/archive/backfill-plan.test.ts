import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { planBackfill } from "../../src/archive/backfill-plan.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { formatHistoryName, formatSegmentName } from "../../src/postgres/wal-file.ts";

const segmentBytes = 1024 * 1024;
const at = (segments: number, bytes = 0) => lsn(BigInt(segments * segmentBytes + bytes));
const segment = (timeline: number, number: number) =>
  formatSegmentName(timeline, BigInt(number), segmentBytes);
const left = (timeline: number, endLsn: ReturnType<typeof lsn>) => ({
  timeline,
  endLsn,
  reason: "no recovery target specified",
});
/** 1 was left inside segment 5, 3 exactly at the end of segment 7. */
const history = { timeline: 4, ancestors: [left(1, at(5, 100)), left(3, at(8))] };

const rows = [
  { name: segment(1, 4), action: "push", reason: /^not in the archive$/ },
  { name: segment(1, 5), action: "skip", reason: /^timeline 1 was left inside it, at 0\/500064/ },
  { name: segment(1, 6), action: "skip", reason: /^behind 0\/500064, where timeline 1 was left$/ },
  { name: segment(3, 7), action: "push", reason: /^not in/ },
  { name: segment(3, 8), action: "skip", reason: /^behind 0\/800000, where timeline 3 was left$/ },
  { name: segment(4, 8), action: "push", reason: /^not in/ },
  { name: segment(4, 99), action: "push", reason: /^not in/ },
  { name: segment(2, 1), action: "skip", reason: /^timeline 2 is no part/ },
  { name: segment(5, 1), action: "skip", reason: /^timeline 5 is no part/ },
  { name: formatHistoryName(3), action: "push", reason: /^not in/ },
  { name: formatHistoryName(4), action: "push", reason: /^not in/ },
  { name: formatHistoryName(2), action: "skip", reason: /^timeline 2 is no part/ },
] as const;
for (const { name, action, reason } of rows) {
  test(`${name}: ${action}`, () => {
    const [step] = planBackfill({ history, segmentBytes, local: [name], stored: new Set() });
    assert.equal(step?.action, action);
    assert.match(step?.reason ?? "", reason);
    const [known] = planBackfill({ history, segmentBytes, local: [name], stored: new Set([name]) });
    assert.equal(known?.action, action === "push" ? "compare" : action);
  });
}

test("what is no segment and no history is not spoken of", () => {
  const local = ["archive_status", "summaries", `${segment(1, 5)}.partial`, "xlogtemp.77"];
  local.push(`${segment(1, 3)}.00000028.backup`, "00000001.history.tmp");
  assert.deepEqual(planBackfill({ history, segmentBytes, local, stored: new Set() }), []);
});

test("histories come first, then everything by name", () => {
  const local = [segment(4, 9), segment(1, 3), formatHistoryName(4), segment(1, 2)];
  local.push(formatHistoryName(3));
  const plan = planBackfill({ history, segmentBytes, local, stored: new Set() });
  assert.deepEqual(
    plan.map(({ name }) => name),
    [formatHistoryName(3), formatHistoryName(4), segment(1, 2), segment(1, 3), segment(4, 9)],
  );
});

test("of each position at most one segment that ends before the fork is brought", () => {
  const name = fc
    .tuple(fc.integer({ min: 1, max: 5 }), fc.nat(12))
    .map(([timeline, number]) => ({ timeline, number, name: segment(timeline, number) }));
  fc.assert(
    fc.property(fc.uniqueArray(name, { selector: ({ name: one }) => one }), (files) => {
      const local = files.map(({ name: one }) => one);
      const plan = planBackfill({ history, segmentBytes, local, stored: new Set() });
      assert.equal(plan.length, files.length);
      for (const { timeline, number, name: one } of files) {
        const isOurs =
          timeline === 4 || (timeline === 1 && number < 5) || (timeline === 3 && number < 8);
        const step = plan.find((candidate) => candidate.name === one);
        assert.equal(step?.action, isOurs ? "push" : "skip", one);
      }
    }),
  );
});
