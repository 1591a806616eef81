import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { fc } from "../support/property.ts";
import { BackupFolders } from "../../src/catalogue/backup-folders.ts";
import type { CatalogueBackup } from "../../src/catalogue/catalogue.ts";
import { type SegmentRun, SegmentSet } from "../../src/catalogue/segment-set.ts";
import type { WalView } from "../../src/catalogue/wal-view.ts";
import { planWindows } from "../../src/catalogue/wal-windows.ts";
import { tarFolder } from "../../src/layout/keys.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import type { TimelineHistory } from "../../src/postgres/timeline-history.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";

const MIB = 1024 * 1024;
const LAST = 24;

interface World {
  /** Fork of timelines 2, 3, ...: parent as an index among the older ones, and a segment. */
  readonly forks: readonly { readonly parent: number; readonly segment: number }[];
  /** Missing segments, by timeline index. */
  readonly missing: readonly ReadonlySet<number>[];
  readonly backups: readonly {
    readonly line: number;
    readonly first: number;
    readonly length: number;
  }[];
}

const worlds: fc.Arbitrary<World> = fc.record({
  forks: fc.array(
    fc.record({ parent: fc.nat({ max: 3 }), segment: fc.integer({ min: 2, max: LAST - 2 }) }),
    { maxLength: 3 },
  ),
  missing: fc.array(
    fc.array(fc.integer({ min: 1, max: LAST }), { maxLength: 5 }).map((some) => new Set(some)),
    { minLength: 4, maxLength: 4 },
  ),
  backups: fc.array(
    fc.record({
      line: fc.nat({ max: 3 }),
      first: fc.integer({ min: 1, max: LAST }),
      length: fc.integer({ min: 0, max: 3 }),
    }),
    { maxLength: 5 },
  ),
});

/** In the middle of a segment, so that no border is in the way. */
const positionIn = (segment: number, share = 0.5) =>
  lsn(BigInt(Math.round((segment + share) * MIB)));

function build({ forks, missing, backups }: World) {
  const histories = new Map<number, TimelineHistory>();
  const lines: TimelineHistory[] = [{ timeline: 1, ancestors: [] }];
  for (const { parent, segment } of forks) {
    const from = lines[parent % lines.length] ?? { timeline: 1, ancestors: [] };
    const before = from.ancestors.at(-1)?.endLsn ?? 0n;
    const endLsn = positionIn(segment) > before ? positionIn(segment) : lsn(before);
    const timeline = lines.length + 1;
    const ancestors = [...from.ancestors, { timeline: from.timeline, endLsn, reason: "x" }];
    lines.push({ timeline, ancestors });
    histories.set(timeline, { timeline, ancestors });
  }
  const sets = new Map<number, SegmentSet>();
  for (const [index, { timeline, ancestors }] of lines.entries()) {
    const fork = Math.floor(Number(ancestors.at(-1)?.endLsn ?? lsn(BigInt(MIB))) / MIB);
    const numbers = Array.from({ length: LAST - fork + 1 }, (_, at) => fork + at).filter(
      (number) => missing[index]?.has(number) !== true,
    );
    if (numbers.length > 0) sets.set(timeline, new SegmentSet(timeline, runsOf(numbers)));
  }
  const view: WalView = {
    segmentBytes: MIB,
    sets,
    histories,
    timelines: lines.map(({ timeline }) => timeline),
  };
  return { view, lines, backups: backups.map((one) => toBackup(one, lines)) };
}

function runsOf(numbers: readonly number[]): readonly SegmentRun[] {
  const runs: { first: number; last: number }[] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last !== undefined && last.last + 1 === number) last.last = number;
    else runs.push({ first: number, last: number });
  }
  return runs;
}

function toBackup(
  { line, first, length }: World["backups"][number],
  lines: readonly TimelineHistory[],
): CatalogueBackup {
  const { timeline, ancestors } = lines[line % lines.length] ?? { timeline: 1, ancestors: [] };
  const fork = Math.floor(Number(ancestors.at(-1)?.endLsn ?? 0n) / MIB);
  const start = Math.max(first, fork);
  const name = `base_${formatSegmentName(timeline, BigInt(start), MIB)}`;
  const folders = new BackupFolders();
  folders.add(`${tarFolder(name)}pg_control.tar.lz4`, 1);
  return {
    name,
    folder: folders.get(name),
    timeline,
    high: 0,
    low: start,
    startLsn: positionIn(start, 0.6),
    finishLsn: positionIn(start + length, 0.7),
    isPermanent: false,
    isReadable: true,
    problems: [],
  };
}

/** Whose file holds a segment on the way to a timeline, said in another way than the code does. */
function fileOf({ timeline, ancestors }: TimelineHistory, segment: number): number {
  const left = ancestors.filter(({ endLsn }) => endLsn >= lsn(BigInt((segment + 1) * MIB)));
  return left[0]?.timeline ?? timeline;
}

