import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { systemClock } from "../../src/io/clock.ts";
import { formatTimeUtc, timeNsOf } from "../../src/layout/time.ts";
import { selectByPolicy } from "../../src/retention/policy.ts";
import { prepareRetention } from "../../src/retention/retention.ts";
import { soberNow } from "../../src/retention/sober-clock.ts";
import { surveyOf } from "../../src/retention/survey.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { collectingLog } from "../support/restoring.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";
import { NOW_MS, objectsOf, segmentName, storageOf, type WorldBackup } from "./world.ts";

const DAY_MS = 86_400_000;
const YEAR_MS = 365 * DAY_MS;
const signal = AbortSignal.timeout(60_000);

/** A full backup a day, the last of them at NOW_MS. */
const daily = Array.from({ length: 30 }, (_, index): WorldBackup => {
  const segment = 100 + index;
  const finishMs = NOW_MS - (29 - index) * DAY_MS;
  return {
    name: `base_${segmentName(1, segment)}`,
    timeline: 1,
    segment,
    lastSegment: segment,
    base: undefined,
    startMs: finishMs - 1000,
    finishMs,
    isPermanent: false,
    corruptPages: 0,
    hasControl: true,
    isSentinelThere: true,
  };
});
const timelines = [
  { id: 1, parent: 0, forkSegment: 100, endSegment: 131, holes: [], hasHistory: false },
];

async function nowBy(storage: Storage, clockMs: number) {
  const log = collectingLog();
  const survey = surveyOf(await readCatalogue(storage, { signal }));
  const nowNs = await soberNow(storage, survey, { clock: new FakeClock(clockMs), log, signal });
  return { now: formatTimeUtc(nowNs), warnings: log.lines };
}

describe("the time from which retention counts", () => {
  test("is the clock's while the repository is fresh, and while it is empty", async () => {
    const storage = await storageOf(objectsOf({ timelines, backups: daily }));
    const nowMs = NOW_MS + DAY_MS / 2;
    assert.deepEqual(await nowBy(storage, nowMs), { now: "2026-11-22T00:00:00Z", warnings: [] });
    const empty = await storageOf(new Map());
    assert.deepEqual((await nowBy(empty, NOW_MS + YEAR_MS)).warnings, []);
  });

  test("is never more than a day after the newest backup or commit", async () => {
    const storage = await storageOf(objectsOf({ timelines, backups: daily }));
    const { now, warnings } = await nowBy(storage, NOW_MS + YEAR_MS);
    assert.equal(now, "2026-11-22T12:00:00Z");
    assert.match(warnings.join(), /^warning: the repository holds nothing newer: days are counted/);

    await using fixture = await unpackWalgFixture("timelines");
    const real = new DirectoryStorage(fixture.repository, systemClock);
    const { now: byCommit } = await nowBy(real, NOW_MS + YEAR_MS);
    // Its last commit, after its last backup.
    assert.equal(byCommit, "2026-11-22T04:53:30.921536Z");
  });

  test("is the clock's if that is behind: then everything is young", async () => {
    const storage = await storageOf(objectsOf({ timelines, backups: daily }));
    const { now, warnings } = await nowBy(storage, NOW_MS - YEAR_MS);
    assert.equal(now, "2025-11-21T12:00:00Z");
    assert.match(warnings.join(), /^warning: the newest backup is of the future/);
  });

  for (const [what, clockMs] of [
    ["a year ahead", NOW_MS + YEAR_MS],
    ["a year behind", NOW_MS - YEAR_MS],
  ] as const) {
    test(`so a clock ${what} removes nothing that the policy promised`, async () => {
      const storage = await storageOf(objectsOf({ timelines, backups: daily }));
      const prepared = await prepareRetention(
        storage,
        (survey, nowNs) => selectByPolicy(survey, { windowDays: 14, minimumFulls: 1 }, nowNs),
        {
          abandonedAfterMs: DAY_MS,
          minimumFulls: 1,
          clock: new FakeClock(clockMs),
          log: collectingLog(),
          signal,
        },
      );
      const kept = prepared?.plan.backups.filter(({ isKept }) => isKept) ?? [];
      const fromNs = timeNsOf(NOW_MS - 13 * DAY_MS);
      const promised = daily.filter(({ finishMs }) => timeNsOf(finishMs) >= fromNs);
      for (const { name } of promised) {
        assert.ok(
          kept.some(({ backup }) => backup.name === name),
          name,
        );
      }
    });
  }
});
