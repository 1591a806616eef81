import assert from "node:assert/strict";
import { basename } from "node:path";
import { test } from "node:test";
import type { Context } from "../../src/commands/command.ts";
import { IndexStarter, walIndex } from "../../src/commands/wal-index.ts";
import { defaultConfig } from "../../src/config/load.ts";
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

function starter({ isIndexing = true, isStarting = true, restMs = 0 } = {}) {
  const started: Started[] = [];
  const clock = new FakeClock();
  const stop = new AbortController();
  const config = defaultConfig({ cpuCount: 2 });
  const context: Context = {
    config: {
      ...config,
      archiveQueue: { ...config.archiveQueue, isIndexingCommits: isIndexing },
    },
    log: silentLog,
    clock,
    signal: stop.signal,
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
    clock,
    stop,
    index: new IndexStarter(context, { walDirectory: "/data/pg_wal", spool, restMs }),
  };
}

const segment = (number: number): string =>
  `0000000100000000${number.toString(16).toUpperCase().padStart(8, "0")}`;
const batches = (...numbers: readonly number[]) => numbers.map(segment);
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

test("a backlog is archived before it is noted", async () => {
  const { started, index, clock } = starter({ restMs: 1000 });
  for (let number = 0; number <= 0x2f; number += 1) {
    index.stored(segment(number));
    await clock.advance(100);
  }
  await clock.advance(899);
  assert.deepEqual(namesOf(started), []);
  await clock.advance(1);
  assert.deepEqual(namesOf(started), [batches(0x0f, 0x1f, 0x2f)]);
});

test("a long backlog is noted every half minute, and while one process runs no other", async () => {
  const { started, index, clock } = starter({ restMs: 1000 });
  const store = async (first: number, last: number): Promise<void> => {
    for (let number = first; number <= last; number += 1) {
      index.stored(segment(number));
      await clock.advance(500);
    }
  };
  // 0x0f is stored after 7.5 s: half a minute before the time after 0x4a.
  await store(0, 0x49);
  assert.deepEqual(namesOf(started), []);
  await store(0x4a, 0x4a);
  const first = batches(0x0f, 0x1f, 0x2f, 0x3f);
  assert.deepEqual(namesOf(started), [first]);
  await store(0x4b, 0xaf);
  assert.equal(started.length, 1);
  started[0]?.end();
  await store(0xb0, 0xea);
  assert.equal(started.length, 1);
  await store(0xeb, 0xeb);
  const rest = batches(0x4f, 0x5f, 0x6f, 0x7f, 0x8f, 0x9f, 0xaf, 0xbf, 0xcf, 0xdf);
  assert.deepEqual(namesOf(started), [first, rest]);
});

test("who is stopped while it waits starts nothing", async () => {
  const { started, index, clock, stop } = starter({ restMs: 1000 });
  index.stored(segment(0x0f));
  stop.abort(new Error("enough"));
  await clock.advance(60_000);
  assert.deepEqual(started, []);
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
