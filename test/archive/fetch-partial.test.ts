import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { writeWal } from "../support/wal-writer.ts";
import { flipBit, openWorkbench, type Workbench } from "./workbench.ts";

const MIB = 1024 * 1024;
const wal = writeWal({ records: Array.from({ length: 200 }, () => ({ dataBytes: 3000 })) });
const [segment] = wal.segments;
if (segment === undefined) throw new Error("no segment");
const { name, bytes: content } = segment;
const KEY = `wal_005/${name}.partial.zst`;

const partial = Buffer.alloc(MIB);
partial.set(content.subarray(0, 300_000));

async function fetchInto(bench: Workbench, options = {}): Promise<Buffer | undefined> {
  const destination = join(bench.directory, "RECOVERYXLOG");
  try {
    await bench.fetch(name, destination, options);
    return await readFile(destination);
  } catch (error) {
    assert.equal(existsSync(destination), false);
    throw error;
  }
}

test("the unfinished segment at the end of the archive is fetched, in full size", async () => {
  await using bench = await openWorkbench();
  await bench.put(KEY, await bench.compress("zstd", partial));
  assert.ok(partial.equals((await fetchInto(bench)) ?? Buffer.alloc(0)));
  // It is not remembered: the whole segment is what the next call gets.
  await bench.put(`wal_005/${name}.lz4`, await bench.compress("lz4", content));
  assert.ok(Buffer.from(content).equals((await fetchInto(bench)) ?? Buffer.alloc(0)));
});

test("it is not fetched when that is switched off, and costs nothing then", async () => {
  await using bench = await openWorkbench();
  await bench.put(KEY, await bench.compress("zstd", partial));
  await assert.rejects(fetchInto(bench, { usePartial: false }), {
    name: "NotInArchiveError",
    message: `WAL file ${name} is not in the archive memory://test`,
  });
  assert.deepEqual(bench.storage.takeCalls().slice(0, 2), [
    `list wal_005/${name}`,
    "stat walnut_005/cluster.json",
  ]);
});

test("one that a newer timeline has left behind is not, and the reason is told", async () => {
  await using bench = await openWorkbench();
  await bench.put(KEY, await bench.compress("zstd", partial));
  await bench.put("wal_005/00000002.history", Buffer.from("1\t0/120000\tpromoted\n"));
  await assert.rejects(fetchInto(bench), {
    name: "NotInArchiveError",
    message:
      `WAL file ${name} is not in the archive memory://test; ${KEY} is not used: ` +
      "timeline 2 has left its timeline at 0/120000",
  });
});

test("one that is damaged stops recovery, as every damaged object does", async () => {
  await using bench = await openWorkbench();
  await bench.put(KEY, await bench.compress("zstd", flipBit(partial, 100_001)));
  await assert.rejects(fetchInto(bench), {
    name: "DamagedError",
    message:
      /^object wal_005\/\w+\.partial\.zst in .* is damaged: unfinished segment \w+ has a damaged/,
  });
});

test("a segment that is completed while it is looked for is fetched complete", async () => {
  await using bench = await openWorkbench();
  await bench.put(KEY, await bench.compress("zstd", partial));
  bench.storage.interceptOnce(/^get .*partial/, async (next) => {
    await bench.put(`wal_005/${name}.zst`, await bench.compress("zstd", content));
    await bench.memory.delete([KEY], { signal: bench.signal });
    await next();
  });
  assert.ok(Buffer.from(content).equals((await fetchInto(bench)) ?? Buffer.alloc(0)));
});

test("a partial that vanishes without a trace leaves nothing", async () => {
  await using bench = await openWorkbench();
  await bench.put("walnut_005/cluster.json", Buffer.from("{}"));
  await bench.put(KEY, await bench.compress("zstd", partial));
  bench.storage.interceptOnce(/^get .*partial/, async (next) => {
    await bench.memory.delete([KEY], { signal: bench.signal });
    await next();
  });
  await assert.rejects(fetchInto(bench), { name: "NotInArchiveError" });
});

for (const suffix of [".partial", ""]) {
  test(`pg_wal has more of it than X${suffix}: it is not replaced by less`, async () => {
    await using bench = await openWorkbench();
    await bench.put(`wal_005/${name}${suffix}.zst`, await bench.compress("zstd", partial));
    const longer = Buffer.alloc(MIB);
    longer.set(content.subarray(0, 400_000));
    await writeFile(join(bench.directory, name), longer);
    await assert.rejects(fetchInto(bench), {
      name: "NotInArchiveError",
      message: new RegExp(`^WAL file ${name} is in the archive up to .* only, and in pg_wal up to`),
    });
    // As much or less, or what was there before under another name, is replaced.
    for (const local of [partial, longer.fill(0, 200_000), Buffer.alloc(MIB)]) {
      await writeFile(join(bench.directory, name), local);
      assert.ok(partial.equals((await fetchInto(bench)) ?? Buffer.alloc(0)));
      await rm(join(bench.directory, "RECOVERYXLOG"));
    }
  });
}
