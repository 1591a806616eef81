import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { expire } from "../../src/commands/expire.ts";
import type { RetentionConfig } from "../../src/config/config.ts";
import { timeNsOf } from "../../src/layout/time.ts";
import { type RetentionPolicy, selectByPolicy } from "../../src/retention/policy.ts";
import { surveyOf } from "../../src/retention/survey.ts";
import { runCommand } from "../support/command-run.ts";
import type { MemoryStorage } from "../support/memory-storage.ts";
import {
  NOW_MS,
  objectsOf,
  segmentName,
  storageOf,
  type WorldBackup,
  type WorldTimeline,
} from "./world.ts";

const DAY_MS = 86_400_000;
const signal = AbortSignal.timeout(60_000);
const timeline = {
  id: 1,
  parent: 0,
  forkSegment: 1,
  endSegment: 250,
  holes: [],
  hasHistory: false,
};

const nameAt = (days: number): string => `base_${segmentName(1, 200 - days)}`;

/** A full backup `daysAgo`; with `base` an increment on the one of that day. */
function backup(
  daysAgo: number,
  change: { base?: number; corruptPages?: number } = {},
): WorldBackup {
  const base = change.base === undefined ? undefined : nameAt(change.base);
  return {
    name: `${nameAt(daysAgo)}${base === undefined ? "" : `_D_${base.slice(5)}`}`,
    timeline: 1,
    segment: 200 - daysAgo,
    lastSegment: 200 - daysAgo,
    base,
    startMs: NOW_MS - daysAgo * DAY_MS - 3_600_000,
    finishMs: NOW_MS - daysAgo * DAY_MS,
    isPermanent: false,
    corruptPages: change.corruptPages ?? 0,
    hasControl: true,
    isSentinelThere: true,
  };
}

async function repository(
  backups: readonly WorldBackup[],
  timelines: readonly WorldTimeline[] = [timeline],
): Promise<MemoryStorage> {
  return await storageOf(objectsOf({ timelines, backups }));
}

/** Days ago of what stays, each with its reasons. */
async function kept(
  backups: readonly WorldBackup[],
  policy: Omit<RetentionPolicy, "minimumFulls"> & { minimumFulls?: number },
  timelines?: readonly WorldTimeline[],
): Promise<readonly (readonly [number, string])[]> {
  const survey = surveyOf(await readCatalogue(await repository(backups, timelines), { signal }));
  const selection = selectByPolicy(survey, { minimumFulls: 0, ...policy }, timeNsOf(NOW_MS));
  return survey.catalogue.backups.flatMap(({ name, low }) => {
    const reasons = selection.kept.get(name);
    return reasons === undefined ? [] : [[200 - low, reasons.join("; ")] as const];
  });
}

const daysOf = (list: readonly (readonly [number, string])[]) => list.map(([days]) => days);
const NEWEST = "the newest backup without known damage";
const daily = Array.from({ length: 60 }, (_, index) => backup(59 - index));

describe("policy", () => {
  test("newest fulls, with the increments on them", async () => {
    const backups = [
      backup(9),
      backup(8, { base: 9 }),
      backup(7),
      backup(6, { base: 7 }),
      backup(5),
    ];
    assert.deepEqual(await kept(backups, { fullCount: 2 }), [
      [7, "one of the newest 2 full backups"],
      [6, `increment on full backup base_${segmentName(1, 193)}`],
      [5, `one of the newest 2 full backups; ${NEWEST}`],
    ]);
  });

  test("a window keeps what was taken in it and the backup that it begins with", async () => {
    const list = await kept(daily, { windowDays: 7 });
    assert.deepEqual(daysOf(list), [7, 6, 5, 4, 3, 2, 1, 0]);
    assert.equal(list[0]?.[1], "start of the last 7 days");
    assert.equal(list[1]?.[1], "taken within the last 7 days");
    const day = await kept(daily, { windowDays: 1 });
    assert.deepEqual(day[0], [1, "start of the last day"]);
    const none = await kept(daily, { pitrDays: 0 });
    assert.deepEqual(none, [[0, `start of point-in-time recovery; ${NEWEST}`]]);
  });

  test("point-in-time recovery needs one backup; others go", async () => {
    assert.deepEqual(daysOf(await kept(daily, { pitrDays: 7 })), [7, 0]);
  });

  test("one of each day, week, month and year", async () => {
    assert.deepEqual(daysOf(await kept(daily, { daily: 3 })), [2, 1, 0]);
    const weekly = await kept(daily, { weekly: 3 });
    // 2026-11-21 is a Saturday; weeks end with Sunday.
    assert.deepEqual(weekly.slice(0, 2), [
      [13, "newest of week 2026-W45"],
      [6, "newest of week 2026-W46"],
    ]);
    assert.deepEqual(daysOf(await kept(daily, { monthly: 3 })), [52, 21, 0]);
    assert.deepEqual(daysOf(await kept(daily, { yearly: 2 })), [0]);
  });

  test("a full backup stands for its period before an increment", async () => {
    const day = backup(1);
    const later = {
      ...backup(0, { base: 1 }),
      startMs: day.startMs + 60_000,
      finishMs: day.finishMs + 60_000,
    };
    const list = await kept([day, later], { daily: 1 });
    assert.equal(list.find(([days]) => days === 1)?.[1], "newest of day 2026-11-20");
  });

  test("backups with damaged pages count for nothing, and stay if they are the newest", async () => {
    const backups = [
      backup(4),
      backup(3),
      backup(2, { corruptPages: 1 }),
      backup(1, { corruptPages: 1 }),
    ];
    const list = await kept(backups, { fullCount: 1 });
    assert.deepEqual(daysOf(list), [3, 2, 1]);
    assert.match(list[0]?.[1] ?? "", /the newest full backup; the newest backup without/);
    assert.match(list[1]?.[1] ?? "", /^newer than base_\w+, but damaged or not complete$/);
  });

  test("a standby's backup begins nothing where the timeline on which it ended lacks its WAL", async () => {
    const timelines = [
      { ...timeline, endSegment: 200 },
      { ...timeline, id: 2, parent: 1, forkSegment: 190, holes: [191], hasHistory: true },
    ];
    const followed = { ...backup(12), lastSegment: 192, endTimeline: 2 };
    const list = await kept(
      [backup(20, { corruptPages: 1 }), followed],
      { pitrDays: 0 },
      timelines,
    );
    assert.deepEqual(list, [
      [20, "start of point-in-time recovery"],
      [12, NEWEST],
    ]);
  });

  test("never fewer than the minimum", async () => {
    assert.deepEqual(daysOf(await kept(daily, { pitrDays: 0, minimumFulls: 3 })), [2, 1, 0]);
  });

  test("the same whatever order the repository was copied in", async () => {
    const policy = { windowDays: 3, weekly: 2, minimumFulls: 1 };
    const orders = [daily, daily.toReversed()];
    const [one, other] = await Promise.all(orders.map((backups) => kept(backups, policy)));
    assert.deepEqual(one, other);
  });
});

