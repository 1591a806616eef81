import assert from "node:assert/strict";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { withinDeadline } from "../../src/archive/deadline.ts";
import { isLastCycle, watchLastCycle } from "../../src/archive/last-cycle.ts";
import { changeControl, IN_PRODUCTION } from "../support/control-file.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { recordWal } from "../support/real-wal.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { pause, until } from "../support/until.ts";

const { control } = await recordWal();
const SHUT_DOWN = 1;
const SHUT_DOWN_IN_RECOVERY = 2;
const SHUTTING_DOWN = 3;

let scratch: ReturnType<typeof scratchDirectory>;
let dataDirectory: string;
beforeEach(async () => {
  scratch = scratchDirectory();
  dataDirectory = scratch.path;
  await mkdir(join(dataDirectory, "global"));
});
afterEach(() => scratch[Symbol.dispose]());

async function server(status: string, state: number): Promise<void> {
  const lines = ["4711", dataDirectory, "1763800000", "5432", "/tmp", "*", "1 2", status];
  await writeFile(join(dataDirectory, "postmaster.pid"), `${lines.join("\n")}\n`);
  await writeFile(join(dataDirectory, "global", "pg_control"), changeControl(control, { state }));
}

for (const [status, state, expected] of [
  ["stopping", SHUT_DOWN, true],
  ["stopping", SHUT_DOWN_IN_RECOVERY, true],
  ["stopping", SHUTTING_DOWN, false],
  // A smart stop waits for its sessions, which write WAL.
  ["stopping", IN_PRODUCTION, false],
  ["ready   ", SHUT_DOWN, false],
] as const) {
  test(`${status.trim()}, pg_control's state ${state}: ${expected}`, async () => {
    await server(status, state);
    assert.equal(await isLastCycle(dataDirectory), expected);
  });
}

test("no server, and no files of PostgreSQL's", async () => {
  await server("stopping", SHUT_DOWN);
  await rm(join(dataDirectory, "postmaster.pid"));
  assert.equal(await isLastCycle(dataDirectory), false);
  await server("stopping", SHUT_DOWN);
  await rm(join(dataDirectory, "global"), { recursive: true });
  assert.equal(await isLastCycle(dataDirectory), false);
});

test("a store that is heard of has all the time; a silent one ten seconds", async () => {
  await server("stopping", SHUT_DOWN);
  const clock = new FakeClock();
  const told: number[] = [];
  let heardAtMs = Number.NEGATIVE_INFINITY;
  const watched = { dataDirectory, clock, heardAtMs: () => heardAtMs };
  using _watch = watchLastCycle(watched, (silentMs) => told.push(silentMs));
  await clock.advance(9000);
  heardAtMs = clock.monotonicMs();
  await clock.advance(9000);
  assert.deepEqual(told, []);
  await clock.advance(1000);
  await until("it is told", () => told.length > 0);
  assert.deepEqual(told, [10_000]);
});

test("the work is given up with an error that says what for, and what failed last", async () => {
  await server("stopping", SHUT_DOWN);
  const clock = new FakeClock();
  const lastCycle = { dataDirectory, clock, heardAtMs: () => Number.NEGATIVE_INFINITY };
  const options = { timeoutMs: 600_000, signal: AbortSignal.timeout(60_000), lastCycle };
  const work = withinDeadline(options, async ({ signal, begin }) => {
    begin("storing X");
    await new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  });
  const failing = assert.rejects(work, {
    code: "stopping",
    message:
      "storing X was given up: the server has only this to wait for before it stops, and nothing " +
      "was heard of the store for 10 s",
  });
  await clock.advance(10_000);
  await failing;
});

test("a transfer that gets on is not given its time again while the server waits for it", async () => {
  await server("stopping", SHUT_DOWN);
  const clock = new FakeClock();
  const lastCycle = { dataDirectory, clock, heardAtMs: () => clock.monotonicMs() };
  const options = { timeoutMs: 30, signal: AbortSignal.timeout(60_000), lastCycle };
  const work = withinDeadline(options, async ({ signal, begin, moved }) => {
    begin("storing X");
    while (!signal.aborted) {
      moved(1024 * 1024);
      await pause(1);
    }
    throw signal.reason;
  });
  await assert.rejects(work, {
    code: "stopping",
    message:
      "storing X was given up: the server has only this to wait for before it stops, and it was " +
      "not done within 30 ms",
  });
});
