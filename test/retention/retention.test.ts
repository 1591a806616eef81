import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { recoveryStart } from "../../src/retention/after-plan.ts";
import { silentLog } from "../../src/io/log.ts";
import { timeNsOf } from "../../src/layout/time.ts";
import { type DeleteRequest, selectForDelete } from "../../src/retention/delete-selection.ts";
import { type RetentionPolicy, selectByPolicy } from "../../src/retention/policy.ts";
import {
  applyRetention,
  prepareRetention,
  type PreparedRetention,
} from "../../src/retention/retention.ts";
import type { Selection } from "../../src/retention/selection.ts";
import type { Survey } from "../../src/retention/survey.ts";
import type { CallOptions, ObjectKey, Storage } from "../../src/storage/storage.ts";
import { FakeClock } from "../support/fake-clock.ts";
import type { MemoryStorage } from "../support/memory-storage.ts";
import { Reference } from "./reference.ts";
import { BROKEN, CUT_SHORT, FORK_HOLES, ONE_HISTORY, SIBLING } from "./known-worlds.ts";
import { NOW_MS, objectsOf, segmentName, storageOf, type World, worlds } from "./world.ts";

const RUNS = process.env["WALNUT_LONG"] === undefined ? 100 : 5000;
const DAY_MS = 86_400_000;
const { signal } = new AbortController();
const options = {
  abandonedAfterMs: 6 * 3_600_000,
  clock: new FakeClock(NOW_MS),
  log: silentLog,
  signal,
};
const rules = { nowNs: timeNsOf(NOW_MS), isByTime: false };

/** What a user asks for. */
type Wish =
  | { readonly kind: "policy"; readonly policy: RetentionPolicy }
  | { readonly kind: "delete"; readonly request: DeleteRequest };

const count = fc.integer({ min: 1, max: 4 });
const maybe = (least: number, most: number) =>
  fc.option(fc.integer({ min: least, max: most }), { nil: undefined });

const policies: fc.Arbitrary<Wish> = fc
  .record({
    fullCount: maybe(1, 4),
    windowDays: maybe(0, 30),
    daily: maybe(0, 3),
    weekly: maybe(0, 3),
    monthly: maybe(0, 2),
    yearly: maybe(0, 1),
    pitrDays: maybe(0, 30),
    minimumFulls: fc.integer({ min: 0, max: 3 }),
  })
  .map((policy) => ({ kind: "policy" as const, policy }));

/** Promises of a time, with nothing beside them that would keep them by chance. */
const promises: fc.Arbitrary<Wish> = fc
  .record({ days: fc.integer({ min: 0, max: 40 }), isWindow: fc.boolean() })
  .map(({ days, isWindow }) => ({
    kind: "policy" as const,
    policy: { minimumFulls: 0, ...(isWindow ? { windowDays: days } : { pitrDays: days }) },
  }));

const requests: fc.Arbitrary<Wish> = fc
  .oneof(
    fc.record({
      kind: fc.constant("retain" as const),
      count,
      modifier: fc.constantFrom("FULL" as const, "FIND_FULL" as const),
    }),
    fc.record({
      kind: fc.constant("before" as const),
      target: fc
        .integer({ min: 0, max: 60 })
        .map((days) => new Date(NOW_MS - days * DAY_MS).toISOString()),
      modifier: fc.constant("FIND_FULL" as const),
    }),
    fc.record({
      kind: fc.constant("garbage" as const),
      scope: fc.constantFrom("all" as const, "archives" as const, "backups" as const),
      isBackupCheckLeftOut: fc.boolean(),
    }),
  )
  .map((request) => ({ kind: "delete" as const, request }));

const wishes = fc.oneof({ weight: 3, arbitrary: policies }, { weight: 2, arbitrary: requests });

function selectorOf(wish: Wish): (survey: Survey) => Selection | undefined {
  return (survey) =>
    wish.kind === "policy"
      ? selectByPolicy(survey, wish.policy, rules.nowNs)
      : selectForDelete(survey, wish.request, rules);
}

async function run(storage: Storage, wish: Wish): Promise<PreparedRetention | undefined> {
  const minimumFulls = wish.kind === "policy" ? wish.policy.minimumFulls : 0;
  const all = { ...options, minimumFulls };
  const prepared = await prepareRetention(storage, selectorOf(wish), all);
  if (prepared !== undefined) await applyRetention(storage, prepared, { ...all, runId: "1" });
  return prepared;
}

const segmentKeys = (keys: readonly string[]): readonly string[] =>
  keys.filter((key) => /^wal_005\/[0-9A-F]{24}\.zst$/.test(key));

