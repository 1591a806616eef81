import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { FormatError } from "../../src/errors.ts";
import { lsn, parseLsn } from "../../src/postgres/lsn.ts";
import {
  formatTimelineHistory,
  isAncestor,
  isOnHistory,
  parseTimelineHistory,
  switchPoint,
  timelineOf,
} from "../../src/postgres/timeline-history.ts";
import { postgresFacts, postgresText } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";

for (const major of MAJORS) {
  test(`the history of timeline 3 by PostgreSQL ${major}`, () => {
    const text = postgresText(major, "00000003.history");
    const history = parseTimelineHistory(text, 3);
    const [first, second] = history.ancestors;
    assert.deepEqual([first?.timeline, second?.timeline], [1, 2]);
    assert.equal(first?.reason, "no recovery target specified");
    assert.equal(second?.reason, 'at restore point "here "and" now"');
    const segmentStart = parseLsn(postgresFacts(major).timelines.switchEnd) & ~0xf_ffffn;
    assert.equal(first === undefined ? 0n : first.endLsn & ~0xf_ffffn, segmentStart);
    assert.equal(formatTimelineHistory(history), text);
    const of2 = postgresText(major, "00000002.history");
    assert.deepEqual(parseTimelineHistory(of2, 2).ancestors, [first]);
    assert.equal(formatTimelineHistory(parseTimelineHistory(of2, 2)), of2);
  });
}

test("comments, blank lines and a missing reason are no errors to PostgreSQL", () => {
  const text = "# ours\n\n  1\t0/A0  \n \t# 2\n3 1/0\tbefore 2026-01-01\n";
  assert.deepEqual(parseTimelineHistory(text, 7), {
    timeline: 7,
    ancestors: [
      { timeline: 1, endLsn: 0xa0n, reason: " " },
      { timeline: 3, endLsn: 0x1_0000_0000n, reason: "before 2026-01-01" },
    ],
  });
});

const noEntry = (text: string) =>
  `line 1 of a timeline history is not "timeline, LSN, reason": ${JSON.stringify(text)}`;
const bad = [
  { text: "", message: "history of timeline 4 has no entries" },
  { text: "\n", message: "history of timeline 4 has no entries" },
  { text: "# 1\t0/A0\n", message: "history of timeline 4 has no entries" },
  { text: "1\t0/A0", message: 'history of timeline 4 is cut off: it ends with "1\\t0/A0"' },
  {
    text: "1\t0/A0\tno reco",
    message: 'history of timeline 4 is cut off: it ends with "1\\t0/A0\\tno reco"',
  },
  { text: "x\n", message: noEntry("x") },
  { text: "1\n", message: noEntry("1") },
  { text: "1\tA0\n", message: noEntry("1\tA0") },
  { text: "0\t0/A0\n", message: noEntry("0\t0/A0") },
  { text: "4294967296\t0/A0\n", message: noEntry("4294967296\t0/A0") },
  { text: "1\t0/A0x\n", message: noEntry("1\t0/A0x") },
  { text: "1\t0/123456789\n", message: noEntry("1\t0/123456789") },
  { text: "\0\0\0", message: noEntry("\0\0\0") },
  {
    text: "2\t0/A0\ta\n\n2\t0/A1\tb\n",
    message: "line 3 of a timeline history has timeline 2 after 2",
  },
  { text: "4\t0/A0\ta\n", message: "line 1 of the history of timeline 4 has timeline 4" },
  {
    text: "1\t0/1\ta\n5\t0/A0\ta\n",
    message: "line 2 of the history of timeline 4 has timeline 5",
  },
];

