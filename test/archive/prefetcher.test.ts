import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { askPrefetcher } from "../../src/archive/prefetch-client.ts";
import { putReadySegment } from "../../src/archive/ready-segment.ts";
import type { Spool } from "../../src/archive/spool-directory.ts";
import { StorageError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { parseSegmentName } from "../../src/postgres/wal-file.ts";
import { walkSegment } from "../../src/postgres/wal-record.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { until } from "../support/until.ts";
import { Prefetching, RECOVERY } from "./prefetching.ts";
import { fail, hang } from "./recorded-storage.ts";
import { flipBit, type Workbench } from "./workbench.ts";

const wal = await recordWal({ segmentCount: 9 });
const foreign = await recordWal({ segmentCount: 2 });
const { segments, segmentBytes } = wal;
const { signal } = new AbortController();
const options = { timeoutMs: 20_000, signal };

let rig: Prefetching;
let bench: Workbench;
let data: string;
let spool: Spool;
beforeEach(async () => {
  rig = await Prefetching.open(wal);
  ({ bench, data, spool } = rig);
});
afterEach(() => rig[Symbol.asyncDispose]());

const nameAt = (index: number) => rig.nameAt(index);
const contentOf = (name: string) => rig.contentOf(name);
const store: Prefetching["store"] = (...words) => rig.store(...words);
const fetchFirst = () => rig.fetchFirst();
const start: Prefetching["start"] = (change) => rig.start(change);
const found: Prefetching["found"] = (recovery) => rig.found(recovery);
const untilFound = (names: readonly string[]) => rig.untilFound(names);
const untilOpen = () => rig.untilOpen();

const take: Prefetching["take"] = (...words) => rig.take(...words);
const status = () => rig.status();

/** Nothing is under way, and nothing will be begun. */
const untilQuiet = () => until("quiet", async () => (await status())?.underWay === 0);

/** However busy the machine is, recovery seems to be fast: so as many are ahead as may be. */
const slowClock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() / 1000 };

test("it keeps as many ahead as it may, in order, and follows what the shell takes", async () => {
  await store(segments);
  await fetchFirst();
  start({ clock: slowClock });
  await untilFound([1, 2, 3, 4].map(nameAt));
  for (const name of found()) {
    assert.ok((await readFile(join(spool.prefetch, RECOVERY, name))).equals(contentOf(name)));
  }
  await rename(join(spool.prefetch, RECOVERY, nameAt(1)), join(data, "pg_wal", "RECOVERYXLOG"));
  await untilFound([2, 3, 4, 5].map(nameAt));
  await rename(join(spool.prefetch, RECOVERY, nameAt(2)), join(data, "pg_wal", "RECOVERYXLOG"));
  await untilFound([3, 4, 5, 6].map(nameAt));
  const gets = bench.storage.takeCalls();
  assert.deepEqual(
    gets.toSorted(),
    [1, 2, 3, 4, 5, 6].map((at) => `get wal_005/${nameAt(at)}.zst`),
  );
});

test("a limit in bytes counts, too, but one segment always may be there", async () => {
  await store(segments);
  await fetchFirst();
  start({ aheadBytesMax: 2 * segmentBytes });
  await untilFound([1, 2].map(nameAt));
  await untilQuiet();
  // Without a limit there are as few for a moment, too.
  assert.deepEqual(found(), [1, 2].map(nameAt));
  await rig.end();
  start({ aheadBytesMax: 1 });
  await untilFound([nameAt(1)]);
  await untilQuiet();
  assert.deepEqual(found(), [nameAt(1)]);
});

test("who asks is given what is ready, waits for what is under way, and moves it on", async () => {
  await store(segments);
  await fetchFirst();
  start({ clock: slowClock });
  await untilFound([1, 2, 3, 4].map(nameAt));
  const ready = await take(nameAt(1));
  assert.equal(ready.kind, "ready");
  const destination = join(data, "pg_wal", "RECOVERYXLOG");
  if (ready.kind === "ready") {
    await putReadySegment({ name: nameAt(1), path: ready.path }, destination, { ...spool, signal });
  }
  assert.ok((await readFile(destination)).equals(contentOf(nameAt(1))));
  await untilFound([2, 3, 4, 5].map(nameAt));

  // Recovery goes back to where its redo begins, and asks for what is there already again.
  const back = await take(nameAt(0));
  assert.equal(back.kind, "ready");
  await untilFound([0, 1, 2, 3].map(nameAt));
  await rm(join(spool.prefetch, RECOVERY, nameAt(0)));
  await untilFound([1, 2, 3, 4].map(nameAt));
  // And forward: what lies behind it is not fetched any more.
  bench.storage.takeCalls();
  assert.equal((await take(nameAt(6))).kind, "ready");
  await untilFound([6, 7, 8].map(nameAt));
  const calls = bench.storage.takeCalls();
  assert.ok(!calls.some((call) => call.includes(nameAt(5))), calls.join());
});