test("what is kept can be restored, and nothing is kept without a reason", async () => {
  await fc.assert(
    fc.asyncProperty(worlds, wishes, async (world, wish) => {
      const objects = objectsOf(world);
      const before = new Reference(world, objects.keys());
      const storage = await storageOf(objects);
      const prepared = await run(storage, wish);
      const after = new Reference(world, storage.keys);
      for (const backup of after.listed) {
        assert.ok(before.isListed(backup.name));
        if (before.canRestore(backup)) assert.ok(after.canRestore(backup), backup.name);
      }
      for (const { name, isPermanent } of before.listed) {
        if (isPermanent) assert.ok(after.isListed(name));
      }
      for (const key of objects.keys()) {
        const isNeverOurs =
          key.endsWith(".history") || /^(walnut_005|somebody|wal_005\/notes)/.test(key);
        if (isNeverOurs) assert.ok(storage.keys.includes(key), key);
      }
      assert.deepEqual(
        storage.keys.filter((key) => !objects.has(key)),
        [],
      );
      if (prepared === undefined) return;
      const { replayFrom } = prepared.plan.selection;
      for (const backup of after.listed) {
        if (!replayFrom.has(backup.name)) continue;
        assert.deepEqual(after.reachable(backup), before.reachable(backup));
      }
      assertAllJustified(world, storage, prepared);
      const left = storage.keys;
      await run(storage, wish);
      assert.deepEqual(storage.keys, left);
    }),
    {
      numRuns: RUNS,
      examples: [[CUT_SHORT, { kind: "policy", policy: { minimumFulls: 0, pitrDays: 0 } }]],
    },
  );
});

/** Each segment that is left is of use to something that is left. */
function assertAllJustified(
  world: World,
  storage: MemoryStorage,
  { plan: { selection, unfinished } }: PreparedRetention,
): void {
  if (!selection.scope.hasWal) return;
  const after = new Reference(world, storage.keys);
  const own = new Set(
    after.listed.flatMap(({ timeline, segment, lastSegment }) => {
      const span = Array.from({ length: lastSegment - segment + 1 }, (_, index) => segment + index);
      const later = world.timelines.filter(({ id }) => id >= timeline);
      return later.flatMap(({ id }) => span.map((number) => segmentName(id, number)));
    }),
  );
  const running = unfinished.filter(({ mayBeRunning }) => mayBeRunning);
  const leading = world.timelines.filter(({ id }) => {
    const isBehind = (timeline: number): boolean => id >= timeline;
    return (
      after.listed.some((backup) => isBehind(backup.timeline)) ||
      running.some((judged) => isBehind(judged.unfinished.timeline))
    );
  });
  const newest = world.timelines.at(-1)?.id;
  for (const key of segmentKeys(storage.keys)) {
    const name = key.slice(8, 32);
    if (own.has(name)) continue;
    const timeline = Number.parseInt(name.slice(0, 8), 16);
    const isBehindOne = leading.some(({ id }) => id === timeline);
    assert.ok(isBehindOne || timeline === newest, `${name} is of no use`);
    const starts = [
      ...after.listed.filter((one) => one.timeline === timeline),
      ...world.backups.filter(
        (one) =>
          one.timeline === timeline &&
          running.some((judged) => judged.unfinished.name === one.name),
      ),
    ].map(({ segment }) => segment);
    const isOnlyOwn = !world.timelines.some(({ id, parent }) => id === timeline && parent !== 0);
    if (isOnlyOwn && timeline !== newest) assert.ok(Math.min(...starts) <= segmentOf(name), name);
  }
}

function segmentOf(name: string): number {
  return Number.parseInt(name.slice(8, 16), 16) * 256 + Number.parseInt(name.slice(16), 16);
}

test("a copy in another order is treated alike, whatever its objects' times are (P26)", async () => {
  await fc.assert(
    fc.asyncProperty(worlds, wishes, fc.nat(), async (world, wish, seed) => {
      const objects = objectsOf(world);
      const keys = [...objects.keys()];
      const shuffled = keys.toSorted((one, other) => mix(one, seed) - mix(other, seed));
      const [first, second] = await Promise.all([
        storageOf(objects, keys),
        storageOf(objects, shuffled),
      ]);
      await run(first, wish);
      await run(second, wish);
      assert.deepEqual(second.keys, first.keys);
    }),
    { numRuns: RUNS / 2 },
  );
});

function mix(key: string, seed: number): number {
  let value = seed;
  for (const character of key) value = Math.imul(value ^ character.charCodeAt(0), 0x9e3779b1) >>> 0;
  return value;
}

/** Usable backups with the segments that each reaches on the way to the newest timeline. */
function reachesOf(reference: Reference) {
  return reference.listed.flatMap((backup) => {
    const isUsable = reference.isClean(backup) && reference.canRestore(backup);
    const names = isUsable ? reference.reachableOnLine(backup) : undefined;
    return names === undefined ? [] : [{ backup, names }];
  });
}

/** Whatever a restore could get to behind the promise's start, it still gets to. */
function assertSameReach(before: Reference, after: Reference, fromMs: number): void {
  const all = reachesOf(before);
  const ready = all.filter(({ backup }) => backup.finishMs <= fromMs);
  const from = Math.max(0, ...ready.map(({ backup }) => backup.lastSegment));
  const still = new Set(reachesOf(after).flatMap(({ names }) => names));
  for (const name of all.flatMap(({ names }) => names)) {
    if (segmentOf(name) > from) assert.ok(still.has(name), `${name} was reachable`);
  }
}

