import assert from "node:assert/strict";
import { test } from "node:test";
import { PartialObject } from "../../src/archive/partial-object.ts";
import { readStoredWal } from "../../src/archive/stored-wal.ts";
import { WalSpool } from "../../src/archive/wal-spool.ts";
import { codecOf } from "../../src/codec/table.ts";
import { FormatError, StorageError, TruncatedError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { walkSegment } from "../../src/postgres/wal-record.ts";
import { seededRandom } from "../support/random.ts";
import { writeWal } from "../support/wal-writer.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import {
  flipBit,
  METHODS,
  openWorkbench,
  type Workbench,
  type WritableMethod,
} from "./workbench.ts";
import { fail } from "./recorded-storage.ts";

const MIB = 1024 * 1024;
const { signal } = new AbortController();

const wal = writeWal({ records: Array.from({ length: 60 }, () => ({ dataBytes: 9000 })) });
const [segment] = wal.segments;
if (segment === undefined) throw new Error("no segment");
const { name, bytes: content } = segment;
const partialName = `${name}.partial`;
const KEY = `wal_005/${partialName}.zst`;

function cut(endBytes: number): Buffer {
  const bytes = Buffer.alloc(MIB);
  bytes.set(content.subarray(0, endBytes));
  return bytes;
}

async function spoolWith(directory: string, endBytes: number): Promise<WalSpool> {
  const spool = await WalSpool.create({
    directory,
    timeline: 1,
    segmentNumber: 1n,
    segmentBytes: MIB,
  });
  await spool.append(content.subarray(0, endBytes));
  return spool;
}

function partialOf(bench: Workbench, spool: WalSpool, method: WritableMethod = "zstd") {
  return new PartialObject(bench.storage, spool, {
    codec: codecOf(method),
    // Of the configured method, which lz4 has none of.
    level: 6,
    codecJobs: 1,
    isSynchronous: false,
    timeoutMs: 5000,
  });
}

async function stored(bench: Workbench, key = KEY): Promise<Buffer | undefined> {
  const bytes = bench.memory.bytesOf(key);
  if (bytes === undefined) return undefined;
  const codec = codecOf(key.endsWith(".zst") ? "zstd" : "none");
  return await readAll(codec.decompress(bytesSource(bytes).open(), { jobs: 1, signal }));
}

test("a partial is the whole segment's size, and grows in place", async () => {
  using scratch = scratchDirectory();
  await using bench = await openWorkbench();
  await using spool = await spoolWith(scratch.path, 100_000);
  const partial = partialOf(bench, spool);
  assert.deepEqual(await partial.ship(100_000, { signal }), { kind: "stored" });
  assert.ok(cut(100_000).equals((await stored(bench)) ?? Buffer.alloc(0)));
  await spool.append(content.subarray(100_000, 300_000));
  assert.deepEqual(await partial.ship(250_000, { signal }), { kind: "stored" });
  assert.ok(cut(250_000).equals((await stored(bench)) ?? Buffer.alloc(0)));
  // One look at what was there, and then one request each.
  assert.deepEqual(bench.storage.takeCalls(), [
    `list wal_005/${partialName}`,
    `put over ${KEY}`,
    `put over ${KEY}`,
  ]);
  assert.deepEqual(await partial.remove({ signal }), []);
  assert.deepEqual(bench.memory.keys, []);
});

for (const method of METHODS) {
  const vouching = method === "zstd" ? "zst" : "lz4";
  test(`configured with ${method} a partial is stored as ${vouching}, where each bit counts`, async () => {
    using scratch = scratchDirectory();
    await using bench = await openWorkbench();
    // As an earlier version left it, or WAL-G.
    const { extension } = codecOf(method);
    const left =
      extension === "" ? `wal_005/${partialName}` : `wal_005/${partialName}.${extension}`;
    await bench.put(left, await bench.compress(method, cut(100_000)));
    await using spool = await spoolWith(scratch.path, 300_000);
    const partial = partialOf(bench, spool, method);
    assert.deepEqual(await partial.ship(300_000, { signal }), { kind: "stored" });
    const key = `wal_005/${partialName}.${vouching}`;
    assert.deepEqual(bench.memory.keys, [key]);
    const object = { key, extension: vouching };
    const read = async (): Promise<Buffer> =>
      await readAll(readStoredWal(bench.memory, object, { codecJobs: 1, signal }));
    assert.ok(cut(300_000).equals(await read()));
    const bytes = Buffer.from(bench.memory.bytesOf(key) ?? []);
    const random = seededRandom();
    let faults = 0;
    for (let round = 0; round < 60; round += 1) {
      const at = Math.floor(random.next() * bytes.length);
      await bench.put(key, flipBit(bytes, at, round % 8));
      // Some bits change nothing: zeros come from here or from there.
      const content = await read().catch((error: unknown) => error);
      const isSame = Buffer.isBuffer(content) && content.equals(cut(300_000));
      const isFault = content instanceof FormatError || content instanceof TruncatedError;
      assert.ok(isSame || isFault, `byte ${at} (seed ${random.seed}): ${String(content)}`);
      faults += isFault ? 1 : 0;
    }
    assert.ok(faults > 20, `${faults} of 60`);
  });
}