for (const { text, message } of bad) {
  test(`refuses a history: ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseTimelineHistory(text, 4), { name: "FormatError", message });
  });
}

const history = parseTimelineHistory("1\t0/A0\ta\n\n3\t0/B0\tb\n\n4\t0/B0\tc\n", 6);

test("a position belongs to the timeline that had not ended yet", () => {
  const timelines = [0n, 0x9fn, 0xa0n, 0xafn, 0xb0n, 1n << 63n].map((at) =>
    timelineOf(history, lsn(at)),
  );
  assert.deepEqual(timelines, [1, 1, 3, 3, 6, 6]);
});

test("ancestors, and where they were left", () => {
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5, 6, 7].filter((timeline) => isAncestor(history, timeline)),
    [1, 3, 4, 6],
  );
  assert.equal(switchPoint(history, 3), 0xb0n);
  assert.equal(switchPoint(history, 2), undefined);
  assert.equal(switchPoint(history, 6), undefined);
});

test("a backup can be replayed if its timeline was left at its end or later", () => {
  assert.ok(isOnHistory(history, 1, lsn(0xa0n)));
  assert.ok(!isOnHistory(history, 1, lsn(0xa1n)));
  assert.ok(!isOnHistory(history, 2, lsn(1n)));
  assert.ok(isOnHistory(history, 6, lsn(1n << 63n)));
});

const histories = fc
  .array(
    fc.record({
      step: fc.integer({ min: 1, max: 1000 }),
      bytes: fc.bigInt(0n, 1n << 40n),
      reason: fc.string({ unit: "binary" }).map((text) => text.replaceAll("\n", "\r")),
    }),
    { minLength: 1, maxLength: 20 },
  )
  .map((steps) => {
    let [timeline, end] = [0, 0n];
    const ancestors = steps.map(({ step, bytes, reason }) => {
      timeline += step;
      end += bytes;
      return { timeline, endLsn: lsn(end), reason };
    });
    return { timeline: timeline + 1, ancestors };
  });

test("a recovery that ended before the fork of its target left the timeline from before", () => {
  // As PostgreSQL 17 writes it: to LSN 0/D80418, with recovery_target_timeline = 'latest'.
  const text = "1\t0/1280440\tafter LSN 0/1280400\n\n\n2\t0/D80458\tafter LSN 0/D80418\n\n";
  const [left, next] = [0xd80458n, 0xe00000n].map(lsn);
  assert.deepEqual(parseTimelineHistory(text, 3).ancestors, [
    { timeline: 1, endLsn: left, reason: "after LSN 0/D80418" },
  ]);
  const later = parseTimelineHistory(`${text}\n3\t0/E00000\tlater\n`, 4);
  assert.deepEqual(
    later.ancestors.map(({ timeline, endLsn }) => [timeline, endLsn]),
    [
      [1, left],
      [3, next],
    ],
  );
});

/** @source tliOfPointInHistory, src/backend/access/transam/timeline.c */
function timelineByPostgres(
  lines: readonly { readonly timeline: number; readonly endLsn: bigint }[],
  { own, at }: { readonly own: number; readonly at: bigint },
): number | undefined {
  const entries = [...lines, { timeline: own, endLsn: undefined }].map((entry, index) => ({
    ...entry,
    beginLsn: lines[index - 1]?.endLsn ?? 0n,
  }));
  return entries
    .toReversed()
    .find(({ beginLsn, endLsn }) => beginLsn <= at && (endLsn === undefined || at < endLsn))
    ?.timeline;
}

test("each position has the timeline that PostgreSQL gives it, whatever the order of ends", () => {
  const ends = fc.array(fc.bigInt(1n, 20n), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(ends, fc.bigInt(0n, 22n), (all, at) => {
      const lines = all.map((end, index) => ({
        timeline: index + 1,
        endLsn: lsn(end),
        reason: "",
      }));
      const own = all.length + 1;
      const parsed = parseTimelineHistory(
        formatTimelineHistory({ timeline: own, ancestors: lines }),
        own,
      );
      assert.equal(timelineOf(parsed, lsn(at)), timelineByPostgres(lines, { own, at }));
      const sorted = parsed.ancestors.map(({ endLsn }) => endLsn);
      assert.deepEqual(
        sorted,
        sorted.toSorted((one, other) => Number(one - other)),
      );
    }),
  );
});

test("any history survives its text", () => {
  fc.assert(
    fc.property(histories, (any) => {
      assert.deepEqual(parseTimelineHistory(formatTimelineHistory(any), any.timeline), any);
    }),
  );
});

test("each position belongs to one timeline, which reaches beyond it", () => {
  fc.assert(
    fc.property(histories, fc.bigInt(0n, 1n << 44n), (any, at) => {
      const timeline = timelineOf(any, lsn(at));
      assert.ok(isAncestor(any, timeline));
      assert.ok(isOnHistory(any, timeline, lsn(at + 1n)));
      const end = switchPoint(any, timeline);
      assert.ok(end === undefined ? timeline === any.timeline : at < end);
    }),
  );
});

test("any text is a history or a FormatError", () => {
  const words = fc.constantFrom("1", "2", "\t", " ", "\n", "0/A0", "FFFFFFFF/FFFFFFFF", "#", "x");
  fc.assert(
    fc.property(fc.array(words), (parts) => {
      try {
        assert.ok(parseTimelineHistory(parts.join(""), 3).ancestors.length > 0);
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
      }
    }),
    { numRuns: 1000 },
  );
});
