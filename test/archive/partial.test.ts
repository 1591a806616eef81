import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { findUsablePartial, partialObstacle, readPartial } from "../../src/archive/partial.ts";
import { readAll } from "../../src/io/bytes.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { writeWal } from "../support/wal-writer.ts";
import { flipBit, openWorkbench, type Workbench, type WritableMethod } from "./workbench.ts";

const MIB = 1024 * 1024;
const { signal } = new AbortController();
const SYSTEM_ID = 0x1234_5678_9abc_def0n;

const wal = writeWal({ records: Array.from({ length: 300 }, () => ({ dataBytes: 3000 })) });
const [segment] = wal.segments;
if (segment === undefined) throw new Error("no segment");
const { name, bytes: content } = segment;
const KEY = `wal_005/${name}.partial.zst`;

function cut(endBytes: number): Buffer {
  const bytes = Buffer.alloc(MIB);
  bytes.set(content.subarray(0, endBytes));
  return bytes;
}

async function benchWith(
  partial: Uint8Array,
  names: readonly string[] = [],
  method: WritableMethod = "zstd",
): Promise<Workbench> {
  const bench = await openWorkbench();
  const key = method === "none" ? `wal_005/${name}.partial` : KEY;
  await bench.put(key, await bench.compress(method, partial));
  for (const other of names) await bench.put(`wal_005/${other}`, Buffer.from("x"));
  return bench;
}

test("a partial at the end of the newest timeline is usable", async () => {
  await using bench = await benchWith(cut(500_000), [
    "000000010000000000000000.zst",
    "000000010000000000000000.00000028.backup.zst",
    `${name}_delta.zst`,
    `${name}.json`,
    "000000010000000000000010_delta.zst",
    "00000001000000000000001.json",
  ]);
  const search = await findUsablePartial(bench.storage, name, { signal });
  assert.deepEqual(search, { kind: "usable", stored: { key: KEY, extension: "zst" } });
});

test("nothing is found where there is no partial, with one request", async () => {
  await using bench = await benchWith(cut(500_000));
  for (const other of ["000000010000000000000002", `${name}.partial`, "00000002.history", "x"]) {
    assert.deepEqual(await findUsablePartial(bench.storage, other, { signal }), { kind: "none" });
  }
  assert.deepEqual(bench.storage.takeCalls(), ["list wal_005/000000010000000000000002.partial"]);
});

const history = (text: string) => ({ name: "00000003.history.zst", text });
const obstacles = [
  { by: "the whole segment", names: [`${name}.zst`], reason: /whole segment is stored as/ },
  { by: "the whole segment, uncompressed", names: [name], reason: /whole segment is stored as/ },
  { by: "a later segment", names: ["000000010000000000000002.lz4"], reason: /later WAL/ },
  { by: "a later partial", names: ["000000010000000000000003.partial.zst"], reason: /later WAL/ },
  {
    by: "a later backup",
    names: ["000000010000000100000003.00000028.backup.zst"],
    reason: /later/,
  },
  {
    by: "a timeline that left within it",
    names: [],
    history: history("1\t0/150000\tno recovery target specified\n"),
    reason: /^timeline 3 has left its timeline at 0\/150000$/,
  },
  {
    by: "a timeline that left long before",
    names: [],
    history: history("1\t0/50000\tbefore\n"),
    reason: /^timeline 3 has left its timeline at 0\/50000$/,
  },
  {
    by: "a timeline that left behind it: then it was complete",
    names: [],
    history: history("1\t0/250000\tafter\n"),
    reason: /^timeline 3 has left its timeline at 0\/250000$/,
  },
  {
    by: "a grandchild",
    names: [],
    history: history("1\t0/150000\ta\n\n2\t0/250000\tb\n"),
    reason: /^timeline 3 has left its timeline at 0\/150000$/,
  },
];

for (const { by, names, reason, ...rest } of obstacles) {
  test(`a partial is not used when there is ${by}`, async () => {
    await using bench = await benchWith(cut(500_000), names);
    if (rest.history !== undefined) {
      const text = Buffer.from(rest.history.text);
      await bench.put(`wal_005/${rest.history.name}`, await bench.compress("zstd", text));
    }
    const search = await findUsablePartial(bench.storage, name, { signal });
    assert.ok(search.kind === "unusable");
    assert.equal(search.key, KEY);
    assert.match(search.reason, reason);
  });
}

