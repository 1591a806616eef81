import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { CommitFinder } from "../../src/catalogue/commit-finder.ts";
import { formatGroup, GROUP_SEGMENTS, indexKey } from "../../src/catalogue/commit-index.ts";
import { find } from "../../src/catalogue/find.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { createHasher } from "../../src/io/hash.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { writeWal } from "../support/wal-writer.ts";

const { signal } = new AbortController();
const HISTORY = { timeline: 1, ancestors: [] };
const SIZE = 16 * 1024 * 1024;
const COMMIT = { lsn: lsn(BigInt(SIZE) + 40n), timeNs: 5n, xid: 700 };
const NONE = {
  count: 0,
  first: undefined,
  last: undefined,
  latestNs: undefined,
  removingCount: 0,
};

/** Notes reads of segments, and how many reads there were at the same time. */
class WatchedStorage extends MemoryStorage {
  readonly reads: string[] = [];
  mostAtOnce = 0;
  #active = 0;

  override async *get(...args: Parameters<Storage["get"]>): ReturnType<Storage["get"]> {
    const [key] = args;
    if (key.startsWith("wal_005/")) this.reads.push(key);
    this.#active += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.#active);
    try {
      await new Promise<void>((resolve) => setImmediate(resolve));
      yield* super.get(...args);
    } finally {
      this.#active -= 1;
    }
  }
}

async function put(storage: Storage, key: string, bytes: Uint8Array): Promise<void> {
  await storage.put(key, bytesSource(bytes), { signal });
}

/** Segments 1 to `count`, with nothing in them. */
async function emptySegments(count: number): Promise<WatchedStorage> {
  const storage = new WatchedStorage();
  for (let number = 1; number <= count; number += 1) {
    const name = formatSegmentName(1, BigInt(number), SIZE);
    await put(storage, `wal_005/${name}.zst`, Buffer.from("x"));
  }
  return storage;
}

async function open(storage: WatchedStorage): Promise<CommitFinder> {
  const catalogue = await readCatalogue(storage, { signal });
  const place = { catalogue, view: walView(catalogue) };
  const finder = await CommitFinder.open(storage, place, { jobs: 4, codecJobs: 1, signal });
  storage.reads.length = 0;
  return finder;
}

describe("a commit with a thousand segments without any behind it", () => {
  const COUNT = 1000;

  test("is found by the index alone", async () => {
    const storage = await emptySegments(COUNT);
    const hasher = await createHasher("xxh64");
    for (let start = 0; start <= COUNT; start += GROUP_SEGMENTS) {
      const entries = Array.from({ length: GROUP_SEGMENTS }, (_, index) => ({
        segment: formatSegmentName(1, BigInt(start + index), SIZE),
        commits:
          start + index === 1
            ? { ...NONE, count: 1, first: COMMIT, last: COMMIT, latestNs: 5n }
            : NONE,
        isExact: true,
      }));
      await put(storage, indexKey(1, start, SIZE), formatGroup(entries, hasher));
    }
    const finder = await open(storage);
    const range = { first: 1, last: COUNT };
    assert.deepEqual(await finder.lastCommit(HISTORY, range, lsn(0n)), COMMIT);
    assert.deepEqual(await finder.firstCommit(HISTORY, range), COMMIT);
    assert.deepEqual(storage.reads, []);
  });

  test("is given up where nothing can be read, as without the key", async () => {
    const storage = await emptySegments(COUNT);
    const finder = await open(storage);
    assert.equal(await finder.lastCommit(HISTORY, { first: 1, last: COUNT }, lsn(0n)), undefined);
    assert.ok(new Set(storage.reads).size < COUNT / 3, `${storage.reads.length} reads`);
  });
});

test("what no index knows is read several at a time, from both sides", async () => {
  const committed = Buffer.alloc(10);
  committed.set([255, 8]);
  const commit = { dataBytes: 10, data: committed, resourceManager: 1 };
  const silence = Array.from({ length: 45 }, () => ({ dataBytes: 300_000 }));
  const segmentBytes = 1024 * 1024;
  const { segments, records } = writeWal({
    segmentBytes,
    records: [commit, ...silence, commit],
  });
  const storage = new WatchedStorage();
  for (const { name, bytes } of segments) await put(storage, `wal_005/${name}`, bytes);
  const finder = await open(storage);
  const range = { first: 1, last: segments.length };
  const positionOf = (index: number) => lsn(BigInt(segmentBytes + (records.at(index)?.start ?? 0)));
  const first = await finder.firstCommit(HISTORY, { ...range, last: range.last - 1 });
  assert.equal(first?.lsn, positionOf(0));
  const middle = { first: 2, last: range.last };
  assert.equal((await finder.firstCommit(HISTORY, middle))?.lsn, positionOf(-1));
  assert.ok(storage.mostAtOnce > 1, `${storage.mostAtOnce} at once`);
  const atOnce = { ...range, last: range.last - 1 };
  assert.equal((await finder.lastCommit(HISTORY, atOnce, lsn(0n)))?.lsn, positionOf(0));
  const place = { finder, history: HISTORY, runs: [range] };
  const [found] = await find(place, { kind: "lsn", lsn: positionOf(3) });
  assert.equal(found?.end.lsn, positionOf(-1));
  assert.equal(found?.before?.lsn, positionOf(0), "the commit before it is 13 segments away");
});