describe("expire", () => {
  const policy: RetentionConfig = { pitrDays: 7, monthly: 2, minimumFulls: 1 };

  test("shows each decision with its reason, and then does it", async () => {
    const recent = Array.from({ length: 60 }, (_, index) => {
      const one = backup(59 - index);
      const shiftMs = Date.now() - NOW_MS;
      return { ...one, startMs: one.startMs + shiftMs, finishMs: one.finishMs + shiftMs };
    });
    const storage = await repository(recent);
    const before = storage.keys;
    const dry = await runCommand(expire, storage, [], { retention: policy });
    assert.deepEqual(storage.keys, before);
    assert.match(dry.stdout, /^keep {3}backup base_\w+ \S+Z newest of month \d{4}-\d\d$/m);
    assert.match(dry.stdout, /^remove backup base_\w+ \S+Z nothing keeps it$/m);
    assert.match(
      dry.stdout,
      /^keep {3}wal {4}\w+\.\.\w+ \(\d+ objects, \d+ bytes\) own WAL of backup base_/m,
    );
    assert.match(dry.stdout, /^keep {3}wal {4}.* WAL for point-in-time recovery since base_/m);
    const line =
      /^after this every time since the end of (base_\w+) \((\S+Z)\) can be restored to$/m;
    const [, start = "", since = ""] = line.exec(dry.stdout) ?? [];
    assert.match(
      dry.stdout,
      new RegExp(`^keep {3}backup ${start} ${since} start of .* of point-in`, "m"),
    );
    assert.match(dry.log.at(-1) ?? "", /^info: Dry run: nothing was removed/);

    const json: {
      recovery: unknown;
      backups: { action: string; reasons: string[] }[];
      wal: { action: string }[];
    } = JSON.parse((await runCommand(expire, storage, ["--json"], { retention: policy })).stdout);
    assert.deepEqual(json.recovery, { since, backup: start });
    for (const { action, reasons } of json.backups) {
      assert.equal(action, reasons.length > 0 ? "keep" : "remove");
    }
    assert.ok(json.wal.some(({ action }) => action === "remove"));

    await runCommand(expire, storage, ["--confirm"], { retention: policy });
    const sentinels = storage.keys.filter((key) => key.endsWith("_sentinel.json"));
    assert.equal(sentinels.length, json.backups.filter(({ action }) => action === "keep").length);
    const again = await runCommand(expire, storage, ["--confirm"], { retention: policy });
    assert.match(again.log.at(-1) ?? "", /Objects deleted successfully.*0/);
  });

  test("says so where no backup leads to the archive's end", async () => {
    const cut = { ...timeline, holes: [220] };
    const storage = await storageOf(objectsOf({ timelines: [cut], backups: [backup(1)] }));
    const retention = { ...policy, minimumFulls: 1 };
    const { stdout } = await runCommand(expire, storage, [], { retention });
    assert.match(stdout, /^after this no backup leads to the end of the archive: each can/m);
    const json: { recovery: unknown } = JSON.parse(
      (await runCommand(expire, storage, ["--json"], { retention })).stdout,
    );
    assert.equal(json.recovery, null);
  });

  test("without a policy it does nothing; without backups neither", async () => {
    const storage = await repository([backup(1)]);
    await assert.rejects(runCommand(expire, storage, ["--confirm"]), {
      name: "ConfigError",
      message: "no retention policy is configured",
    });
    const noughts = { windowDays: 0, pitrDays: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
    await assert.rejects(
      runCommand(expire, storage, ["--confirm"], { retention: { ...noughts, minimumFulls: 1 } }),
      { message: "no retention policy is configured" },
    );
    const empty = await repository([]);
    const before = empty.keys;
    await runCommand(expire, empty, ["--confirm"], { retention: policy });
    assert.deepEqual(empty.keys, before);
  });
});
