import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { walPush } from "../../src/commands/wal-push.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { openWorkbench } from "../archive/workbench.ts";
import { runCommand } from "../support/command-run.ts";

const HISTORY = "00000002.history";

test("a spool that can't be used is said with each file, which is archived nevertheless", async () => {
  await using bench = await openWorkbench();
  const path = await bench.file(`data/pg_wal/${HISTORY}`, Buffer.from("1\t0/A000000\tno reason\n"));
  await bench.file(`data/pg_wal/archive_status/${HISTORY}.ready`, Buffer.of());
  const { archiveQueue } = defaultConfig({ cpuCount: 2 });
  const { log } = await runCommand(walPush, bench.storage, [path], {
    archiveQueue: { ...archiveQueue, spoolDirectory: join(path, "below a file") },
  });
  assert.match(
    log.join("\n"),
    /^warning: WAL is archived file by file.*"reason":"no spool dir.*hint/m,
  );
  assert.ok(bench.memory.keys.includes(`wal_005/${HISTORY}.zst`), log.join("\n"));
});

test("the spool is that of the file's server, whatever PGDATA says, as after pg_ctl -D data", async () => {
  await using bench = await openWorkbench();
  const path = await bench.file(`data/pg_wal/${HISTORY}`, Buffer.from("1\t0/A000000\tno reason\n"));
  await bench.file(`data/pg_wal/archive_status/${HISTORY}.ready`, Buffer.of());
  const { log } = await runCommand(walPush, bench.storage, [path], { dataDirectory: "data" });
  assert.doesNotMatch(log.join("\n"), /warning/);
  assert.ok(bench.memory.keys.includes(`wal_005/${HISTORY}.zst`), log.join("\n"));
});
