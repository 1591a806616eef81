import assert from "node:assert/strict";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { LineServer } from "../../src/archive/line-server.ts";
import { prefetchLines } from "../../src/archive/prefetch-protocol.ts";
import { isBackup, readSegmentBefore } from "../../src/archive/recovery-watch.ts";
import type { Context } from "../../src/commands/command.ts";
import { prefetchSpool, recoveryOf } from "../../src/commands/fetch-ahead.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { postgresBytes, postgresText } from "../support/postgres-fixtures.ts";

const RECOVERY = "4711-0123abcd";
const config = { ...defaultConfig({ cpuCount: 2 }), cacheDirectory: "/none" };

let home: string;
let data: string;
let started: string[][];
beforeEach(async () => {
  home = await realpath(await mkdtemp(join(tmpdir(), "walnut-ahead-")));
  data = join(home, "data");
  started = [];
  await mkdir(join(data, "pg_wal"), { recursive: true });
  await mkdir(join(data, "global"));
  await writeFile(join(data, "global", "pg_control"), postgresBytes(17, "pg_control.running"));
  await writeFile(join(data, "postmaster.pid"), "1\n");
});
afterEach(() => rm(home, { recursive: true }));

function context(): Context {
  return {
    config,
    log: silentLog,
    clock: systemClock,
    signal: AbortSignal.timeout(60_000),
    workingDirectory: data,
    write: async () => {},
    progress: { update: () => {}, end: () => {} },
    openStorage: async () => assert.fail("no store is needed"),
    self: {
      words: ["walnut"],
      fingerprint: "s",
      startDetached: (words) => void started.push([...words]),
    },
  };
}

const backupLabel = (text = postgresText(17, "backup_label")) =>
  writeFile(join(data, "backup_label"), text);

/** A recovery asks for the first history that it does not have. */
const askForHistory = (destination = join(data, "pg_wal", "RECOVERYHISTORY")) =>
  recoveryOf({ name: "00000002.history", destination, recovery: RECOVERY }, context());

test("with the history that a recovery from a backup asks for, fetching ahead begins", async () => {
  await backupLabel();
  assert.equal(await askForHistory(), undefined);
  assert.deepEqual(started, [["wal-prefetch", data, "--begin", "--recovery", RECOVERY]]);
});

test("none begins for a standby that looks for new histories, nor for a person", async () => {
  await askForHistory();
  await backupLabel();
  await askForHistory(join(home, "00000002.history"));
  assert.deepEqual(started, []);
});

test("none begins where one lives", async () => {
  await backupLabel();
  const spool = await prefetchSpool(data, config);
  await mkdir(join(spool.prefetch, "run-1"));
  await using _living = await LineServer.listen(
    spool.prefetchSocket,
    prefetchLines((_, answer) => answer({ kind: "declined", reason: "any" })),
  );
  await askForHistory();
  assert.deepEqual(started, []);
});

test("it begins with the segment of the backup's checkpoint, or says why it can't", async () => {
  const queue = queueIn(data);
  assert.equal(isBackup(queue), false);
  assert.equal(await readSegmentBefore(queue), undefined);
  const label = postgresText(17, "backup_label");
  await backupLabel(label.replace(/CHECKPOINT LOCATION: \S+/, "CHECKPOINT LOCATION: 1/00000060"));
  assert.equal(isBackup(queue), true);
  // 1 MiB segments: 4096 to each 4 GiB.
  assert.equal(await readSegmentBefore(queue), "000000010000000000000FFF");
  await backupLabel(label.slice(20));
  await assert.rejects(readSegmentBefore(queue), { name: "FormatError" });
  await rm(join(data, "backup_label"));
  await mkdir(join(data, "backup_label"));
  await assert.rejects(readSegmentBefore(queue), { name: "LocalFileError" });
});
