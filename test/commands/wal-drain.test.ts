import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { drainSettings, queueIn } from "../../src/archive/archive-status.ts";
import { askDrainer } from "../../src/archive/drain-client.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import { walDrain } from "../../src/commands/wal-drain.ts";
import { openWorkbench } from "../archive/workbench.ts";
import { commandContext } from "../support/command-run.ts";
import { until } from "../support/until.ts";

const HISTORY = "00000002.history";

test("who waits for a file is told that the store can't be opened, as where it is a dead mount", async () => {
  await using bench = await openWorkbench();
  await bench.file(`data/pg_wal/${HISTORY}`, Buffer.from("1\t0/A000000\tno reason\n"));
  await bench.file(`data/pg_wal/archive_status/${HISTORY}.ready`, Buffer.of());
  const dataDirectory = join(bench.directory, "data");
  const cacheDirectory = join(bench.directory, "cache");
  const spool = await spoolDirectory({ dataDirectory, cacheDirectory });
  const stop = new AbortController();
  const context = {
    ...commandContext(bench.storage, { walTimeoutMs: 200, cacheDirectory }),
    signal: stop.signal,
    openStorage: () => new Promise<never>(() => {}),
    self: { words: ["walnut"], fingerprint: "s", startDetached: () => {} },
  };
  const words = { dataDirectory, except: undefined, isStatus: false };
  const ended = walDrain.run(words, context).catch(() => {});
  const settings = await drainSettings("s", queueIn(dataDirectory));
  const request = { kind: "push", name: HISTORY, settings } as const;
  const limits = { timeoutMs: 60_000, signal: bench.signal };
  const answer = await until("it answers", async () => {
    const asked = await askDrainer(spool.socket, request, limits).catch(String);
    return typeof asked === "string" || asked.kind !== "absent" ? asked : undefined;
  });
  assert.match(JSON.stringify(answer), /opening the storage did not finish within 200 ms/);
  stop.abort(new Error("the test is over"));
  await ended;
});