test("what the store has ahead of us is left alone until we have as much", async () => {
  using scratch = scratchDirectory();
  await using bench = await openWorkbench();
  await bench.put(KEY, await bench.compress("zstd", cut(400_000)));
  await using spool = await spoolWith(scratch.path, 100_000);
  const partial = partialOf(bench, spool);
  const { endOfRecords } = walkSegment(cut(400_000), { name: partialName });
  const ahead = { kind: "ahead", storedEnd: endOfRecords, key: KEY };
  assert.deepEqual(await partial.ship(100_000, { signal }), ahead);
  assert.ok(cut(400_000).equals((await stored(bench)) ?? Buffer.alloc(0)));
  await spool.append(content.subarray(100_000, 400_000));
  assert.deepEqual(await partial.ship(400_000, { signal }), { kind: "stored" });
});

test("other records are never overwritten and never removed", async () => {
  using scratch = scratchDirectory();
  await using bench = await openWorkbench();
  const others = writeWal({ records: Array.from({ length: 60 }, () => ({ dataBytes: 8000 })) });
  const theirs = Buffer.from(others.segments[0]?.bytes ?? []);
  await bench.put(KEY, await bench.compress("zstd", theirs));
  await using spool = await spoolWith(scratch.path, MIB);
  const partial = partialOf(bench, spool);
  assert.deepEqual(await partial.ship(MIB, { signal }), { kind: "different", key: KEY });
  assert.deepEqual(await partial.remove({ signal }), [KEY]);
  assert.ok(theirs.equals((await stored(bench)) ?? Buffer.alloc(0)));
});

for (const { title, make } of [
  { title: "empty", make: async () => Buffer.alloc(0) },
  {
    title: "cut off",
    make: async (bench: Workbench) =>
      (await bench.compress("zstd", cut(400_000))).subarray(0, -9000),
  },
]) {
  test(`an object that is ${title} is replaced`, async () => {
    using scratch = scratchDirectory();
    await using bench = await openWorkbench();
    await bench.put(KEY, await make(bench));
    await using spool = await spoolWith(scratch.path, 500_000);
    assert.deepEqual(await partialOf(bench, spool).ship(500_000, { signal }), { kind: "stored" });
    assert.ok(cut(500_000).equals((await stored(bench)) ?? Buffer.alloc(0)));
  });
}

test("what lies behind the records of another's partial does not matter", async () => {
  using scratch = scratchDirectory();
  await using bench = await openWorkbench();
  const recycled = Buffer.from(cut(300_000));
  recycled.fill(0x5a, 700_000);
  await bench.put(KEY, await bench.compress("zstd", recycled));
  await using spool = await spoolWith(scratch.path, 300_000);
  assert.deepEqual(await partialOf(bench, spool).ship(300_000, { signal }), { kind: "stored" });
});

test("a partial in another compression goes once ours is there, not before", async () => {
  using scratch = scratchDirectory();
  await using bench = await openWorkbench();
  const old = `wal_005/${partialName}`;
  await bench.put(old, cut(100_000));
  await using spool = await spoolWith(scratch.path, 200_000);
  const partial = partialOf(bench, spool);
  const away = new StorageError("away", { isRetryable: true });
  bench.storage.interceptOnce(/^put/, fail(away));
  await assert.rejects(partial.ship(200_000, { signal }), away);
  assert.deepEqual(bench.memory.keys, [old]);
  await partial.ship(200_000, { signal });
  assert.deepEqual(bench.memory.keys, [KEY]);
});

test("a leftover is found and removed with the whole segment", async () => {
  using scratch = scratchDirectory();
  await using bench = await openWorkbench();
  await bench.put(KEY, await bench.compress("zstd", cut(400_000)));
  await using spool = await spoolWith(scratch.path, MIB);
  assert.deepEqual(await partialOf(bench, spool).remove({ signal }), []);
  assert.deepEqual(bench.memory.keys, []);
});
