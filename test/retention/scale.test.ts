import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "../../src/io/log.ts";
import { timeNsOf } from "../../src/layout/time.ts";
import { selectByPolicy } from "../../src/retention/policy.ts";
import {
  applyRetention,
  prepareRetention,
  type PreparedRetention,
} from "../../src/retention/retention.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { type KeySeries, LimitedStorage, type LimitedOptions } from "../support/limited-storage.ts";
import { seededRandom } from "../support/random.ts";
import { NOW_MS, objectsOf, segmentName, type WorldBackup } from "./world.ts";

const IS_LONG = process.env["WALNUT_LONG"] !== undefined;
const SHARE = IS_LONG ? 1 : 20;
const SEGMENTS = 1_000_000 / SHARE;
const BACKUPS = 2000 / SHARE;
const SPACING = SEGMENTS / BACKUPS;
const DAY_MS = 86_400_000;
const signal = AbortSignal.timeout(600_000);

const series: KeySeries = {
  count: SEGMENTS,
  prefix: "wal_005/00000001",
  keyOf: (number) => `wal_005/${segmentName(1, number + 1)}.zst`,
  numberOf: (key) =>
    Number.parseInt(key.slice(16, 24), 16) * 256 + Number.parseInt(key.slice(24, 32), 16) - 1,
};

/** A full backup every seventh day, an increment on it on the others. */
function backups(): readonly WorldBackup[] {
  const made: WorldBackup[] = [];
  for (let index = 0; index < BACKUPS; index += 1) {
    const segment = Math.floor(index * SPACING) + 3;
    const base = index % 7 === 0 ? undefined : made.at(-1);
    const startMs = NOW_MS - (BACKUPS - index) * DAY_MS;
    const suffix = base === undefined ? "" : `_D_${base.name.slice(5, 29)}`;
    made.push({
      name: `base_${segmentName(1, segment)}${suffix}`,
      timeline: 1,
      segment,
      lastSegment: segment + 1,
      base: base?.name,
      startMs,
      finishMs: startMs + 3_600_000,
      isPermanent: index === 0,
      corruptPages: 0,
      hasControl: true,
      isSentinelThere: true,
    });
  }
  return made;
}

function makeStorage(options: Partial<LimitedOptions> = {}): LimitedStorage {
  const clock = new SkippingClock(NOW_MS);
  const objects = objectsOf({ timelines: [], backups: backups() });
  const bytes = new Map([...objects].map(([key, text]) => [key, Buffer.from(text)]));
  const random = seededRandom();
  return new LimitedStorage(series, bytes, {
    clock,
    random,
    deletesPerSecond: 300,
    refusedShare: 0.2,
    ...options,
  });
}

const policy = { windowDays: 14, monthly: 6, minimumFulls: 1 };

function optionsOf() {
  return {
    abandonedAfterMs: DAY_MS,
    minimumFulls: 1,
    clock: new SkippingClock(NOW_MS),
    log: silentLog,
    signal,
  };
}

async function prepare(storage: Storage): Promise<PreparedRetention> {
  const nowNs = timeNsOf(NOW_MS);
  const prepared = await prepareRetention(
    storage,
    (survey) => selectByPolicy(survey, policy, nowNs),
    optionsOf(),
  );
  assert.ok(prepared !== undefined);
  return prepared;
}

test(`${SEGMENTS} segments and ${BACKUPS} backups: planned, removed, and gone on after a kill`, async (t) => {
  const storage = makeStorage();
  // The processor's time: what the machine does for others does not count.
  const before = process.cpuUsage();
  const rssBefore = process.memoryUsage().rss;
  const prepared = await prepare(storage.retrying);
  const { user, system } = process.cpuUsage(before);
  const planMs = (user + system) / 1000;
  const rss = process.memoryUsage().rss;
  const [rssMiB, moreMiB] = [rss / 2 ** 20, (rss - rssBefore) / 2 ** 20];
  // Beside other tests the process holds what they left.
  const memory = `${moreMiB.toFixed(0)} MiB more than before, ${rssMiB.toFixed(0)} MiB resident`;
  t.diagnostic?.(`planned in ${planMs.toFixed(0)} ms, ${memory}`);
  if (IS_LONG) {
    assert.ok(planMs < 30_000, `planned in ${planMs} ms`);
    assert.ok(rssMiB < 300, `${rssMiB} MiB resident`);
  }
  const { wal } = prepared.plan;
  assert.ok(wal.removedCount > SEGMENTS / 2);

  const killed = makeStorage({ killAfterDeletes: Math.floor(wal.removedCount / 2) });
  const half = await prepare(killed.retrying);
  await assert.rejects(applyRetention(killed.retrying, half, { ...optionsOf(), runId: "killed" }), {
    message: "killed",
  });
  assert.ok(killed.seriesCount > SEGMENTS - wal.removedCount);
  assert.ok(killed.objectKeys.some((key) => key.startsWith("walnut_005/removals/")));

  for (const one of [storage, killed.revived()]) {
    const again = await prepare(one.retrying);
    await applyRetention(one.retrying, again, { ...optionsOf(), runId: "whole" });
    assert.equal(one.seriesCount, SEGMENTS - wal.removedCount);
    for (let number = 0; number < SEGMENTS; number += 1) {
      assert.equal(one.has(number), wal.isKept(number));
    }
    assert.ok(one.refusedCount > 0);
    assert.ok(one.largestBatch <= 1000);
    assert.ok(!one.objectKeys.some((key) => key.startsWith("walnut_005/removals/")));
  }
});
