import assert from "node:assert/strict";
import { rename, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { backfill, type BackfillOptions } from "../../src/archive/backfill.ts";
import { listOpenGaps } from "../../src/archive/stored-gaps.ts";
import { codecOf } from "../../src/codec/table.ts";
import { silentLog } from "../../src/io/log.ts";
import { gapKey } from "../../src/layout/keys.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { flipBit, openWorkbench, type Workbench } from "./workbench.ts";

const wal = await recordWal();
const [first = "", second = "", third = "", last = ""] = wal.segments;
const stored = (name: string) => `wal_005/${name}.zst`;

let bench: Workbench;
let walDirectory: string;
beforeEach(async () => {
  bench = await openWorkbench();
  walDirectory = join(bench.directory, "data", "pg_wal");
  await bench.file("data/global/pg_control", wal.control);
  for (const name of wal.segments) await bench.file(`data/pg_wal/${name}`, walFile(wal, name));
});
afterEach(() => bench[Symbol.asyncDispose]());

async function run(change: Partial<BackfillOptions> = {}): Promise<Record<string, string>> {
  const outcomes: Record<string, string> = {};
  const results = backfill(bench.storage, {
    dataDirectory: join(bench.directory, "data"),
    isDryRun: false,
    isComparing: true,
    codec: codecOf("zstd"),
    codecJobs: 1,
    cacheDirectory: join(bench.directory, "cache"),
    timeoutMs: 60_000,
    log: silentLog,
    signal: bench.signal,
    ...change,
  });
  for await (const { name, outcome } of results) outcomes[name] = outcome;
  return outcomes;
}

test("what is missing is brought, once; what is there is compared", async () => {
  await bench.put(stored(second), await bench.compress("zstd", walFile(wal, second)));
  const names = [...wal.segments];
  assert.deepEqual(
    await run(),
    Object.fromEntries(
      names.map((name) => [name, name === second ? "already archived" : "archived"]),
    ),
  );
  bench.storage.takeCalls();
  const again = await run();
  assert.deepEqual([...new Set(Object.values(again))], ["already archived"]);
  const unread = await run({ isComparing: false });
  assert.deepEqual([...new Set(Object.values(unread))], ["skipped"]);
});

test("a dry run writes nothing", async () => {
  assert.deepEqual([...new Set(Object.values(await run({ isDryRun: true })))], ["planned"]);
  assert.deepEqual(bench.memory.keys, []);
  await run();
  assert.deepEqual([...new Set(Object.values(await run({ isDryRun: true })))], ["to compare"]);
});

test("recycled, unfinished and cut-off files are no segments", async () => {
  await rename(join(walDirectory, first), join(walDirectory, `${last.slice(0, -2)}FE`));
  await writeFile(join(walDirectory, `${last.slice(0, -2)}FF`), Buffer.alloc(wal.segmentBytes));
  const half = Buffer.from(walFile(wal, third)).fill(0, 500_000);
  await writeFile(join(walDirectory, third), half);
  await truncate(join(walDirectory, second), 8192);
  assert.deepEqual(await run(), {
    [second]: "not complete",
    [third]: "not complete",
    [last]: "archived",
    [`${last.slice(0, -2)}FE`]: "unused",
    [`${last.slice(0, -2)}FF`]: "unused",
  });
});

test("one that lost its content is not taken for one that is to be used", async () => {
  await writeFile(join(walDirectory, second), Buffer.alloc(wal.segmentBytes));
  assert.equal((await run())[second], "not complete");
});

test("a file that differs from the archive's is reported, the others are brought", async () => {
  await bench.put(stored(second), await bench.compress("zstd", walFile(wal, second)));
  await writeFile(join(walDirectory, second), flipBit(walFile(wal, second), wal.segmentBytes - 1));
  const outcomes = await run();
  assert.equal(outcomes[third], "archived");
  assert.ok(["different", "not complete"].includes(outcomes[second] ?? ""));
});

test("a clone does not bring what its parent has not", async () => {
  await bench.file("parent/global/pg_control", wal.control);
  await bench.push(await bench.file(`parent/pg_wal/${first}`, walFile(wal, first)));
  await assert.rejects(run(), { name: "RefusedError", message: /is written by .*\/parent;/ });
  assert.ok(!bench.memory.keys.includes(stored(second)));
});

test("a gap that is filled is no gap any more", async () => {
  await bench.put(gapKey(second), Buffer.from("{}"));
  await bench.put(gapKey(third), Buffer.from("{}"));
  await bench.put(stored(third), Buffer.from("something"));
  assert.deepEqual(await listOpenGaps(bench.memory, bench), [second]);
  await run({ isComparing: false });
  assert.deepEqual(await listOpenGaps(bench.memory, bench), []);
  assert.equal(bench.memory.bytesOf(gapKey(second)), undefined);
});

test("a directory without pg_control is refused", async () => {
  await assert.rejects(run({ dataDirectory: bench.directory }), {
    name: "RefusedError",
    message: /has no global\/pg_control that we may read$/,
    hint: /data directory.*as its owner/,
  });
});
