import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { backUpGaps, type GapBackupOptions } from "../../src/archive/gap-backup.ts";
import {
  type GapBackupState,
  readGapBackupState,
  writeGapBackupState,
} from "../../src/archive/gap-backup-state.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import { InterruptedError, RefusedError } from "../../src/errors.ts";
import { describeProcess } from "../../src/io/process-identity.ts";
import { changeControl, IN_ARCHIVE_RECOVERY, IN_PRODUCTION } from "../support/control-file.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { postgresBytes } from "../support/postgres-fixtures.ts";
import { collectingLog } from "../support/restoring.ts";

const FIRST = "000000010000000000000007";
const SECOND = "000000010000000000000008";
const { signal } = new AbortController();

/** Time passes by pauses alone. */
class PausingClock extends SkippingClock {
  override now(): number {
    return this.monotonicMs();
  }
}

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-gap-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** A server's data directory, its spool, and what the store and the database are made to say. */
async function openWorld(gaps: readonly string[]) {
  const dataDirectory = join(directory, "data");
  const queue = queueIn(dataDirectory);
  await mkdir(queue.statusDirectory, { recursive: true });
  await mkdir(join(dataDirectory, "global"));
  await writeFile(join(dataDirectory, "postmaster.pid"), "1\n/x\n1\n5432\n");
  const spool = await spoolDirectory({ dataDirectory, cacheDirectory: join(directory, "cache") });
  for (const name of gaps) await writeFile(join(spool.gaps, `${name}.needs-backup`), "{}");
  const begun: string[] = [];
  const world = {
    queue,
    spool,
    log: collectingLog(),
    clock: new PausingClock(),
    /** Where the newest backup begins. */
    backup: "",
    begun,
    onSleep: async (_count: number): Promise<void> => {},
    async control(state: number): Promise<void> {
      const bytes = changeControl(postgresBytes(17, "pg_control.running"), { state });
      await writeFile(join(dataDirectory, "global", "pg_control"), bytes);
    },
    async run(changes: Partial<GapBackupOptions> = {}): Promise<string> {
      const clock = world.clock;
      let sleeps = 0;
      return await backUpGaps({
        queue,
        spool,
        findUncovered: async (names) => names.filter((name) => name >= world.backup),
        findRunning: async () => undefined,
        takeBackup: async () => {
          world.begun.push(new Date(clock.now()).toISOString());
          world.backup = "000000010000000000000009";
        },
        log: world.log,
        clock: {
          now: () => clock.now(),
          monotonicMs: () => clock.monotonicMs(),
          async sleep(ms, options) {
            sleeps += 1;
            await world.onSleep(sleeps);
            assert.ok(sleeps < 10_000, "it waits for ever");
            await clock.sleep(ms, options);
          },
        },
        signal,
        ...changes,
      });
    },
    wishes: () => readdir(spool.gaps),
    state: () => readGapBackupState(spool),
  };
  await world.control(IN_PRODUCTION);
  return world;
}

test("several gaps get one backup, and nothing is left of them", async () => {
  const world = await openWorld([FIRST, SECOND]);
  assert.equal(await world.run(), "nothing is wanted any more");
  assert.equal(world.begun.length, 1);
  assert.deepEqual(await world.wishes(), []);
  assert.ok(!(await readdir(world.spool.path)).includes("gap-backup.json"));
  assert.equal(await world.run(), "nothing is wanted any more");
  assert.equal(world.begun.length, 1);
});

test("a backup that somebody else began behind the gap counts, one that began in it does not", async () => {
  const taken = await openWorld([FIRST]);
  taken.backup = SECOND;
  await taken.run();
  assert.deepEqual(taken.begun, []);
  assert.deepEqual(await taken.wishes(), []);
});

test("killed after the backup was stored: no second one", async () => {
  const world = await openWorld([FIRST]);
  await world.run({
    takeBackup: async () => {
      world.backup = SECOND;
      throw new RefusedError("killed here");
    },
  });
  assert.deepEqual(world.begun, []);
  assert.deepEqual(await world.wishes(), []);
});

test("killed while the backup ran: the next process waits before it begins a new one", async () => {
  const world = await openWorld([FIRST]);
  const kill = new AbortController();
  const takeBackup = async (): Promise<void> => {
    kill.abort(new InterruptedError("killed"));
    kill.signal.throwIfAborted();
  };
  await assert.rejects(world.run({ takeBackup, signal: kill.signal }), { message: "killed" });
  const { attempts, notBeforeMs } = await world.state();
  assert.equal(attempts, 1);
  assert.equal(notBeforeMs, world.clock.now() + 60_000);
  await world.run();
  assert.equal(world.begun.length, 1);
  assert.ok(Date.parse(world.begun[0] ?? "") >= notBeforeMs);
});

