import assert from "node:assert/strict";
import { test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { UnfinishedHashes } from "../../src/catalogue/unfinished-hashes.ts";
import { type VerifyOptions, verifyRepository } from "../../src/catalogue/verify.ts";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { writeWal } from "../support/wal-writer.ts";

const { signal } = new AbortController();
const KEY = "wal_005/000000010000000000000020.partial.zst";
const options: VerifyOptions = {
  level: "full",
  jobs: 2,
  codecJobs: 1,
  isRelearning: false,
  clock: systemClock,
  onProgress: () => {},
  signal,
};

/** An unfinished segment with records of these sizes, as walnut stores it. */
async function unfinished(...sizes: readonly number[]): Promise<Buffer> {
  const records = sizes.map((dataBytes) => ({ dataBytes }));
  const wal = { timeline: 1, systemId: 7n, firstSegment: 32n, records };
  const [segment] = writeWal(wal).segments;
  assert.equal(segment?.name, KEY.slice(8, 32));
  const source = bytesSource(segment?.bytes ?? Buffer.alloc(0));
  return await readAll(codecOf("zstd").compress(source.open(), { jobs: 1, signal }));
}

/** The bit of a zstd frame's descriptor that has no meaning. */
function withUnusedBit(bytes: Buffer): Buffer {
  const changed = Buffer.from(bytes);
  changed.writeUInt8(changed.readUInt8(4) ^ 0x10, 4);
  return changed;
}

async function world() {
  const storage = new MemoryStorage();
  const put = async (bytes: Buffer) => await storage.put(KEY, bytesSource(bytes), { signal });
  const damaged = async (change: Partial<VerifyOptions> = {}) => {
    const { findings } = await verifyRepository(storage, { ...options, ...change });
    return findings.filter(({ kind }) => kind !== "note").map(({ text }) => text);
  };
  const first = await unfinished(5000);
  await put(first);
  assert.deepEqual(await damaged(), []);
  return { storage, put, damaged, first };
}

test("a bit that changes nothing of an unfinished segment is found", async () => {
  const { put, damaged, first } = await world();
  const found = ["its stored bytes are not those that an earlier verify read"];
  await put(withUnusedBit(first));
  assert.deepEqual(await damaged(), found);
  assert.deepEqual(await damaged(), found, "what is damaged is not what it is compared with");
  assert.deepEqual(await damaged({ isRelearning: true }), []);
  assert.deepEqual(await damaged(), []);
});

test("an unfinished segment that grew is no damage", async () => {
  const { put, damaged } = await world();
  const grown = await unfinished(5000, 9000);
  await put(grown);
  assert.deepEqual(await damaged(), []);
  await put(withUnusedBit(grown));
  assert.equal((await damaged()).length, 1);
});

test("what is known of an unfinished segment is kept while it is there", async () => {
  const { storage } = await world();
  const hash = { sizeBytes: 1, xxh64: "0123456789abcdef" };
  const known = new Map([
    [`${KEY}#8192`, hash],
    ["wal_005/000000010000000000000021.partial.zst#8192", hash],
    ["wal_005/00000002.history", hash],
  ]);
  const { wal } = await readCatalogue(storage, { signal });
  assert.deepEqual(new UnfinishedHashes(known).remembered(wal), new Map([[`${KEY}#8192`, hash]]));
});