test("a segment whose fetch hangs does not keep others from being asked for (E06)", async () => {
  await store(segments);
  await fetchFirst();
  bench.storage.interceptOnce(new RegExp(`^get .*${nameAt(1)}`), hang);
  start({ timeoutMs: 500 });
  await untilOpen();
  const answer = await take(nameAt(1));
  assert.equal(answer.kind, "declined");
  // A fetch may need longer than that where the machine is busy.
  await until("fetched", async () => (await take(nameAt(1))).kind === "ready");
});

test("a standby that asks again and again costs one request each time, and no file (E07)", async () => {
  await store(segments.slice(0, 2));
  await fetchFirst();
  start();
  await untilFound([nameAt(1)]);
  await untilQuiet();
  await rm(join(spool.prefetch, RECOVERY, nameAt(1)));
  await until("taken", async () => (await status())?.takenCount === 1);
  await untilQuiet();
  bench.storage.takeCalls();
  for (let round = 0; round < 3; round += 1) {
    assert.equal((await take(nameAt(2))).kind, "declined");
    await untilQuiet();
    assert.deepEqual(bench.storage.takeCalls(), [`get wal_005/${nameAt(2)}.zst`]);
    assert.deepEqual(found(), []);
  }
  await store([nameAt(2)]);
  assert.equal((await take(nameAt(2))).kind, "ready");
});

test("an unfinished segment is never taken for the whole one", async () => {
  await store(segments.slice(0, 2));
  await fetchFirst();
  const part = await bench.compress("zstd", contentOf(nameAt(2)));
  await bench.put(`wal_005/${nameAt(2)}.partial.zst`, part);
  start();
  await untilOpen();
  assert.equal((await take(nameAt(2))).kind, "declined");
  assert.deepEqual(found(), []);
});

/** One bit of the data of a record, far from its beginning. */
function damagedRecord(name: string): Buffer {
  const content = contentOf(name);
  for (let at = content.length >> 1; ; at += 1) {
    const copy = flipBit(content, at);
    if (walkSegment(copy, { name }).end === "invalid") return copy;
  }
}

const damages = [
  { what: "is cut off", make: async (whole: Buffer) => whole.subarray(0, whole.length >> 1) },
  { what: "has a wrong bit", make: async (whole: Buffer) => flipBit(whole, whole.length >> 1) },
  {
    what: "holds another segment",
    make: async () => await bench.compress("zstd", contentOf(nameAt(5))),
  },
  {
    what: "has a damaged record under a right checksum",
    make: async () => await bench.compress("zstd", damagedRecord(nameAt(3))),
  },
  {
    what: "is of another timeline",
    make: async () => {
      const copy = Buffer.from(contentOf(nameAt(3)));
      for (let page = 0; page < copy.length; page += 8192) copy.writeUInt32LE(7, page + 4);
      return await bench.compress("zstd", copy);
    },
  },
  {
    what: "is of another release",
    make: async () => {
      const copy = Buffer.from(contentOf(nameAt(3)));
      copy.writeUInt16LE(copy.readUInt16LE(0) ^ 3, 0);
      return await bench.compress("zstd", copy);
    },
  },
  {
    what: "is of another cluster",
    make: async () => {
      const [name = ""] = foreign.segments;
      const bytes = Buffer.from(walFile(foreign, name));
      // The same place in the other cluster's WAL.
      contentOf(nameAt(3)).copy(bytes, 8, 8, 16);
      return await bench.compress("zstd", bytes);
    },
  },
];
for (const { what, make } of damages) {
  test(`an object that ${what} is never ready; what comes before it is`, async () => {
    await store(segments);
    await fetchFirst();
    const key = `wal_005/${nameAt(3)}.zst`;
    await bench.put(key, await make(await bench.compress("zstd", contentOf(nameAt(3)))));
    start();
    await untilFound([1, 2].map(nameAt));
    await until("a failure", async () => ((await status())?.failedCount ?? 0) > 0);
    const answer = await take(nameAt(3));
    assert.equal(answer.kind, "declined", JSON.stringify(answer));
    assert.ok(!found().includes(nameAt(3)));
  });
}

test("without compression, the record at a segment's start is checked with the one before", async () => {
  const [first, second] = [1, 2].map(nameAt);
  const content = Buffer.from(contentOf(second ?? ""));
  const continued = content.readUInt32LE(16);
  assert.ok(continued > 8, "the recorded WAL has no record across these segments");
  await store(segments, "none");
  await fetchFirst();
  await bench.put(`wal_005/${second}`, flipBit(content, 40 + 4));
  start();
  await untilFound([first ?? ""]);
  await until("a failure", async () => ((await status())?.failedCount ?? 0) > 0);
  assert.deepEqual(found(), [first]);
});

