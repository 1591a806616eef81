import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { open, readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fetchWalAhead } from "../../src/archive/fetch.ts";
import { silentLog } from "../../src/io/log.ts";
import { recordWal } from "../support/real-wal.ts";
import { until } from "../support/until.ts";
import { Prefetching, RECOVERY } from "./prefetching.ts";

const wal = await recordWal({ segmentCount: 6 });
let rig: Prefetching;
beforeEach(async () => {
  rig = await Prefetching.open(wal);
});
afterEach(() => rig[Symbol.asyncDispose]());

const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size;

interface Writable {
  write: (...words: unknown[]) => Promise<unknown>;
  sync: (...words: unknown[]) => Promise<unknown>;
}

function isWritable(value: unknown): value is Writable {
  return typeof value === "object" && value !== null && "write" in value && "sync" in value;
}

test("a segment that is asked for when half of it is written comes whole (E06)", async () => {
  await rig.store(wal.segments, "none");
  await rig.fetchFirst();
  const rest = Promise.withResolvers<void>();
  const get = rig.bench.storage.get.bind(rig.bench.storage);
  rig.bench.storage.get = async function* (key, how) {
    for await (const chunk of get(key, how)) {
      yield chunk.subarray(0, chunk.length >> 1);
      if (key.endsWith(rig.nameAt(1))) await rest.promise;
      yield chunk.subarray(chunk.length >> 1);
    }
  };
  rig.start();
  await rig.untilOpen();
  const directory = join(rig.spool.prefetch, RECOVERY);
  const landing = `${await realpath(directory)}.landing`;
  const isHalfThere = () => (sizeOf(join(landing, rig.nameAt(1))) ?? 0) > 100_000;
  await until("half of it", isHalfThere);
  let answered = "";
  const asked = rig.take(rig.nameAt(1)).then((answer) => (answered = answer.kind));
  await until("the question", async () => (await rig.status())?.next === rig.nameAt(1));
  assert.equal(answered, "");
  assert.ok(!rig.found().includes(rig.nameAt(1)));
  rest.resolve();
  assert.equal(await asked, "ready");
  assert.ok((await readFile(join(directory, rig.nameAt(1)))).equals(rig.contentOf(rig.nameAt(1))));
});

function setTurn(value: unknown): void {
  const all = { value, configurable: true, writable: true };
  Object.defineProperty(globalThis, "setImmediate", all);
}

test("a kill at any write or fsync leaves whole segments only under their names (P15)", async () => {
  await rig.store(wal.segments);
  await rig.fetchFirst();
  const boundaries: string[] = [];
  const look = () => {
    for (const name of rig.found()) {
      boundaries.push(name);
      const bytes = readFileSync(join(rig.spool.prefetch, RECOVERY, name));
      assert.ok(bytes.equals(rig.contentOf(name)), `${name} has ${bytes.length} bytes`);
    }
  };
  await using handle = await open(join(rig.data, "recovery.signal"));
  const prototype: unknown = Object.getPrototypeOf(handle);
  assert.ok(isWritable(prototype));
  const { write, sync } = prototype;
  let calls = 0;
  const failures: unknown[] = [];
  const watched = (original: (...words: unknown[]) => Promise<unknown>) =>
    async function (this: unknown, ...words: unknown[]) {
      calls += 1;
      try {
        look();
        const result = await original.apply(this, words);
        look();
        return result;
      } catch (error) {
        failures.push(error);
        throw error;
      }
    };
  prototype.write = watched(write);
  prototype.sync = watched(sync);
  // What is written by the main thread gives others a turn between two pieces.
  const { setImmediate: turn } = globalThis;
  setTurn((...words: unknown[]): unknown => {
    calls += 1;
    try {
      look();
    } catch (error) {
      failures.push(error);
    }
    return Reflect.apply(turn, undefined, words);
  });
  try {
    rig.start();
    await rig.untilFound([1, 2, 3, 4].map((at) => rig.nameAt(at)));
    await until("quiet", async () => (await rig.status())?.underWay === 0);
  } finally {
    prototype.write = write;
    prototype.sync = sync;
    setTurn(turn);
  }
  assert.deepEqual(failures, []);
  // Each of the four has several writes and one fsync; before the later ones lie the earlier.
  assert.ok(calls >= 4 * 3, `${calls} calls`);
  assert.ok(boundaries.includes(rig.nameAt(1)));
});

test("a segment fetched ahead has landed when it is written, and not yet its name", async () => {
  const name = rig.nameAt(1);
  await rig.store([name]);
  const directory = join(rig.data, "pg_wal");
  const landed: string[][] = [];
  await fetchWalAhead(rig.bench.storage, name, join(directory, name), {
    codecJobs: 2,
    cacheDirectory: join(rig.bench.directory, "cache"),
    timeoutMs: 60_000,
    log: silentLog,
    signal: new AbortController().signal,
    systemId: wal.systemId,
    findOpenRecord: async () => undefined,
    onOpenRecord: () => assert.deepEqual(landed, []),
    temporaryPath: join(directory, `${name}.landing`),
    waitForTurn: async () => {},
    onLanded: () => landed.push(readdirSync(directory)),
  });
  assert.match(landed.join(), /^[0-9A-F]{24}\.landing$/);
  assert.ok((await readFile(join(directory, name))).equals(rig.contentOf(name)));
});
