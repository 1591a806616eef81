import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { drainSettings, queueIn } from "../../src/archive/archive-status.ts";
import { drain } from "../../src/archive/drainer.ts";
import { ask } from "../../src/archive/drain-client.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import { walPush } from "../../src/commands/wal-push.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { openWorkbench } from "../archive/workbench.ts";
import { commandContext } from "../support/command-run.ts";
import { DRAIN_DEFAULTS } from "../support/drain-defaults.ts";
import { until } from "../support/until.ts";

const HISTORY = "00000002.history";

test("the drainer of another server at the same path does not answer for a file of that name", async () => {
  await using bench = await openWorkbench();
  const { signal } = bench;
  // A primary and its standby in two containers: one path, one repository, and one spool by mistake.
  const theirs = await bench.file(`other/pg_wal/${HISTORY}`, Buffer.from("1\t0/A000000\ttheirs\n"));
  const ours = await bench.file(`data/pg_wal/${HISTORY}`, Buffer.from("1\t0/A000000\tours\n"));
  for (const path of [theirs, ours]) {
    const mark = join(dirname(path), "archive_status", `${HISTORY}.ready`);
    await bench.file(mark.slice(bench.directory.length), Buffer.of());
  }
  const config = { ...defaultConfig({ cpuCount: 2 }), cacheDirectory: bench.directory };
  const spool = await spoolDirectory({ dataDirectory: join(bench.directory, "data"), ...config });
  const queue = queueIn(join(bench.directory, "other"));
  const ended = drain({
    queue,
    spool,
    openStorage: async () => bench.storage,
    ...DRAIN_DEFAULTS,
    cacheDirectory: bench.directory,
    idleMs: 60_000,
    settings: await drainSettings("s", queue),
    signal,
  });
  const status = async () =>
    await ask(spool.socket, { kind: "status" }, { timeoutMs: 9000, signal });
  await until("it has stored theirs", async () => {
    const answer = await status();
    return answer.kind === "status" && answer.status.storedCount === 1;
  });
  const context = {
    ...commandContext(bench.storage, config),
    self: { words: ["walnut"], fingerprint: "s", startDetached: () => {} },
  };
  const pushed = walPush.run({ path: ours, archiver: undefined }, context);
  await assert.rejects(pushed, /archived with other content/);
  assert.equal(await ended, "a call had other settings");
});