test("it goes on along the real history, also when that is learned later", async () => {
  const onTwo = (index: number) => `00000002${nameAt(index).slice(8)}`;
  const { segmentNumber } = parseSegmentName(nameAt(3), segmentBytes);
  const position = segmentNumber * BigInt(segmentBytes) + 4096n;
  const history = `1\t0/${position.toString(16).toUpperCase()}\tno recovery target specified\n`;
  await store([...[0, 1, 2, 3, 4].map(nameAt), ...[3, 4, 5, 6].map(onTwo)]);
  await fetchFirst();
  start({ aheadMax: 5 });
  await untilFound([1, 2, 3, 4].map(nameAt));
  await writeFile(join(data, "pg_wal", "00000002.history"), history);
  // Not what was foreseen.
  assert.equal((await take(nameAt(2))).kind, "ready");
  await untilFound([nameAt(2), ...[3, 4, 5, 6].map(onTwo)]);
  assert.equal((await take(onTwo(3))).kind, "ready");
  await untilFound([3, 4, 5, 6].map(onTwo));

  await rig.end();
  start({ aheadMax: 5 });
  await untilFound([...[1, 2].map(nameAt), ...[3, 4, 5].map(onTwo)]);
});

test("what earlier ones left is removed, and the shell of another recovery finds nothing", async () => {
  await store(segments.slice(0, 2));
  await fetchFirst();
  await mkdir(join(spool.prefetch, "run-old"));
  await writeFile(join(spool.prefetch, "run-old", nameAt(1)), "of an older history");
  await symlink("run-old", join(spool.prefetch, "1-00000000"));
  await symlink("run-old", join(spool.prefetch, RECOVERY));
  start();
  await until("removed", () => !existsSync(join(spool.prefetch, "run-old")));
  await untilFound([nameAt(1)]);
  assert.ok(
    (await readFile(join(spool.prefetch, RECOVERY, nameAt(1)))).equals(contentOf(nameAt(1))),
  );
  assert.deepEqual(found("1-00000000"), []);
  const here = readdirSync(spool.prefetch).map((name) => name.replace(/^run-[0-9a-f]{16}/, "run"));
  assert.deepEqual(here.toSorted(), [RECOVERY, "run", "run.landing"].toSorted());
  await askPrefetcher(
    spool,
    { kind: "take", name: nameAt(1), settings: "s", recovery: "5-11111111" },
    options,
  );
  await until("the new link", () => found("5-11111111").length === 1);
  assert.deepEqual(found(), []);
});

const ends = [
  {
    what: "recovery is over",
    make: () => rename(join(data, "recovery.signal"), join(data, "recovery.done")),
  },
  { what: "the server has ended", make: () => rm(join(data, "postmaster.pid")) },
  {
    what: "the server has ended",
    make: () => writeFile(join(data, "postmaster.pid"), `${process.pid}\n${data}\n1800000000\n`),
  },
  { what: "the settings have changed", make: () => writeFile(join(bench.directory, "c"), "new") },
  { what: "a call had other settings", make: () => take(nameAt(1), "other") },
  {
    what: "its directory is gone",
    make: async () => {
      await rename(spool.prefetch, join(bench.directory, "gone"));
      await mkdir(spool.prefetch);
    },
  },
];
for (const { what, make } of ends) {
  test(`it ends when ${what}, and removes everything`, async () => {
    await store(segments);
    await fetchFirst();
    await writeFile(join(bench.directory, "c"), "old");
    const ended = start({ configFile: join(bench.directory, "c") });
    await untilFound([1, 2, 3, 4].map(nameAt));
    await make();
    assert.equal(await ended, what);
    assert.deepEqual(readdirSync(spool.prefetch), []);
    assert.ok(!existsSync(spool.prefetchSocket));
    assert.equal((await take(nameAt(1))).kind, "absent");
  });
}

test("it ends when nothing is asked for, and there is one of it", async () => {
  await store(segments.slice(0, 3));
  await fetchFirst();
  const first = start({ idleMs: 1000 });
  await untilFound([1, 2].map(nameAt));
  assert.equal(await start(), "another one runs");
  assert.equal(await first, "nothing was asked for");
});

test("a store that fails is tried again, and says nothing about the archive", async () => {
  await store(segments);
  await fetchFirst();
  for (let i = 0; i < 2; i += 1) {
    const error = new StorageError("the store answered 503", { isRetryable: true });
    bench.storage.interceptOnce(/^get/, fail(error));
  }
  start();
  await untilFound([1, 2, 3, 4].map(nameAt));
});