test("a failure is said, noted, and tried again less and less often", async () => {
  const world = await openWorld([FIRST]);
  const times: number[] = [];
  await world.run({
    takeBackup: async () => {
      times.push(world.clock.now());
      if (times.length === 4) world.backup = SECOND;
      else throw new RefusedError("no connection", { hint: "Set PGHOST." });
    },
  });
  const pauses = times.slice(1).map((ms, index) => Math.floor((ms - (times[index] ?? 0)) / 60_000));
  for (const [index, minutes] of [1, 2, 4].entries()) {
    // It looks once a minute at most.
    assert.ok(pauses[index] === minutes || pauses[index] === minutes + 1, pauses.join());
  }
  assert.match(world.log.lines.join("\n"), /error: the backup.*no connection.*Set PGHOST/);

  const old = await openWorldAgain();
  await writeGapBackupState(old.spool, { attempts: 40, notBeforeMs: 0, asked: [] }, { signal });
  const kill = new AbortController();
  const takeBackup = async (): Promise<void> => {
    kill.abort(new InterruptedError("killed"));
    kill.signal.throwIfAborted();
  };
  await assert.rejects(old.run({ takeBackup, signal: kill.signal }), { message: "killed" });
  assert.equal((await old.state()).notBeforeMs - old.clock.now(), 3_600_000);
});

test("what stands in the way is waited for, and told", async () => {
  const world = await openWorld([FIRST]);
  const seen: (string | undefined)[] = [];
  const ready = (name: string) => join(world.queue.statusDirectory, `${name}.ready`);
  await writeFile(join(world.spool.gaps, `${SECOND}.json`), "{}");
  await writeFile(ready("000000010000000000000011"), "");
  await world.control(IN_ARCHIVE_RECOVERY);
  let other: string | undefined = "pg_basebackup";
  let isStoreAway = true;
  world.onSleep = async (count) => {
    assert.ok(count < 500, seen.join());
    const { waitingFor } = await world.state();
    if (waitingFor === seen.at(-1)) return;
    seen.push(waitingFor);
    if (seen.length === 1) await rm(join(world.spool.gaps, `${SECOND}.json`));
    if (seen.length === 2) await world.control(IN_PRODUCTION);
    if (seen.length === 3) await rm(ready("000000010000000000000011"));
    if (seen.length === 4) isStoreAway = false;
    if (seen.length === 5) other = undefined;
    assert.deepEqual(world.begun, []);
  };
  await world.run({
    dropAboveBytes: 1,
    findRunning: async () => other,
    findUncovered: async (names) => {
      if (isStoreAway) throw new RefusedError("the store is away");
      return names.filter((name) => name >= world.backup);
    },
  });
  assert.deepEqual(seen, [
    "the store to take WAL again",
    "this server to be a primary: take the backup where the WAL is made",
    "the queue to be below WALNUT_ARCHIVE_QUEUE_MAX",
    "what can't be found out: the store is away",
    "another backup to end: pg_basebackup",
  ]);
  assert.equal(world.begun.length, 1);
});

test("there is one process, and it ends with the server and with its settings", async () => {
  const world = await openWorld([FIRST]);
  let second = "";
  await world.run({
    findRunning: async () => {
      second ||= await world.run();
      return undefined;
    },
  });
  assert.equal(second, "another one runs");
  assert.equal(world.begun.length, 1);

  const changed = await openWorldAgain();
  assert.equal(await changed.run({ isCurrent: () => false }), "the settings have changed");
  changed.onSleep = () => rm(join(changed.queue.dataDirectory, "postmaster.pid"));
  assert.equal(await changed.run({ findRunning: async () => "b" }), "the server has ended");
  assert.deepEqual(changed.begun, []);
  assert.deepEqual(await changed.wishes(), [`${FIRST}.needs-backup`]);
});

async function openWorldAgain() {
  await rm(directory, { recursive: true });
  await mkdir(directory);
  return await openWorld([FIRST]);
}

test("a command that was understood is not run again, and one that runs on is waited for", async () => {
  const world = await openWorld([FIRST]);
  let runs = 0;
  const takeBackup = async (): Promise<void> => {
    runs += 1;
  };
  world.onSleep = async (count) => {
    if (count === 50) world.backup = SECOND;
    if (count < 50) assert.match((await world.state()).waitingFor ?? "", /command has ordered/);
  };
  await world.run({ takeBackup });
  assert.equal(runs, 1);

  const later = await openWorldAgain();
  const child = spawn("cat", { stdio: ["pipe", "ignore", "ignore"] });
  const commandProcess = describeProcess(String(child.pid));
  const state: GapBackupState = { attempts: 1, notBeforeMs: 0, asked: [], commandProcess };
  await writeGapBackupState(later.spool, state, { signal });
  later.onSleep = async (count) => {
    if (count !== 20) return;
    assert.equal((await later.state()).waitingFor, "the command to end");
    assert.deepEqual(later.begun, []);
    const { promise, resolve } = Promise.withResolvers<void>();
    child.on("exit", () => resolve());
    child.stdin.end();
    await promise;
  };
  await later.run();
  assert.equal(later.begun.length, 1);
});

test("a state that is torn or from the future of a wrong clock stops nothing", async () => {
  const world = await openWorld([FIRST]);
  await writeFile(join(world.spool.path, "gap-backup.json"), '{"version":1,"attem');
  await world.run();
  assert.equal(world.begun.length, 1);
  const ahead = await openWorldAgain();
  const notBeforeMs = ahead.clock.now() + 30 * 24 * 3_600_000;
  await writeGapBackupState(ahead.spool, { attempts: 1, notBeforeMs, asked: [] }, { signal });
  await ahead.run();
  assert.equal(ahead.begun.length, 1);
});