/** Whether a restore to this timeline gets into a segment: step by step, as recovery goes. */
function isReachable(
  { view, backups }: ReturnType<typeof build>,
  history: TimelineHistory,
  segment: number,
): boolean {
  const fork = Math.floor(Number(history.ancestors.at(-1)?.endLsn ?? 0n) / MIB);
  if (segment < fork) return false;
  return backups.some(({ timeline, startLsn = 0n, finishLsn = 0n }) => {
    const left = history.ancestors.find((one) => one.timeline === timeline)?.endLsn;
    if (timeline !== history.timeline && (left === undefined || left < finishLsn)) return false;
    if (segment < Math.floor(Number(finishLsn) / MIB)) return false;
    for (let at = Math.floor(Number(startLsn) / MIB); at <= segment; at += 1) {
      if (view.sets.get(fileOf(history, at))?.has(at) !== true) return false;
    }
    return true;
  });
}

describe("windows", () => {
  test("hold exactly what recovery reaches, for any timelines, holes and backups", () => {
    fc.assert(
      fc.property(worlds, (world) => {
        const built = build(world);
        const plans = planWindows(built.view, built.backups);
        for (const history of built.lines) {
          const windows =
            plans.find(({ timeline }) => timeline === history.timeline)?.windows ?? [];
          for (let segment = 0; segment <= LAST + 4; segment += 1) {
            const isCovered = windows.some(
              ({ fromLsn, endLsn }) =>
                fromLsn < BigInt((segment + 1) * MIB) && endLsn > BigInt(segment * MIB),
            );
            const what = `timeline ${history.timeline}, segment ${segment}`;
            assert.equal(isCovered, isReachable(built, history, segment), what);
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  test("a backup lacks nothing exactly when some way to its end is there", () => {
    fc.assert(
      fc.property(worlds, (world) => {
        const built = build(world);
        const plans = planWindows(built.view, built.backups);
        for (const { name, timeline, finishLsn, missing } of plans.flatMap((one) => one.backups)) {
          const alone = { ...built, backups: built.backups.filter((one) => one.name === name) };
          const end = Math.floor(Number(finishLsn) / MIB);
          const isWhole = built.lines.some(
            (history) =>
              (history.timeline === timeline ||
                history.ancestors.some((one) => one.timeline === timeline)) &&
              isReachable(alone, history, end),
          );
          if (alone.backups.length === 1) assert.equal(missing.length === 0, isWhole, name);
        }
      }),
      { numRuns: 500 },
    );
  });
});

const worldOf = (missing: readonly number[], backups: readonly (readonly [number, number])[]) => {
  const built = build({
    forks: [],
    missing: [new Set(missing), new Set(), new Set(), new Set()],
    backups: backups.map(([first, length]) => ({ line: 0, first, length })),
  });
  return planWindows(built.view, built.backups)[0];
};

const from = (first: number) => Array.from({ length: LAST }, (_, index) => first + index);

describe("a hole", () => {
  const cases = [
    {
      name: "behind a backup's own WAL, with a backup behind it",
      missing: [6, 7],
      backups: [
        [4, 1],
        [9, 0],
      ],
      isIntended: true,
    },
    {
      name: "in the middle of what follows a backup",
      missing: [7],
      backups: [
        [4, 1],
        [9, 0],
      ],
      isIntended: false,
    },
    { name: "that nothing follows", missing: [6, 7], backups: [[4, 1]], isIntended: false },
    { name: "before every backup", missing: [2], backups: [[4, 1]], isIntended: undefined },
  ] as const;
  for (const { name, missing, backups, isIntended } of cases) {
    test(name, () => {
      const holes = worldOf(missing, backups)?.holes ?? [];
      const relevant = holes.filter(({ first }) => first > 2);
      assert.equal(relevant[0]?.isIntended, isIntended);
    });
  }

  for (const [from, isIntended] of [
    [6, true],
    [7, false],
  ] as const) {
    test(`from segment ${from} to a fork and behind it, with own WAL to 5`, () => {
      const lost = Array.from({ length: LAST }, (_, index) => from + index);
      const built = build({
        forks: [{ parent: 0, segment: 8 }],
        missing: [new Set(lost), new Set([8, 9]), new Set(), new Set()],
        backups: [
          { line: 0, first: 4, length: 1 },
          { line: 1, first: 10, length: 1 },
        ],
      });
      const [, second] = planWindows(built.view, built.backups);
      const found = second?.holes.map(({ first, last, isIntended: is }) => [first, last, is]);
      assert.deepEqual(found, [
        [from, 7, isIntended],
        [8, 9, isIntended],
      ]);
    });
  }

  test("what an old primary streamed and did not archive is a hole before the fork (P08)", () => {
    const lost = new Set(Array.from({ length: LAST }, (_, index) => 6 + index));
    assert.deepEqual(holesBesideFork(lost), [[], [[1, 6, 8, false]]]);
    assert.deepEqual(
      holesBesideFork(new Set([9, ...Array.from({ length: 15 }, (_, n) => 10 + n)])),
      [[], []],
    );
  });
});

describe("a hole before a timeline that no backup leads to", () => {
  const cases = [
    { name: "behind a backup that left the line", lost: [], kept: 0, isIntended: true },
    { name: "behind one that lacks own WAL", lost: [5], kept: 0, isIntended: false },
    { name: "behind more than its own WAL", lost: [], kept: 1, isIntended: false },
  ];
  for (const { name, lost, kept, isIntended } of cases) {
    test(name, () => {
      const built = build({
        forks: [
          { parent: 0, segment: 4 },
          { parent: 1, segment: 6 },
        ],
        missing: [new Set(lost), new Set(from(4 + kept)), new Set(), new Set()],
        backups: [{ line: 0, first: 2, length: 3 }],
      });
      const third = planWindows(built.view, built.backups)[2];
      assert.deepEqual(
        third?.holes.map((hole) => [hole.timeline, hole.first, hole.last, hole.isIntended]),
        [[2, 4 + kept, 5, isIntended]],
      );
    });
  }
});

describe("a hole behind the fork within a second backup, which replay from the first comes through", () => {
  const cases = [
    { name: "from the fork's own segment on (P08)", lost: [7, 8, 9], isIntended: false },
    { name: "from the one behind it to the next backup", lost: [8, 9], isIntended: true },
    { name: "that ends before the next backup", lost: [8], isIntended: false },
    { name: "that begins later", lost: [9], isIntended: false },
  ];
  for (const { name, lost, isIntended } of cases) {
    test(name, () => {
      const built = build({
        forks: [{ parent: 0, segment: 7 }],
        missing: [new Set(), new Set(lost), new Set(), new Set()],
        backups: [
          { line: 0, first: 2, length: 1 },
          { line: 0, first: 4, length: 4 },
          { line: 1, first: 10, length: 1 },
        ],
      });
      const holes = planWindows(built.view, built.backups)[1]?.holes;
      assert.deepEqual(
        holes?.map((hole) => [hole.first, hole.last, hole.isIntended]),
        [[lost[0], lost.at(-1), isIntended]],
      );
    });
  }
});

/** Timeline 1 was left in segment 9 and lacks `lost`; its backup goes from 2 into 3. */
function holesBesideFork(lost: ReadonlySet<number>) {
  const built = build({
    forks: [{ parent: 0, segment: 9 }],
    missing: [lost, new Set(), new Set(), new Set()],
    backups: [{ line: 0, first: 2, length: 1 }],
  });
  return planWindows(built.view, built.backups).map(({ holes }) =>
    holes.map(({ timeline, first, last, isIntended }) => [timeline, first, last, isIntended]),
  );
}

/** Timeline 1 was left in segment 8; a standby's backup goes from 6 into 10, on timeline 2. */
function followedPlans({ own, next }: { readonly own: number[]; readonly next: number[] }) {
  const built = build({
    forks: [{ parent: 0, segment: 8 }],
    missing: [new Set(own), new Set(next), new Set(), new Set()],
    backups: [{ line: 0, first: 6, length: 4 }],
  });
  const backups = built.backups.map((one) => ({ ...one, endTimeline: 2 }));
  return planWindows(built.view, backups);
}

describe("a standby's backup that followed its primary to timeline 2", () => {
  for (const own of [from(8), [], [9]]) {
    const rest = own.length > 1 ? "nothing" : own.length === 1 ? "some" : "all";
    test(`needs timeline 2 from there on, also where timeline 1 has ${rest} behind it`, () => {
      const [first, second] = followedPlans({ own, next: [] });
      assert.deepEqual(
        first?.backups.map(({ missing }) => missing),
        [[]],
      );
      assert.deepEqual(first?.windows, []);
      assert.deepEqual(
        second?.windows.map(({ endLsn, backups }) => [endLsn, backups.length]),
        [[lsn(BigInt((LAST + 1) * MIB)), 1]],
      );
    });
  }

  const cases = [
    { name: "lacks what timeline 1 lacks before", own: [6, ...from(8)], next: [] },
    { name: "lacks what timeline 2 lacks", own: from(8), next: [9] },
  ];
  for (const { name, own, next } of cases) {
    test(name, () => {
      const [first, second] = followedPlans({ own, next });
      assert.notDeepEqual(
        first?.backups.map(({ missing }) => missing),
        [[]],
      );
      assert.deepEqual(second?.windows, []);
    });
  }
});
