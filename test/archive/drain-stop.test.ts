/** What a drainer answers when its server stops and the store is silent. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { formatLine, parseAnswer, readLines } from "../../src/archive/drain-protocol.ts";
import { drain } from "../../src/archive/drainer.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import { ServerStopsError } from "../../src/errors.ts";
import { DRAIN_DEFAULTS } from "../support/drain-defaults.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { until } from "../support/until.ts";

const NAMES = ["3", "4"].map((number) => `00000001000000000000000${number}.00000028.backup`);

test("who waits behind a file that was given up for the stop is told so at once", async () => {
  using scratch = scratchDirectory();
  const queue = queueIn(join(scratch.path, "data"));
  mkdirSync(queue.statusDirectory, { recursive: true });
  for (const name of NAMES) {
    writeFileSync(join(queue.walDirectory, name), name);
    writeFileSync(join(queue.statusDirectory, `${name}.ready`), "");
  }
  const spool = await spoolDirectory({ ...queue, cacheDirectory: scratch.path });
  const stop = new AbortController();
  const asked = Promise.withResolvers<void>();
  let puts = 0;
  const beforePut = async (): Promise<void> => {
    puts += 1;
    // The second one hangs: whoever waits for it must not need it.
    await (puts === 1 ? asked.promise : new Promise(() => {}));
    throw new ServerStopsError("the store is silent");
  };
  const running = drain({
    queue,
    spool,
    openStorage: async () => new HookedStorage(new MemoryStorage(), { beforePut }),
    ...DRAIN_DEFAULTS,
    cacheDirectory: join(scratch.path, "cache"),
    timeoutMs: 60_000,
    idleMs: 60_000,
    signal: stop.signal,
  });
  await until("the first one is pushed", () => puts > 0);
  const calls = NAMES.map((name) => call(spool.socket, name));
  await until("both are taken", () => calls.every(({ answers }) => answers.length === 1));
  asked.resolve();
  await until("both are answered", () => calls.every(({ answers }) => answers.length === 2));
  for (const { answers, end } of calls) {
    assert.deepEqual(
      answers.map((answer) => answer?.kind),
      ["taken", "failed"],
    );
    assert.match(JSON.stringify(answers[1]), /"code":"stopping","message":"the store is silent"/);
    end();
  }
  stop.abort(new Error("enough"));
  await assert.rejects(running, /enough/);
});

/** A wal-push, as far as the drainer knows it. */
function call(path: string, name: string) {
  const answers: ReturnType<typeof parseAnswer>[] = [];
  const socket = createConnection({ path });
  readLines(socket, (line) => answers.push(parseAnswer(line)));
  socket.write(formatLine({ kind: "push", name, settings: "s" }));
  return { answers, end: () => socket.destroy() };
}
