/** How long the policy "drop" waits for a store, by a clock that the test moves. */
import assert from "node:assert/strict";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import { noteAway, readAway } from "../../src/archive/store-away.ts";
import type { Context } from "../../src/commands/command.ts";
import { pushOrDrop } from "../../src/commands/queue-drop.ts";
import { ConflictError, DeadlineError, type OperationError } from "../../src/errors.ts";
import { untilAborted } from "../../src/io/abort.ts";
import { openWorkbench, type Workbench } from "../archive/workbench.ts";
import { commandContext } from "../support/command-run.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { until } from "../support/until.ts";

const wal = await recordWal();
const [first = "", second = "", third = ""] = wal.segments;
const SEGMENT_BYTES = walFile(wal, first).length;

let bench: Workbench;
beforeEach(async () => {
  bench = await openWorkbench();
});
afterEach(() => bench[Symbol.asyncDispose]());

/** How a call ended, once it has. */
interface Call {
  ended: string | undefined;
}

/** A server two of whose files may wait, and what its pushes found. */
async function server() {
  const clock = new FakeClock();
  const dataDirectory = join(bench.directory, "data");
  for (const name of wal.segments) await bench.file(`data/pg_wal/${name}`, walFile(wal, name));
  await bench.file("data/global/pg_control", wal.control);
  const spool = await spoolDirectory({ dataDirectory, cacheDirectory: bench.directory });
  const place = { queue: queueIn(dataDirectory), spool, dropAboveBytes: 2 * SEGMENT_BYTES };
  const pushTimesMs: number[] = [];
  const mark = (name: string) => join(place.queue.statusDirectory, `${name}.ready`);
  return {
    clock,
    spool,
    pushTimesMs,
    mark: (name: string) => bench.file(`data/pg_wal/archive_status/${name}.ready`, Buffer.of()),
    unmark: (name: string) => rm(mark(name)),
    records: () => readdir(spool.gaps),
    call(name: string, push: (context: Context) => Promise<void>): Call {
      const call: Call = { ended: undefined };
      const path = join(place.queue.walDirectory, name);
      const context = commandContext(bench.storage, {}, clock);
      const noted = async (limited: Context) => {
        pushTimesMs.push(limited.config.walTimeoutMs);
        await push(limited);
      };
      void pushOrDrop({ path, name }, place, context, noted).then(
        () => (call.ended = "success"),
        (error: unknown) => (call.ended = String(error)),
      );
      return call;
    },
    /** Lets time pass while a call runs, each look at the queue at its time. */
    async pass(ms: number, call: Call) {
      for (let passedMs = 0; passedMs < ms && call.ended === undefined; passedMs += 500) {
        const looks = clock.sleeps.length;
        await clock.advance(500);
        const isOver = () => clock.sleeps.length > looks || call.ended !== undefined;
        await until("it has looked", isOver);
      }
    },
  };
}

const hang = async ({ signal }: Context): Promise<void> =>
  await untilAborted(new Promise<never>(() => {}), signal);

const fail = async (): Promise<void> => {
  throw new DeadlineError("it can't be read");
};

async function ended(call: Call): Promise<string | undefined> {
  await until("the call ends", () => call.ended !== undefined);
  return call.ended;
}

test("a push that began in time has ten seconds from when too much waits, the next has none", async () => {
  const one = await server();
  await one.mark(first);
  await one.mark(second);
  const begun = one.call(first, hang);
  await until("it looks", () => one.clock.sleeps.length > 0);
  await one.pass(40_000, begun);
  assert.equal(begun.ended, undefined, "it has the time that it was given");
  await one.mark(third);
  await one.pass(10_000, begun);
  assert.equal(begun.ended, undefined, "too much has not waited for ten seconds");
  await one.pass(1000, begun);
  assert.equal(await ended(begun), "success");
  assert.deepEqual(await one.records(), [`${first}.json`]);

  assert.equal(await ended(one.call(second, hang)), "success");
  assert.deepEqual(await one.records(), [`${first}.json`, `${second}.json`]);
  assert.equal(one.pushTimesMs.length, 1, "nobody asked the store for the second one");

  await one.unmark(first);
  const within = one.call(third, hang);
  await until("it is tried", () => one.pushTimesMs.length === 2);
  await one.mark(first);
  await one.pass(1000, within);
  assert.equal(await ended(within), "success", "it is over as soon as too much waits");
});

test("what is known of a store that is away ends with its time, and with the first success", async () => {
  const one = await server();
  for (const name of [first, second, third]) await one.mark(name);
  const late = async () => {
    await one.clock.advance(10_000);
    throw new DeadlineError("it did not answer");
  };
  assert.equal(await ended(one.call(first, late)), "success");
  await one.clock.advance(29_000);
  assert.equal(await ended(one.call(second, async () => {})), "success");
  assert.deepEqual(one.pushTimesMs, [10_000], "a fourth of the time is for attempts");
  await one.clock.advance(1000);
  assert.equal(await ended(one.call(third, async () => {})), "success");
  assert.deepEqual(one.pushTimesMs, [10_000, 10_000]);

  await noteAway(one.spool, { tookMs: 10_000, reason: "away" }, one.clock);
  await one.unmark(first);
  assert.equal(await ended(one.call(second, async () => {})), "success");
  assert.equal(await readAway(one.spool, one.clock), undefined);
});

const OTHER_FAILURES: readonly (readonly [string, OperationError, number])[] = [
  ["took no time", new DeadlineError("soon"), 0],
  ["is this file's own", new ConflictError("other content"), 10_000],
];
for (const [what, error, tookMs] of OTHER_FAILURES) {
  test(`a failure that ${what} keeps nobody from trying`, async () => {
    const one = await server();
    for (const name of [first, second, third]) await one.mark(name);
    const fails = async () => {
      await one.clock.advance(tookMs);
      throw error;
    };
    assert.equal(await ended(one.call(first, fails)), "success");
    assert.equal(await ended(one.call(second, async () => {})), "success");
    assert.equal(one.pushTimesMs.length, 2);
  });
}

test("a note of a clock that was set back, or a torn one, is not believed", async () => {
  const one = await server();
  await noteAway(one.spool, { tookMs: 10_000, reason: "away" }, one.clock);
  assert.equal(await readAway(one.spool, one.clock), "away");
  assert.equal(await readAway(one.spool, new FakeClock(0)), undefined);
  await bench.file("data.walnut/store-away.json", Buffer.from('{"atMs":'));
  assert.equal(await readAway(one.spool, one.clock), undefined);
});

test("a segment that the disk does not give any more is given up as well", async () => {
  const one = await server();
  for (const name of [first, second, third]) await one.mark(name);
  await rm(join(bench.directory, "data/pg_wal", first));
  assert.equal(await ended(one.call(first, fail)), "success");
  assert.deepEqual(await one.records(), [`${first}.json`]);
});
