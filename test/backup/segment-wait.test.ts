import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fc } from "../support/property.ts";
import {
  type MissingSegment,
  type SegmentRange,
  type SegmentWaitOptions,
  waitForSegments,
} from "../../src/backup/segment-wait.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { gapKey, walKey } from "../../src/layout/keys.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";
import type { ListOptions } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const signal = AbortSignal.timeout(60_000);
const segmentBytes = 16 * 1024 * 1024;
const place = { wal: "", status: "" };

beforeEach(() => {
  place.wal = mkdtempSync(join(tmpdir(), "walnut-wait-"));
  place.status = join(place.wal, "archive_status");
  mkdirSync(place.status);
  for (const number of [2n, 3n]) writeFileSync(join(place.wal, nameOf(number)), "");
});
afterEach(() => rmSync(place.wal, { recursive: true, force: true }));

class CountedStorage extends MemoryStorage {
  readonly lists: string[] = [];

  override list(prefix: string, options: ListOptions) {
    this.lists.push(prefix);
    return super.list(prefix, options);
  }
}

function range(first: bigint, last = first): SegmentRange {
  return { timeline: 1, first, last, segmentBytes };
}

function nameOf(segmentNumber: bigint): string {
  return formatSegmentName(1, segmentNumber, segmentBytes);
}

async function store(storage: MemoryStorage, name: string, extension = "zst"): Promise<void> {
  await storage.put(walKey(name, extension), bytesSource(Buffer.from("x")), { signal });
}

async function wait(
  storage: MemoryStorage,
  wanted: SegmentRange,
  change: Partial<SegmentWaitOptions> = {},
): Promise<MissingSegment | undefined> {
  return await waitForSegments(wanted, {
    storage,
    walDirectory: place.wal,
    clock: systemClock,
    timeoutMs: 1,
    onWaiting: () => {},
    signal,
    ...change,
  });
}

for (const extension of ["", "zst", "lz4", "lzma", "br", "gz", "lzo"]) {
  test(`a segment that is stored as .${extension} has arrived, by one listing`, async () => {
    const storage = new CountedStorage();
    await store(storage, nameOf(3n), extension);
    assert.equal(await wait(storage, range(3n)), undefined);
    assert.deepEqual(storage.lists, [`wal_005/${nameOf(3n)}`]);
  });
}

test("objects with similar names are not the segment", async () => {
  const storage = new MemoryStorage();
  for (const name of [
    `${nameOf(3n)}.partial`,
    `${nameOf(3n)}.00000028.backup`,
    `${nameOf(3n)}.json`,
    `${nameOf(3n)}_delta`,
    nameOf(2n),
    nameOf(4n),
  ]) {
    await store(storage, name);
  }
  await storage.put(walKey(nameOf(3n), "lz4"), bytesSource(new Uint8Array(0)), { signal });
  assert.deepEqual(await wait(storage, range(3n)), { name: nameOf(3n), archiver: "unknown" });
  assert.deepEqual(await wait(storage, range(2n, 4n)), { name: nameOf(3n), archiver: "unknown" });
});

test("of any range exactly the oldest missing segment is told", async () => {
  const numbers = fc.uniqueArray(fc.bigInt({ min: 250n, max: 262n }), { maxLength: 13 });
  const bound = fc.bigInt({ min: 250n, max: 262n });
  await fc.assert(
    fc.asyncProperty(numbers, bound, bound, async (stored, one, other) => {
      const storage = new CountedStorage();
      for (const number of stored) await store(storage, nameOf(number));
      await store(storage, "00000001.history");
      await store(storage, `${nameOf(255n)}.00000028.backup`);
      const [first, last] = one < other ? [one, other] : [other, one];
      const expected = Array.from(
        { length: Number(last - first) + 1 },
        (_, index) => first + BigInt(index),
      ).find((number) => !stored.includes(number));
      const missing = await wait(storage, range(first, last));
      assert.equal(missing?.name, expected === undefined ? undefined : nameOf(expected));
    }),
    { numRuns: 200 },
  );
});

