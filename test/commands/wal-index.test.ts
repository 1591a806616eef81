import assert from "node:assert/strict";
import { basename } from "node:path";
import { test } from "node:test";
import type { Context } from "../../src/commands/command.ts";
import { IndexStarter, walIndex } from "../../src/commands/wal-index.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { overlay } from "../../src/storage/overlay.ts";
import { openWorkbench } from "../archive/workbench.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { writeWal } from "../support/wal-writer.ts";

/** Started processes, as the names of their files, and what ends each. */
interface Started {
  readonly names: readonly string[];
  readonly end: () => void;
}

function starter({ isIndexing = true, isStarting = true } = {}) {
  const started: Started[] = [];
  const config = defaultConfig({ cpuCount: 2 });
  const context: Context = {
    config: {
      ...config,
      archiveQueue: { ...config.archiveQueue, isIndexingCommits: isIndexing },
    },
    log: silentLog,
    clock: systemClock,
    signal: AbortSignal.timeout(60_000),
    workingDirectory: "/data",
    write: async () => {},
    progress: { update: () => {}, end: () => {} },
    openStorage: async () => assert.fail("no store is needed"),
    self: {
      words: ["walnut"],
      fingerprint: "s",
      startDetached: ([command, ...paths], outputPath, use) => {
        if (!isStarting) throw new Error("ENOSPC");
        assert.deepEqual(
          [command, outputPath, use?.isBackground],
          ["wal-index", "/spool/index.log", true],
        );
        started.push({
          names: paths.map((path) => basename(path)),
          end: use?.onEnd ?? assert.fail,
        });
      },
    },
  };
  const spool = { path: "/spool" };
  return {
    context,
    started,
    index: new IndexStarter(context, { walDirectory: "/data/pg_wal", spool }),
  };
}

const segment = (number: number): string =>
  `0000000100000000${number.toString(16).toUpperCase().padStart(8, "0")}`;
const namesOf = (started: readonly Started[]) => started.map(({ names }) => names);

test("one process at a time notes what was stored meanwhile", () => {
  const { started, index } = starter();
  for (let number = 0; number <= 0x4f; number += 1) index.stored(segment(number));
  assert.deepEqual(namesOf(started), [[segment(0x0f)]]);
  started[0]?.end();
  const rest = [0x1f, 0x2f, 0x3f, 0x4f].map(segment);
  assert.deepEqual(namesOf(started), [[segment(0x0f)], rest]);
  started[1]?.end();
  assert.equal(started.length, 2);
  index.stored(segment(0x5f));
  assert.deepEqual(namesOf(started).at(-1), [segment(0x5f)]);
});

test("who ends leaves nothing behind", () => {
  const { started, index } = starter();
  index.startWaiting();
  for (const number of [0x0f, 0x1f]) index.stored(segment(number));
  index.startWaiting();
  assert.deepEqual(namesOf(started), [[segment(0x0f)], [segment(0x1f)]]);
});

test("of a long backlog the newest batches are noted", () => {
  const { started, index } = starter();
  for (let batch = 0; batch < 300; batch += 1) index.stored(segment(batch * 16 + 15));
  started[0]?.end();
  assert.equal(started[1]?.names.length, 256);
  assert.equal(started[1]?.names.at(-1), segment(299 * 16 + 15));
});

test("only a segment that ends a batch is told of, and only where that is wanted", () => {
  const { started, index } = starter();
  for (const name of [segment(0x0e), `${segment(0x0f)}.partial`, "0000000F.history"])
    index.stored(name);
  const off = starter({ isIndexing: false });
  off.index.stored(segment(0x0f));
  assert.deepEqual([started, off.started], [[], []]);
});

test("a process that can't be started costs nothing but the notes", () => {
  const { started, index } = starter({ isStarting: false });
  index.stored(segment(0x0f));
  index.stored(segment(0x1f));
  assert.deepEqual(started, []);
});

test("a store that does not answer ends it within a minute", async () => {
  await using bench = await openWorkbench();
  const { segments } = writeWal({ segmentBytes: 1024 * 1024, records: [{ dataBytes: 1_500_000 }] });
  const paths: string[] = [];
  for (const { name, bytes } of segments) paths.push(await bench.file(`pg_wal/${name}`, bytes));
  const clock = new FakeClock();
  const called = Promise.withResolvers<void>();
  const hang = (): Promise<never> => {
    called.resolve();
    return new Promise(() => {});
  };
  const silent = overlay(bench.memory, { get: () => endless(hang), put: hang, stat: hang });
  const run = walIndex.run(
    { paths },
    {
      ...starter().context,
      clock,
      workingDirectory: bench.directory,
      openStorage: async () => silent,
    },
  );
  const failing = assert.rejects(run, {
    name: "DeadlineError",
    message: /did not end within 60 s/,
  });
  await called.promise;
  await clock.advance(60_000);
  await failing;
});

async function* endless(wait: () => Promise<never>): AsyncGenerator<Uint8Array> {
  yield await wait();
}