/** What is told to hold afterwards holds, and nothing better does. */
function assertRecoveryStart(after: Reference, { plan }: PreparedRetention, last: number): void {
  const own = after.segmentsOf(last).at(-1);
  if (own === undefined) return;
  const start = recoveryStart(plan);
  const toEnd = reachesOf(after).filter(
    ({ backup, names }) => (names.at(-1) ?? segmentName(last, backup.lastSegment)) === own,
  );
  const ends = toEnd.map(({ backup }) => backup.lastSegment);
  const told = toEnd.find(({ backup }) => backup.name === start?.name)?.backup;
  assert.equal(told?.lastSegment ?? Infinity, Math.min(...ends), start?.name ?? "nothing");
}

test("every promised time stays reachable on the way to the newest timeline", async () => {
  await fc.assert(
    fc.asyncProperty(worlds, fc.oneof(promises, policies), async (world, wish) => {
      if (wish.kind !== "policy") return;
      const days = Math.max(wish.policy.windowDays ?? -1, wish.policy.pitrDays ?? -1);
      if (days < 0) return;
      // Without its history PostgreSQL could not follow it either.
      const last = world.timelines.at(-1);
      if (last === undefined || (last.id > 1 && !last.hasHistory)) return;
      const objects = objectsOf(world);
      const before = new Reference(world, objects.keys());
      const storage = await storageOf(objects);
      const prepared = await run(storage, wish);
      const after = new Reference(world, storage.keys);
      if (prepared !== undefined) assertRecoveryStart(after, prepared, last.id);
      const newest = segmentName(last.id, 0).slice(0, 8);
      for (let step = 0; step <= 10; step += 1) {
        const atMs = NOW_MS - (days * DAY_MS * step) / 10;
        const leading = before.listed.filter(
          (backup) =>
            backup.finishMs <= atMs &&
            before.isClean(backup) &&
            before.canRestore(backup) &&
            [...before.reachable(backup)].some((name) => name.startsWith(newest)),
        );
        if (leading.length === 0) continue;
        const still = after.listed.filter(
          (backup) =>
            backup.finishMs <= atMs &&
            after.canRestore(backup) &&
            [...after.reachable(backup)].some((name) => name.startsWith(newest)),
        );
        assert.ok(still.length > 0, `${new Date(atMs).toISOString()} was reachable`);
      }
      assertSameReach(before, after, NOW_MS - days * DAY_MS);
    }),
    {
      numRuns: RUNS,
      examples: [
        [SIBLING, { kind: "policy", policy: { minimumFulls: 0, pitrDays: 38 } }],
        [BROKEN, { kind: "policy", policy: { minimumFulls: 0, pitrDays: 38 } }],
        [FORK_HOLES, { kind: "policy", policy: { minimumFulls: 0, pitrDays: 34 } }],
        [ONE_HISTORY, { kind: "policy", policy: { minimumFulls: 0, pitrDays: 0 } }],
      ],
    },
  );
});

class Killed extends Error {}

/** Dies after so many objects were removed or written, in the middle of a batch if need be. */
class DyingStorage implements Storage {
  readonly name = "dying";
  readonly inner: MemoryStorage;
  #left: number;

  constructor(inner: MemoryStorage, left: number) {
    this.inner = inner;
    this.#left = left;
  }

  get(...args: Parameters<Storage["get"]>) {
    return this.inner.get(...args);
  }

  async put(...args: Parameters<Storage["put"]>): Promise<void> {
    this.#step();
    await this.inner.put(...args);
  }

  stat(...args: Parameters<Storage["stat"]>) {
    return this.inner.stat(...args);
  }

  list(...args: Parameters<Storage["list"]>) {
    return this.inner.list(...args);
  }

  /** A store may take the keys of one request in any order. */
  async delete(keys: readonly ObjectKey[], call: CallOptions): Promise<void> {
    for (const key of keys.toReversed()) {
      this.#step();
      await this.inner.delete([key], call);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #step(): void {
    if (this.#left <= 0) throw new Killed();
    this.#left -= 1;
  }
}

test("a kill at any point leaves no backup that is listed and lost; the next run ends it", async () => {
  await fc.assert(
    fc.asyncProperty(
      worlds,
      wishes,
      fc.oneof(fc.nat({ max: 8 }), fc.nat({ max: 80 })),
      async (world, wish, steps) => {
        const objects = objectsOf(world);
        const before = new Reference(world, objects.keys());
        const whole = await storageOf(objects);
        await run(whole, wish);
        const storage = await storageOf(objects);
        await run(new DyingStorage(storage, steps), wish).catch((error: unknown) => {
          if (!(error instanceof Killed)) throw error;
        });
        const after = new Reference(world, storage.keys);
        for (const backup of after.listed) {
          if (before.canRestore(backup)) assert.ok(after.canRestore(backup), backup.name);
        }
        await run(storage, wish);
        const left = storage.keys.filter((key) => !whole.keys.includes(key));
        assert.deepEqual(left, []);
        for (const key of whole.keys) assert.ok(storage.keys.includes(key), key);
      },
    ),
    { numRuns: RUNS },
  );
});
