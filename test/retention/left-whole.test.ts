import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { isFailure } from "../../src/catalogue/finding.ts";
import { judgeNames } from "../../src/catalogue/verify-names.ts";
import { planWindows } from "../../src/catalogue/wal-windows.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { silentLog } from "../../src/io/log.ts";
import { timeNsOf } from "../../src/layout/time.ts";
import { selectByPolicy } from "../../src/retention/policy.ts";
import { applyRetention, prepareRetention } from "../../src/retention/retention.ts";
import type { MemoryStorage } from "../support/memory-storage.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { TOUCHING } from "./known-worlds.ts";
import {
  NOW_MS,
  objectsOf,
  segmentName,
  storageOf,
  type World,
  type WorldBackup,
  worlds,
} from "./world.ts";

const RUNS = process.env["WALNUT_LONG"] === undefined ? 60 : 3000;
const options = {
  abandonedAfterMs: 6 * 3_600_000,
  minimumFulls: 1,
  clock: new FakeClock(NOW_MS),
  log: silentLog,
  signal: new AbortController().signal,
};

/** What `verify` says of the names alone. */
async function findings(storage: MemoryStorage) {
  const catalogue = await readCatalogue(storage, options);
  if (catalogue.backups.length === 0) return [];
  const view = walView(catalogue);
  return judgeNames(catalogue, planWindows(view, catalogue.backups), view);
}

const DAY_MS = 86_400_000;

function backup(
  [timeline, segment, lastSegment = segment + 1]: readonly [number, number, number?],
  ageDays: number,
): WorldBackup {
  const startMs = NOW_MS - ageDays * DAY_MS;
  return {
    name: `base_${segmentName(timeline, segment)}`,
    timeline,
    segment,
    lastSegment,
    base: undefined,
    startMs,
    finishMs: startMs + 1000,
    isPermanent: false,
    corruptPages: 0,
    hasControl: true,
    isSentinelThere: true,
  };
}

/** The old backup keeps its own WAL; what goes begins on its timeline and ends on the next one. */
const ACROSS_A_FORK: World = {
  timelines: [
    { id: 1, parent: 0, forkSegment: 1, endSegment: 20, holes: [], hasHistory: false },
    { id: 2, parent: 1, forkSegment: 20, endSegment: 40, holes: [], hasHistory: true },
  ],
  backups: [backup([1, 10], 20), backup([2, 30], 2)],
};

/** Timeline 2 left before the first backup ended: that needs none of its WAL. */
const LEFT_WITHIN: World = {
  timelines: [
    { id: 1, parent: 0, forkSegment: 50, endSegment: 55, holes: [], hasHistory: false },
    { id: 2, parent: 1, forkSegment: 50, endSegment: 65, holes: [], hasHistory: true },
  ],
  backups: [backup([1, 50, 52], 20), backup([2, 51, 51], 10), backup([2, 54, 54], 2)].map(
    (one) => ({ ...one, isPermanent: true }),
  ),
};

/** The first backup is of a standby, which followed its primary to timeline 2. */
const FOLLOWED: World = {
  timelines: [
    { id: 1, parent: 0, forkSegment: 10, endSegment: 21, holes: [], hasHistory: false },
    { id: 2, parent: 1, forkSegment: 20, endSegment: 40, holes: [], hasHistory: true },
  ],
  backups: [
    backup([1, 10], 30),
    { ...backup([1, 19, 22], 20), endTimeline: 2 },
    backup([2, 30], 2),
  ].map((one) => ({ ...one, isPermanent: true })),
};

/** The backup left the line to timeline 3, which no backup leads to: timeline 2 is of no use. */
const LED_BY_NONE: World = {
  timelines: [
    { id: 1, parent: 0, forkSegment: 50, endSegment: 55, holes: [], hasHistory: false },
    { id: 2, parent: 1, forkSegment: 51, endSegment: 53, holes: [], hasHistory: true },
    { id: 3, parent: 2, forkSegment: 52, endSegment: 54, holes: [], hasHistory: true },
  ],
  backups: [backup([1, 50, 52], 20)],
};

test("where verify found nothing wrong, it finds nothing wrong behind expire", async () => {
  let judged = 0;
  await fc.assert(
    fc.asyncProperty(
      worlds,
      fc.nat({ max: 10 }),
      fc.nat({ max: 3 }),
      async (world, pitrDays, weekly) => {
        const whole = {
          timelines: world.timelines.map((one) => ({
            ...one,
            holes: [],
            hasHistory: one.parent !== 0,
          })),
          backups: world.backups.filter(({ isSentinelThere }) => isSentinelThere),
        };
        const storage = await storageOf(objectsOf(whole));
        if (isFailure(await findings(storage))) return;
        const policy = { minimumFulls: 1, pitrDays, weekly };
        const now = timeNsOf(NOW_MS);
        const select = (survey: Parameters<typeof selectByPolicy>[0]) =>
          selectByPolicy(survey, policy, now);
        const prepared = await prepareRetention(storage, select, options);
        if (prepared === undefined || prepared.plan.wal.removedCount === 0) return;
        judged += 1;
        await applyRetention(storage, prepared, { ...options, runId: "1" });
        const faults = (await findings(storage)).filter(({ kind }) => kind !== "note");
        assert.deepEqual(faults, []);
      },
    ),
    {
      numRuns: RUNS,
      examples: [ACROSS_A_FORK, LEFT_WITHIN, FOLLOWED, LED_BY_NONE, TOUCHING].map((one) => [
        one,
        1,
        3,
      ]),
    },
  );
  assert.ok(judged > RUNS / 10, `${judged} of ${RUNS} were judged`);
});
