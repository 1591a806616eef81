import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { walPush } from "../../src/commands/wal-push.ts";
import { ServerStopsError, StorageError } from "../../src/errors.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { fail, hang } from "../archive/recorded-storage.ts";
import { openWorkbench, type Workbench } from "../archive/workbench.ts";
import { type CommandRun, runCommand } from "../support/command-run.ts";
import { changeControl, IN_ARCHIVE_RECOVERY, IN_PRODUCTION } from "../support/control-file.ts";
import { recordWal, walFile, onTimeline } from "../support/real-wal.ts";

const wal = await recordWal();
const [first = "", second = "", third = ""] = wal.segments;
const HISTORY = Buffer.from("1\t0/A000000\tno recovery target specified\n");
const LABEL = `${second}.00000028.backup`;
const away = new StorageError("the store is away", { isRetryable: true });

let bench: Workbench;
beforeEach(async () => {
  bench = await openWorkbench();
});
afterEach(() => bench[Symbol.asyncDispose]());

/** A server for whose queue one file is too much. */
async function server(
  directory: string,
  state = IN_PRODUCTION,
  settings: Partial<ReturnType<typeof defaultConfig>> = {},
) {
  await bench.file(`${directory}/global/pg_control`, changeControl(wal.control, { state }));
  const { archiveQueue } = defaultConfig({ cpuCount: 2 });
  const config = {
    ...settings,
    cacheDirectory: join(bench.directory, directory, "cache"),
    archiveQueue: { ...archiveQueue, dropAboveBytes: 1 },
  };
  return {
    async push(name: string, bytes: Uint8Array, policy = "drop"): Promise<CommandRun> {
      const path = await bench.file(`${directory}/pg_wal/${name}`, bytes);
      await bench.file(`${directory}/pg_wal/archive_status/${name}.ready`, Buffer.of());
      const queues: Readonly<Record<string, typeof archiveQueue>> = {
        drop: config.archiveQueue,
        "drop, no backup": { ...config.archiveQueue, isGapBackedUp: false },
      };
      const used = { ...config, archiveQueue: queues[policy] ?? archiveQueue };
      return await runCommand(walPush, bench.storage, [path], used);
    },
    records: () => readdir(join(bench.directory, `${directory}.walnut`, "gaps")),
  };
}

/** The work finds the store away. */
async function whileAway<T>(work: () => Promise<T>): Promise<T> {
  bench.storage.interceptOnce(/./, fail(away));
  return await work();
}

const segment = (name: string) => walFile(wal, name);
const gaps = () => bench.memory.keys.filter((key) => key.startsWith("walnut_005/gaps/"));

test("a segment that is given up is recorded, here first, then in the store", async () => {
  const primary = await server("a");
  const { log } = await whileAway(() => primary.push(first, segment(first)));
  assert.match(log.join("\n"), /WAL SEGMENT GIVEN UP/);
  assert.deepEqual(await primary.records(), [`${first}.json`]);
  await primary.push(second, segment(second));
  assert.deepEqual(await primary.records(), [`${first}.needs-backup`]);
  assert.deepEqual(gaps(), [`walnut_005/gaps/${first}.json`]);
});

test("nothing is given up because the server stops", async () => {
  const primary = await server("a");
  const stops = new ServerStopsError("the store is silent");
  bench.storage.interceptOnce(/./, fail(stops));
  await assert.rejects(primary.push(first, segment(first)), { code: "stopping" });
  assert.deepEqual(await primary.records(), []);
});

test("no backup is asked for where that is turned off", async () => {
  const primary = await server("a");
  const { log } = await whileAway(() => primary.push(first, segment(first), "drop, no backup"));
  assert.match(log.join("\n"), /GIVEN UP.*take a new base backup/);
  await primary.push(second, segment(second), "drop, no backup");
  assert.deepEqual(await primary.records(), []);
  assert.deepEqual(gaps(), [`walnut_005/gaps/${first}.json`]);
});

test("a store that hangs is one that is away, for the very call that waits for it (P16)", async () => {
  const primary = await server("a", IN_PRODUCTION, { walTimeoutMs: 200 });
  bench.storage.interceptOnce(/./, hang);
  const { log } = await primary.push(first, segment(first));
  assert.match(log.join("\n"), /WAL SEGMENT GIVEN UP.*within 0\.2 s|WAL SEGMENT GIVEN UP.*200 ms/);
  assert.deepEqual(await primary.records(), [`${first}.json`]);
});

test("under the policy stop nothing is given up, whatever waits (P16)", async () => {
  const primary = await server("a");
  bench.storage.interceptOnce(/./, fail(away));
  await assert.rejects(primary.push(first, segment(first), "stop"), { message: /is away/ });
  assert.deepEqual(await primary.records(), []);
});

test("what was given up is told to the store also after the policy is stop again", async () => {
  const primary = await server("a");
  await whileAway(() => primary.push(first, segment(first)));
  const { log } = await primary.push(second, segment(second), "stop");
  assert.match(log.join("\n"), /the archive has gaps since the store was away/);
  assert.deepEqual(await primary.records(), [`${first}.needs-backup`]);
  assert.deepEqual(gaps(), [`walnut_005/gaps/${first}.json`]);
});

test("a file that no recovery needs does not keep segments from being given up", async () => {
  const primary = await server("a");
  for (const name of [LABEL, `${first}.partial`]) {
    const bytes = name === LABEL ? Buffer.from("START WAL LOCATION") : segment(first);
    const { log } = await whileAway(() => primary.push(name, bytes));
    assert.match(log.join("\n"), /no recovery needs was given up/);
  }
  assert.deepEqual(await primary.records(), []);
});

test("a history that is put off is stored before the next segment of its timeline", async () => {
  const promoted = await server("b");
  const { log } = await whileAway(() => promoted.push("00000002.history", HISTORY));
  assert.match(log.join("\n"), /put off/);
  const next = onTimeline(wal, third, 2);
  bench.storage.interceptOnce(/^put new wal_005\/00000002.history/, fail(away));
  await promoted.push(next.name, next.bytes);
  assert.ok(!bench.memory.keys.includes(`wal_005/${next.name}.zst`), "the history is missing");
  const later = onTimeline(wal, second, 2);
  await promoted.push(later.name, later.bytes);
  assert.ok(bench.memory.keys.includes("wal_005/00000002.history.zst"));
  assert.ok(bench.memory.keys.includes(`wal_005/${later.name}.zst`));
});

test("a clone does not speak for the server that writes the timeline", async () => {
  await (await server("a")).push(first, segment(first));
  const clone = await server("b");
  const { log } = await clone.push(second, segment(second));
  assert.match(log.join("\n"), /GIVEN UP.*is written by/);
  assert.deepEqual(await clone.records(), [`${second}.json`]);
  // Promoted, it may write; what it gave up before is its own affair still.
  await clone.push("00000002.history", HISTORY);
  const next = onTimeline(wal, third, 2);
  await clone.push(next.name, next.bytes);
  assert.ok(bench.memory.keys.includes(`wal_005/${next.name}.zst`));
  assert.deepEqual(gaps(), []);
  assert.deepEqual(await clone.records(), [`${second}.not-shipped`]);
});

test("a standby tells of what only it had", async () => {
  await (await server("a")).push(first, segment(first));
  const standby = await server("c", IN_ARCHIVE_RECOVERY);
  await whileAway(() => standby.push(second, segment(second)));
  await standby.push(third, segment(third));
  assert.deepEqual(gaps(), [`walnut_005/gaps/${second}.json`]);
  // The server that writes the timeline has the WAL, or a gap of its own.
  assert.deepEqual(await standby.records(), []);
});
