import assert from "node:assert/strict";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { writeWal } from "../support/wal-writer.ts";
import { openWorkbench, type Workbench } from "./workbench.ts";

const MIB = 1024 * 1024;
const wal = writeWal({ records: Array.from({ length: 500 }, () => ({ dataBytes: 3000 })) });
const [segment, next] = wal.segments;
if (segment === undefined || next === undefined) throw new Error("no segments");
const { bytes: content } = segment;
const name = `${segment.name}.partial`;
const KEY = `wal_005/${name}.zst`;

function cut(endBytes: number): Buffer {
  const bytes = Buffer.alloc(MIB);
  bytes.set(content.subarray(0, endBytes));
  return bytes;
}

/** As PostgreSQL leaves it at a promotion: behind the records stands what the file held before. */
function recycled(endBytes: number): Buffer {
  const older = writeWal({
    firstSegment: 0n,
    records: Array.from({ length: 320 }, () => ({ dataBytes: 3000 })),
  });
  const bytes = cut(endBytes);
  const from = Math.ceil(endBytes / 8192) * 8192;
  bytes.set(older.segments[0]?.bytes.subarray(from) ?? [], from);
  return bytes;
}

async function pushOver(bench: Workbench, stored: Buffer, local: Buffer): Promise<string> {
  await bench.put(KEY, await bench.compress("zstd", stored));
  return await bench.push(await bench.file(name, local));
}

async function isStored(bench: Workbench, expected: Buffer): Promise<boolean> {
  const packed = await bench.compress("zstd", expected);
  return bench.memory.bytesOf(KEY)?.equals(packed) === true;
}

test("the archiver of a promoted standby brings more than was streamed: it replaces", async () => {
  await using bench = await openWorkbench();
  const local = recycled(500_000);
  assert.equal(await pushOver(bench, cut(300_000), local), "leftover replaced");
  assert.ok(await isStored(bench, local));
});

test("more was streamed than the promoted standby had: that stays, and the archiver goes on", async () => {
  await using bench = await openWorkbench();
  const stored = cut(500_000);
  assert.equal(await pushOver(bench, stored, recycled(300_000)), "already archived");
  assert.ok(await isStored(bench, stored));
});

test("the same records are the same, whatever lies behind them", async () => {
  await using bench = await openWorkbench();
  const stored = cut(400_000);
  assert.equal(await pushOver(bench, stored, recycled(400_000)), "already archived");
  assert.ok(await isStored(bench, stored));
});

test("other records are a conflict", async () => {
  await using bench = await openWorkbench();
  const others = writeWal({ records: Array.from({ length: 250 }, () => ({ dataBytes: 2900 })) });
  const stored = Buffer.from(others.segments[0]?.bytes ?? []);
  await assert.rejects(pushOver(bench, stored, cut(500_000)), { name: "ConflictError" });
  assert.ok(await isStored(bench, stored));
});

test("what is stored in another size is replaced when it is shorter, else kept", async () => {
  await using bench = await openWorkbench();
  const local = cut(300_000);
  await bench.put(`wal_005/${name}`, local.subarray(0, 600_000));
  assert.equal(await bench.push(await bench.file(name, local)), "leftover replaced");
  assert.deepEqual(
    bench.memory.keys.filter((key) => key.startsWith("wal_005/")),
    [KEY],
  );
  await using other = await openWorkbench();
  await other.put(`wal_005/${name}`, Buffer.concat([local, Buffer.alloc(8)]));
  await assert.rejects(other.push(await other.file(name, local)), { name: "ConflictError" });
});

for (const method of ["brotli", "lzma", "none"] as const) {
  test(`configured with ${method} it is stored as lz4, which has a checksum`, async () => {
    await using bench = await openWorkbench();
    const options = { codec: codecOf(method), level: 9 };
    const whole = await bench.file(segment.name, content);
    assert.equal(await bench.push(whole, options), "archived");
    bench.storage.takeCalls();
    const path = await bench.file(name, cut(300_000));
    assert.equal(await bench.push(path, options), "archived");
    assert.equal(await bench.push(path, options), "already archived");
    const { extension } = codecOf(method);
    const segmentKey = `wal_005/${segment.name}${extension === "" ? "" : `.${extension}`}`;
    assert.deepEqual(
      bench.memory.keys.filter((key) => key.startsWith("wal_005/")).toSorted(),
      [`wal_005/${name}.lz4`, segmentKey].toSorted(),
    );
    assert.ok(
      (await bench.compress("lz4", cut(300_000))).equals(
        bench.memory.bytesOf(`wal_005/${name}.lz4`) ?? Buffer.alloc(0),
      ),
    );
    // What is remembered of segments is as it was: they take one request each.
    bench.storage.takeCalls();
    assert.equal(await bench.push(await bench.file(next.name, next.bytes), options), "archived");
    assert.equal(bench.storage.takeCalls().length, 1);
  });
}
