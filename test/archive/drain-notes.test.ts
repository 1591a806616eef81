/** When a drainer makes the notes of what it has stored, and who sees them. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { ask, askDrainer } from "../../src/archive/drain-client.ts";
import { drain } from "../../src/archive/drainer.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import { systemClock } from "../../src/io/clock.ts";
import { DRAIN_DEFAULTS } from "../support/drain-defaults.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { until } from "../support/until.ts";

const NAMES = Array.from(
  { length: 40 },
  (_, number) => `000000010000000000000003.000000${number + 10}.backup`,
);
/** No half second ever passes. */
const clock = { ...systemClock, monotonicMs: () => 0 };

/** A drainer of all `NAMES` whose store takes as many as it may. */
async function startDrainer(path: string) {
  const queue = queueIn(join(path, "data"));
  mkdirSync(queue.statusDirectory, { recursive: true });
  for (const name of NAMES) {
    writeFileSync(join(queue.walDirectory, name), name);
    writeFileSync(join(queue.statusDirectory, `${name}.ready`), "");
  }
  const spool = await spoolDirectory({ ...queue, cacheDirectory: path });
  const stop = new AbortController();
  const memory = new MemoryStorage();
  const doors = NAMES.map(() => Promise.withResolvers<void>());
  let asked = 0;
  const beforePut = async (key: string): Promise<void> => {
    if (!key.startsWith("wal_005/")) return;
    const door = doors[asked];
    asked += 1;
    const { promise, reject } = Promise.withResolvers<never>();
    stop.signal.addEventListener("abort", () => reject(stop.signal.reason));
    await Promise.race([door?.promise, promise]);
  };
  const running = drain({
    ...DRAIN_DEFAULTS,
    queue,
    spool,
    openStorage: async () => new HookedStorage(memory, { beforePut }),
    concurrency: 1,
    aheadMax: 32,
    cacheDirectory: join(path, "cache"),
    idleMs: 60_000,
    clock,
    signal: stop.signal,
  });
  const options = { timeoutMs: 20_000, signal: stop.signal };
  return {
    stop,
    running,
    notes: () => readdirSync(spool.notes).filter((name) => NAMES.includes(name)),
    /** Until so many are stored, and the next one is under way. */
    async takes(count: number): Promise<void> {
      doors.slice(0, count).forEach((door) => door.resolve());
      await until(`${count} are stored`, () => asked === count + 1);
    },
    /** As PostgreSQL does. */
    markDone(names: readonly string[]): void {
      for (const name of names) rmSync(join(queue.statusDirectory, `${name}.ready`));
    },
    /** It has heard all that was said before. */
    listens: () => ask(spool.socket, { kind: "status" }, options),
    push: (name: string) =>
      askDrainer(spool.socket, { kind: "push", name, settings: "s" } as const, options),
  };
}

test("a backlog's files get their notes many at a time, and who waits for one is told then", async () => {
  using scratch = scratchDirectory();
  const drainer = await startDrainer(scratch.path);
  const [first = ""] = NAMES;
  await drainer.takes(23);
  const told: string[] = [];
  const asked = drainer.push(first).then(({ kind }) => told.push(kind));
  await drainer.listens();
  assert.deepEqual(drainer.notes(), []);
  assert.deepEqual(told, []);
  await drainer.takes(24);
  await asked;
  assert.deepEqual(told, ["stored"]);
  await until("all of them have theirs", () => drainer.notes().length === 24);
  drainer.stop.abort(new Error("enough"));
  await assert.rejects(drainer.running, /enough/);
});

test("what is asked for goes on in batches, and the end of a backlog is told at once", async () => {
  using scratch = scratchDirectory();
  const drainer = await startDrainer(scratch.path);
  await drainer.takes(24);
  await until("the first ones have their notes", () => drainer.notes().length === 24);
  drainer.markDone(NAMES.slice(0, 24));
  await until("they are not needed any more", () => drainer.notes().length === 0);
  await drainer.takes(35);
  await drainer.listens();
  assert.deepEqual(drainer.notes(), []);
  await drainer.takes(36);
  await until("three left, and one under way", () => drainer.notes().length === 12);
  drainer.stop.abort(new Error("enough"));
  await assert.rejects(drainer.running, /enough/);
});

test("one that is stopped leaves a note of all that it has stored", async () => {
  using scratch = scratchDirectory();
  const drainer = await startDrainer(scratch.path);
  await drainer.takes(7);
  assert.deepEqual(drainer.notes(), []);
  drainer.stop.abort(new Error("enough"));
  await assert.rejects(drainer.running, /enough/);
  assert.equal(drainer.notes().length, 7);
});