test("a newer timeline of other descent is no obstacle", async () => {
  await using bench = await openWorkbench();
  const timeline3 = "000000030000000000000001";
  const key = `wal_005/${timeline3}.partial.zst`;
  await bench.put(key, await bench.compress("zstd", cut(500_000)));
  for (const [file, text] of [
    ["00000002.history", "1\t0/100000\tx\n"],
    ["00000004.history", "1\t0/150000\tx\n\n2\t0/180000\ty\n"],
  ] as const) {
    await bench.put(`wal_005/${file}.zst`, await bench.compress("zstd", Buffer.from(text)));
  }
  // Of older and of newer timelines there may be any number of segments: they are stepped over.
  for (let n = 0; n < 300; n += 1) {
    const low = n.toString(16).toUpperCase().padStart(8, "0");
    await bench.put(`wal_005/0000000100000000${low}.zst`, Buffer.alloc(0));
    await bench.put(`wal_005/0000000400000000${low}.zst`, Buffer.alloc(0));
  }
  assert.equal((await findUsablePartial(bench.storage, timeline3, { signal })).kind, "usable");
  const lists = bench.storage.takeCalls().filter((call) => call.startsWith("list wal_005/"));
  assert.equal(lists.length, 5);
});

test("a history that can't be read stands in the way of everything", async () => {
  await using bench = await benchWith(cut(500_000));
  await bench.put("wal_005/00000002.history", Buffer.from("1\tnowhere\n"));
  await assert.rejects(findUsablePartial(bench.storage, name, { signal }), {
    name: "DamagedError",
    message: /^object wal_005\/00000002\.history in memory:\/\/test is no timeline history: /,
  });
});

test("of two partials the one with more records is taken", async () => {
  await using bench = await benchWith(cut(300_000));
  await bench.put(`wal_005/${name}.partial`, cut(600_000));
  const search = await findUsablePartial(bench.storage, name, { signal });
  assert.deepEqual(search, {
    kind: "usable",
    stored: { key: `wal_005/${name}.partial`, extension: "" },
  });
});

test("only the end of everything is usable, whatever lies around it", () => {
  const fork = fc.record({ timeline: fc.nat(), switchLsn: fc.constant(lsn(1n)) });
  const facts = fc.record({
    complete: fc.array(fc.string(), { maxLength: 2 }),
    later: fc.option(fc.string(), { nil: undefined }),
    forks: fc.array(fork, { maxLength: 2 }),
  });
  fc.assert(
    fc.property(facts, (one) => {
      const isEnd = one.complete.length === 0 && one.later === undefined && one.forks.length === 0;
      assert.equal(partialObstacle(one) === undefined, isEnd);
    }),
  );
});

async function read(bytes: Uint8Array, systemId: bigint | undefined = SYSTEM_ID): Promise<Buffer> {
  await using bench = await benchWith(bytes, [], "none");
  const stored = { key: `wal_005/${name}.partial`, extension: "" };
  const options = { codecJobs: 1, signal, systemId };
  return await readAll(readPartial(bench.storage, { name, stored }, options));
}

test("a partial is given in full size, wherever it ends", async () => {
  for (const end of [40, 8191, 8192, 8193, 8200, 100_000, 500_008, 524_288, MIB]) {
    assert.ok(cut(end).equals(await read(cut(end))), `padded at ${end}`);
    if (end < 40) continue;
    assert.ok(cut(end).equals(await read(content.subarray(0, end))), `cut at ${end}`);
  }
});

test("what PostgreSQL left behind the end of a recycled segment is no damage", async () => {
  const recycled = cut(500_000);
  const older = writeWal({
    firstSegment: 0n,
    records: Array.from({ length: 400 }, () => ({ dataBytes: 3000 })),
  });
  const from = Math.ceil(500_000 / 8192) * 8192;
  recycled.set(older.segments[0]?.bytes.subarray(from) ?? [], from);
  assert.ok(recycled.equals(await read(recycled)));
});

for (const { title, damage } of [
  { title: "a flipped bit in a record", damage: (bytes: Buffer) => flipBit(bytes, 100_001) },
  { title: "a page of zeros", damage: (bytes: Buffer) => bytes.fill(0, 16_384, 24_576) },
  { title: "a flipped bit in a page header", damage: (bytes: Buffer) => flipBit(bytes, 81_930) },
]) {
  test(`WAL that goes on behind ${title} is damage, not an end`, async () => {
    await assert.rejects(read(damage(cut(500_000))), {
      name: "FormatError",
      message: /has a damaged record after byte \d+ \(.+\), but WAL up to byte 499712 of 1048576$/,
    });
  });
}

test("what is not this segment is refused", async () => {
  await assert.rejects(read(cut(500_000), 5n), { name: "WrongClusterError" });
  await assert.rejects(read(Buffer.alloc(MIB)), { name: "FormatError" });
  await assert.rejects(read(content.subarray(0, 39)), { name: "TruncatedError" });
  await assert.rejects(read(Buffer.concat([cut(500_000), Buffer.alloc(1)])), {
    message: /has more than 1048576 bytes$/,
  });
});
