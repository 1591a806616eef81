import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { drainLines } from "../../src/archive/drain-protocol.ts";
import { LineServer } from "../../src/archive/line-server.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import type { Context } from "../../src/commands/command.ts";
import { walPush } from "../../src/commands/wal-push.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { OperationError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { openStorage } from "../../src/storage/open.ts";
import { borrowed } from "../../src/storage/overlay.ts";
import { openWorkbench } from "../archive/workbench.ts";
import { runCommand } from "../support/command-run.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { GcsEmulation, gcsConfig } from "../support/gcs-emulation.ts";
import { writeWal } from "../support/wal-writer.ts";

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

test("a bucket that lets nothing be replaced or removed takes all WAL there is (P22)", async () => {
  await using bench = await openWorkbench();
  await using bucket = await GcsEmulation.start({ isRetained: true });
  const { signal } = bench;
  const options = { signal, requestTimeoutMs: 60_000, uploadConcurrency: 2 };
  await using storage = await openStorage(gcsConfig(bucket), options);
  const { segments } = writeWal({ segmentBytes: 1024 * 1024, records: [{ dataBytes: 1_500_000 }] });
  const history = { name: HISTORY, bytes: Buffer.from("1\t0/A000000\tno reason\n") };
  const config = { cacheDirectory: join(bench.directory, "cache") };
  // Twice each: PostgreSQL asks again for what it did not see end well.
  for (const { name, bytes } of [...segments, history, ...segments, history]) {
    const path = await bench.file(`data/pg_wal/${name}`, bytes);
    const { log } = await runCommand(walPush, borrowed(storage), [path], config);
    assert.doesNotMatch(log.join("\n"), /warning|error/);
  }
  for (const { name } of [...segments, history]) await storage.stat(`wal_005/${name}.zst`, options);
  assert.equal(bucket.count("delete"), 0);
});

test("a push whose drainer froze leaves it, has half of the time for itself, and says so", async () => {
  await using bench = await openWorkbench();
  const path = await bench.file(`data/pg_wal/${HISTORY}`, Buffer.from("1\t0/A000000\tno reason\n"));
  await bench.file(`data/pg_wal/archive_status/${HISTORY}.ready`, Buffer.of());
  const defaults = defaultConfig({ cpuCount: 2 });
  const configured = join(bench.directory, "spool");
  const config = {
    ...defaults,
    walTimeoutMs: 1100,
    cacheDirectory: join(bench.directory, "cache"),
    archiveQueue: { ...defaults.archiveQueue, spoolDirectory: configured },
  };
  const spool = await spoolDirectory({ ...config, ...queueIn(dirname(dirname(path))), configured });
  const { isInterim: _, ...frozen } = drainLines((__, answer) => answer({ kind: "taken" }));
  await using _silent = await LineServer.listen(spool.socket, frozen);
  const hanging = new HookedStorage(bench.memory, { beforePut: () => new Promise(() => {}) });
  const context: Context = {
    config,
    log: silentLog,
    clock: systemClock,
    signal: bench.signal,
    workingDirectory: bench.directory,
    write: async () => {},
    progress: { update: () => {}, end: () => {} },
    openStorage: async () => hanging,
    self: { words: ["walnut"], fingerprint: "s", startDetached: () => {} },
  };
  const failure = await walPush
    .run({ path, archiver: undefined }, context)
    .then(() => assert.fail("pushed"), thrown);
  const [, all = "", waited = ""] =
    /^storing .* did not finish within (\d+) ms, (\d+) of them waiting for wal-drain$/.exec(
      failure.message,
    ) ?? [];
  assert.equal(failure.code, "deadline", failure.message);
  // Silent for half of the time, and the other half is for our own push.
  assert.ok(Number(waited) >= 550 && Number(all) - Number(waited) === 550, failure.message);
  assert.ok(failure.hint?.includes(`wal-drain --status\` and ${spool.path}/drain.log`));
});

function thrown(error: unknown): OperationError {
  assert.ok(error instanceof OperationError);
  return error;
}