test("the first segment of all has none before it", async () => {
  const storage = new MemoryStorage();
  await store(storage, nameOf(0n));
  await store(storage, nameOf(1n));
  assert.equal(await wait(storage, range(0n, 1n)), undefined);
});

for (const [mark, archiver] of [
  ["ready", "waiting"],
  ["done", "done"],
] as const) {
  test(`what the archiver says of a missing segment is told: ${mark}`, async () => {
    writeFileSync(join(place.status, `${nameOf(3n)}.${mark}`), "");
    const missing = await wait(new MemoryStorage(), range(3n));
    assert.deepEqual(missing, { name: nameOf(3n), archiver });
  });
}

test("a segment that the server has removed was archived somewhere", async () => {
  rmSync(join(place.wal, nameOf(3n)));
  const missing = await wait(new MemoryStorage(), range(3n));
  assert.deepEqual(missing, { name: nameOf(3n), archiver: "done" });
});

test("the archiver's mark wakes us, long before the next look", async () => {
  const storage = new CountedStorage();
  const ready = join(place.status, `${nameOf(3n)}.ready`);
  writeFileSync(ready, "");
  // No sleep ever ends: only the watched directory can wake it.
  const clock = {
    ...systemClock,
    sleep: (_ms: number, options: { readonly signal: AbortSignal }) =>
      systemClock.sleep(3_600_000, options),
  };
  const waiting = wait(storage, range(3n), { timeoutMs: 0, clock });
  await store(storage, nameOf(3n));
  renameSync(ready, join(place.status, `${nameOf(3n)}.done`));
  assert.equal(await waiting, undefined);
  assert.equal(storage.lists.length, 2);
});

test("a directory that can't be watched is polled", async () => {
  const storage = new MemoryStorage();
  rmSync(place.status, { recursive: true });
  const waiting = wait(storage, range(3n), { timeoutMs: 0 });
  await store(storage, nameOf(3n));
  assert.equal(await waiting, undefined);
});

test("while the archiver is at work the store is hardly asked", async () => {
  const storage = new CountedStorage();
  writeFileSync(join(place.status, `${nameOf(3n)}.ready`), "");
  const time = { nowMs: 0 };
  const told: string[] = [];
  const clock = {
    now: () => time.nowMs,
    monotonicMs: () => time.nowMs,
    async sleep(ms: number) {
      time.nowMs += ms;
    },
  };
  const missing = await wait(storage, range(3n), {
    timeoutMs: 60_000,
    clock,
    onWaiting: ({ name }) => told.push(`${name} after ${Math.floor(time.nowMs / 10_000)}0 s`),
  });
  assert.equal(missing?.name, nameOf(3n));
  assert.ok(storage.lists.length <= 13, `${storage.lists.length} listings in 60 s`);
  assert.deepEqual(
    told,
    [1, 2, 3, 4, 5].map((tens) => `${nameOf(3n)} after ${tens}0 s`),
  );
});

test("an abort ends the wait at once", async () => {
  const stop = new AbortController();
  const reason = new Error("stop");
  const waiting = wait(new MemoryStorage(), range(3n), { timeoutMs: 0, signal: stop.signal });
  stop.abort(reason);
  await assert.rejects(waiting, reason);
});

test("a segment that was given up is not waited for", async () => {
  const storage = new CountedStorage();
  await store(storage, nameOf(2n));
  await storage.put(gapKey(nameOf(3n)), bytesSource(Buffer.from("{}")), { signal });
  assert.deepEqual(await wait(storage, range(2n, 4n)), {
    name: nameOf(3n),
    archiver: "given up",
  });
  // Stored after all: it counts.
  await store(storage, nameOf(3n));
  await store(storage, nameOf(4n));
  assert.equal(await wait(storage, range(2n, 4n)), undefined);
});
