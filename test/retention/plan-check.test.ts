import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { silentLog } from "../../src/io/log.ts";
import { timeNsOf } from "../../src/layout/time.ts";
import { checkPlan } from "../../src/retention/plan-check.ts";
import type { RetentionPlan } from "../../src/retention/plan.ts";
import { selectByPolicy } from "../../src/retention/policy.ts";
import { prepareRetention } from "../../src/retention/retention.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { LEFT_TOO_EARLY, NO_HISTORY } from "./known-worlds.ts";
import { Reference } from "./reference.ts";
import { NOW_MS, objectsOf, storageOf, type World, worlds } from "./world.ts";

const RUNS = process.env["WALNUT_LONG"] === undefined ? 60 : 3000;
const options = {
  abandonedAfterMs: 6 * 3_600_000,
  minimumFulls: 1,
  clock: new FakeClock(NOW_MS),
  log: silentLog,
  signal: new AbortController().signal,
};

async function planFor(world: World, pitrDays: number): Promise<RetentionPlan | undefined> {
  const storage = await storageOf(objectsOf(world));
  const policy = { minimumFulls: 1, pitrDays, weekly: 2 };
  const prepared = await prepareRetention(
    storage,
    (survey) => selectByPolicy(survey, policy, timeNsOf(NOW_MS)),
    options,
  );
  return prepared?.plan;
}

/** What `spoiled` removes by it of NO_HISTORY, which has three objects of timeline 1. */
const FIRST_OF_TIMELINE_2 = 2 * 3 + 1;

/** The same plan, with one more thing removed that it keeps: a backup, or an object of WAL. */
function spoiled(plan: RetentionPlan, choice: number): RetentionPlan {
  const backups = plan.backups.filter(({ isKept }) => isKept).map(({ backup }) => backup.name);
  const rows = Array.from({ length: plan.survey.catalogue.wal.count }, (_, row) => row);
  const kept = rows.filter((row) => plan.wal.isKept(row));
  // As likely a backup as a segment.
  const name = choice % 2 === 0 ? backups[(choice >> 1) % backups.length] : undefined;
  const gone = name === undefined ? kept[(choice >> 1) % kept.length] : undefined;
  return {
    ...plan,
    backups: plan.backups.map((one) => ({
      ...one,
      isKept: one.isKept && one.backup.name !== name,
    })),
    wal: { ...plan.wal, isKept: (row) => row !== gone && plan.wal.isKept(row) },
  };
}

/** What a listing would hold, of what the reference looks at. */
function keysAfter(world: World, plan: RetentionPlan): readonly string[] {
  const { wal } = plan.survey.catalogue;
  const removed = new Set<string>();
  for (let row = 0; row < wal.count; row += 1)
    if (!plan.wal.isKept(row)) removed.add(wal.keyAt(row));
  const names = plan.backups.filter(({ isKept }) => !isKept).map(({ backup }) => backup.name);
  const isOfOne = (key: string) =>
    names.some(
      (name) => key.startsWith(`basebackups_005/${name}/`) || key.includes(`/${name}_backup_`),
    );
  return [...objectsOf(world).keys()].filter((key) => !removed.has(key) && !isOfOne(key));
}

/** By the reference, which knows nothing of plans: what somebody who keeps this would miss. */
function isHarmful(world: World, plan: RetentionPlan): boolean {
  const before = new Reference(world, objectsOf(world).keys());
  const after = new Reference(world, keysAfter(world, plan));
  if (before.listed.some(({ name, isPermanent }) => isPermanent && !after.isListed(name)))
    return true;
  return after.listed.some((backup) => {
    if (before.canRestore(backup) && !after.canRestore(backup)) return true;
    if (!plan.selection.replayFrom.has(backup.name)) return false;
    const still = after.reachable(backup);
    return [...before.reachable(backup)].some((segment) => !still.has(segment));
  });
}

test("a plan that would harm what it keeps is refused, whoever made it", async () => {
  let harmful = 0;
  await fc.assert(
    fc.asyncProperty(worlds, fc.nat({ max: 30 }), fc.nat(), async (world, days, choice) => {
      const plan = await planFor(world, days);
      if (plan === undefined) return;
      assert.ok(!isHarmful(world, plan));
      checkPlan(plan);
      const other = spoiled(plan, choice);
      if (!isHarmful(world, other)) return;
      harmful += 1;
      assert.throws(() => checkPlan(other), {
        name: "RefusedError",
        message: /^the plan is refused: /,
        hint: /^Nothing was removed\./,
      });
    }),
    {
      numRuns: RUNS,
      examples: [
        [NO_HISTORY, 0, FIRST_OF_TIMELINE_2],
        [LEFT_TOO_EARLY, 0, 2 * 2 + 1],
      ],
    },
  );
  assert.ok(harmful > RUNS / 5, `${harmful} of ${RUNS} plans were spoiled`);
});

test("a plan that leaves too few full backups is refused", async () => {
  await fc.assert(
    fc.asyncProperty(worlds, async (world) => {
      const plan = await planFor(world, 5);
      const kept = plan?.backups.filter(({ isKept }) => isKept) ?? [];
      if (plan === undefined || kept.length === 0) return;
      const isNone = { ...plan, backups: plan.backups.map((one) => ({ ...one, isKept: false })) };
      assert.throws(() => checkPlan(isNone, 1), { name: "RefusedError" });
    }),
    { numRuns: RUNS / 5 },
  );
});
