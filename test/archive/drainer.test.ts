import assert from "node:assert/strict";
import { lstatSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { ask, askDrainer, type AskOutcome } from "../../src/archive/drain-client.ts";
import type { DrainOptions } from "../../src/archive/drain-options.ts";
import { drain } from "../../src/archive/drainer.ts";
import { type Spool, spoolDirectory } from "../../src/archive/spool-directory.ts";
import type { DrainStatus } from "../../src/archive/drain-protocol.ts";
import type { Codec } from "../../src/codec/codec.ts";
import { codecOf } from "../../src/codec/table.ts";
import { StorageError } from "../../src/errors.ts";
import { untilAborted } from "../../src/io/abort.ts";
import { type ByteSource, bytesSource, readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import type { PutOptions } from "../../src/storage/storage.ts";
import { DRAIN_DEFAULTS } from "../support/drain-defaults.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { until } from "../support/until.ts";

const HISTORY = "00000002.history";
const LABEL_1 = "000000010000000000000003.00000028.backup";
const LABEL_2 = "000000020000000000000004.00000028.backup";
const signal = AbortSignal.timeout(60_000);
const options = { timeoutMs: 20_000, signal };

let directory: string;
let spool: Spool;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-drainer-"));
  await mkdir(join(directory, "data", "pg_wal", "archive_status"), { recursive: true });
  spool = await spoolDirectory({ dataDirectory: join(directory, "data"), cacheDirectory: "/none" });
});
afterEach(() => rm(directory, { recursive: true, force: true }));

class Store extends MemoryStorage {
  readonly puts: string[] = [];
  isAway = false;
  refused = "none";

  override async put(key: string, body: ByteSource, putOptions: PutOptions): Promise<void> {
    if (this.isAway || key.includes(this.refused)) {
      throw new StorageError("the store is away", { isRetryable: false, hint: "Wait." });
    }
    this.puts.push(key);
    await super.put(key, body, putOptions);
  }
}

async function addReady(...names: readonly string[]): Promise<void> {
  for (const name of names) {
    const content = name === HISTORY ? "1\t0/3000000\tno recovery target specified\n" : name;
    await writeFile(join(directory, "data", "pg_wal", name), content);
    await addMark(name);
  }
}

async function addMark(name: string): Promise<void> {
  await writeFile(join(directory, "data", "pg_wal", "archive_status", `${name}.ready`), "");
}

async function status(): Promise<DrainStatus> {
  const answer = await ask(spool.socket, { kind: "status" }, options);
  if (answer.kind !== "status") throw new Error("no drainer");
  return answer.status;
}

function start(store: Store, change: Partial<DrainOptions> = {}): Promise<string> {
  return drain({
    queue: queueIn(join(directory, "data")),
    spool,
    openStorage: async () => store,
    ...DRAIN_DEFAULTS,
    cacheDirectory: join(directory, "cache"),
    signal,
    ...change,
  });
}

/** Asks again where the machine was too busy for the drainer's first word. */
async function push(name: string, settings = "s"): Promise<AskOutcome> {
  const request = { kind: "push", name, settings, archiver: "77" } as const;
  for (;;) {
    const answer = await askDrainer(spool.socket, request, options);
    if (answer.kind !== "declined" || answer.reason !== "it does not answer") return answer;
  }
}

/** Resolves when the drainer answers. */
async function listening(): Promise<void> {
  await until(
    "the drainer answers",
    async () => (await ask(spool.socket, { kind: "status" }, options)).kind === "status",
  );
}

test("history first, each file once, notes while they are ready, end without work", async () => {
  await addReady(LABEL_2, LABEL_1, HISTORY);
  const store = new Store();
  const running = start(store);
  await listening();
  assert.equal((await push(LABEL_2)).kind, "stored");
  assert.equal((await push(LABEL_2)).kind, "stored");
  assert.equal(await running, "nothing to do");
  assert.equal(store.puts[0], `wal_005/${HISTORY}.zst`);
  assert.equal(new Set(store.puts).size, store.puts.length);
  assert.deepEqual(
    (await readdir(spool.notes)).toSorted(),
    [HISTORY, LABEL_1, LABEL_2, "77"].toSorted(),
  );
});

test("who waits is told the error, with its hint, and the next call finds the store back", async () => {
  await addReady(LABEL_1);
  const store = new Store();
  store.isAway = true;
  const running = start(store);
  await listening();
  await assert.rejects(push(LABEL_1), { code: "storage", message: /away/, hint: "Wait." });
  store.isAway = false;
  assert.equal((await push(LABEL_1)).kind, "stored");
  assert.equal(await running, "nothing to do");
});

test("no file of a timeline whose history fails is stored", async () => {
  await addReady(LABEL_2, LABEL_1, HISTORY);
  const store = new Store();
  store.refused = HISTORY;
  const stop = new AbortController();
  const running = start(store, { signal: stop.signal });
  await listening();
  await assert.rejects(push(LABEL_2), { code: "storage" });
  assert.ok(!store.puts.some((key) => key.includes(LABEL_2)));
  store.refused = "none";
  assert.equal((await push(HISTORY)).kind, "stored");
  assert.equal((await push(LABEL_2)).kind, "stored");
  stop.abort(new Error("enough"));
  await assert.rejects(running, /enough/);
});

test("a call with other settings is declined and ends the drainer", async () => {
  const running = start(new Store(), { idleMs: 60_000 });
  await listening();
  assert.equal((await push(LABEL_1, "other")).kind, "declined");
  assert.equal(await running, "a call had other settings");
  assert.equal((await push(LABEL_1)).kind, "absent");
});

/** Of readers that find notes without asking. */
async function links(): Promise<readonly string[]> {
  const entries = await readdir(spool.notes, { withFileTypes: true });
  return entries.filter((entry) => entry.isSymbolicLink()).map(({ name }) => name);
}

/** Something happens when a file has been stored, before the drainer is told so. */
class Interrupted extends Store {
  onPut: (key: string, signal: AbortSignal) => Promise<void> = async () => {};

  override async put(key: string, body: ByteSource, putOptions: PutOptions): Promise<void> {
    await super.put(key, body, putOptions);
    await this.onPut(key, putOptions.signal);
  }
}

for (const isMarkingDone of [false, true]) {
  const what = isMarkingDone ? "marked as done" : "noted";
  test(`what is under way when the settings change is not ${what}, and nobody is told so`, async () => {
    await addReady(LABEL_1);
    const store = new Interrupted();
    let isCurrent = true;
    store.onPut = async (key) => {
      if (key.includes(LABEL_2)) isCurrent = false;
    };
    const running = start(store, { isCurrent: () => isCurrent, isMarkingDone, idleMs: 60_000 });
    await listening();
    assert.equal((await push(LABEL_1)).kind, "stored");
    await until("the reader has its link", async () => (await links()).length === 1);
    await addReady(LABEL_2);
    assert.equal((await push(LABEL_2)).kind, "declined");
    assert.equal(await running, "the settings have changed");
    assert.ok(store.puts.some((key) => key.includes(LABEL_2)));
    assert.ok(!(await readdir(spool.notes)).includes(LABEL_2));
    assert.deepEqual(await links(), []);
    assert.equal(await done(), isMarkingDone ? 1 : 0);
  });
}

test("a call with other settings ends what is under way", async () => {
  await addReady(LABEL_1);
  const store = new Interrupted();
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  store.onPut = async (_, putSignal) => {
    begin();
    await untilAborted(new Promise<void>(() => {}), putSignal);
  };
  const running = start(store, { idleMs: 60_000 });
  await listening();
  const first = push(LABEL_1);
  await begun;
  assert.equal((await push(LABEL_1, "other")).kind, "declined");
  assert.equal(await running, "a call had other settings");
  assert.equal((await first).kind, "declined");
  assert.deepEqual(await readdir(spool.notes), []);
});

test("one whose socket was taken over makes no note any more", async () => {
  await addReady(LABEL_1);
  const store = new Interrupted();
  store.onPut = async () => {
    await rm(spool.socket);
    await writeFile(spool.socket, "");
  };
  const running = start(store, { idleMs: 60_000 });
  assert.equal(await running, "another one took over");
  assert.deepEqual(await readdir(spool.notes), []);
});

test("who has not called for ten seconds asks again, whatever has changed meanwhile", async () => {
  let passedMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + passedMs };
  await addReady(LABEL_1);
  const running = start(new Store(), { idleMs: 600_000, clock });
  await listening();
  assert.equal((await push(LABEL_1)).kind, "stored");
  await until("the reader has its link", async () => (await links()).length === 1);
  passedMs = 10_000;
  await until("the link is gone", async () => (await links()).length === 0);
  assert.ok((await readdir(spool.notes)).includes(LABEL_1));
  assert.equal((await push(LABEL_1)).kind, "stored");
  await until("it is there again", async () => (await links()).length === 1);
  passedMs = 310_000;
  assert.equal(await running, "nobody called any more");
});

test("there is one drainer; a socket that nobody listens at is taken over", async () => {
  await writeFile(spool.socket, "");
  const running = start(new Store());
  await listening();
  assert.equal(await start(new Store()), "another one runs");
  assert.equal(await running, "nothing to do");
});

test("a slow codec delays neither a history file nor a file that is stored", async () => {
  await addReady(LABEL_1);
  const store = new Store();
  const released = Promise.withResolvers<void>();
  const brotli = codecOf("brotli");
  const slow: Codec = {
    ...brotli,
    async *compress(input, settings) {
      const content = await readAll(input);
      if (content.includes("big")) await released.promise;
      yield* brotli.compress(bytesSource(content).open(), settings);
    },
  };
  const running = start(store, { codec: slow, codecJobs: 1, concurrency: 1 });
  await listening();
  assert.equal((await push(LABEL_1)).kind, "stored");

  const big = "000000010000000000000004.00000028.backup";
  const path = join(directory, "data", "pg_wal", big);
  await writeFile(path, Buffer.alloc(100_000, "big "));
  await addMark(big);
  const bigPush = push(big);
  await until("it is under way", async () => (await status()).underWay > 0);
  await addReady(HISTORY);
  assert.equal((await push(HISTORY)).kind, "stored");
  assert.equal((await push(LABEL_1)).kind, "stored");
  assert.equal((await status()).underWay, 1);
  released.resolve();
  assert.equal((await bigPush).kind, "stored");
  assert.equal(await running, "nothing to do");
});

test("the level follows the backlog where it may, and the status says which one it is", async () => {
  const names = Array.from({ length: 20 }, (_, number) => {
    return `000000010000000000000003.000000${number + 10}.backup`;
  });
  const store = new Store();
  store.isAway = true;
  const running = start(store, { isLevelByNeed: true, isMarkingDone: true, aheadMax: 32 });
  await listening();
  assert.equal((await status()).level, 3);
  await addReady(...names);
  await assert.rejects(push(names[0] ?? ""), { code: "storage" });
  await until("the backlog is seen", async () => (await status()).ready >= names.length - 1);
  store.isAway = false;
  await push(names[0] ?? "");
  assert.equal((await status()).level, 1);
  assert.equal(await running, "nothing to do");
});

function labels(first: number): readonly string[] {
  return Array.from({ length: 6 }, (_, number) => {
    return `000000010000000000000003.000000${first + number}.backup`;
  });
}

async function done(): Promise<number> {
  const entries = await readdir(join(directory, "data", "pg_wal", "archive_status"));
  return entries.filter((entry) => entry.endsWith(".done")).length;
}

test("without a call only so many files are marked as done, and in the end nothing is begun", async () => {
  let passedMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + passedMs };
  const store = new Store();
  await addReady(...labels(10));
  const running = start(store, { isMarkingDone: true, aheadMax: 4, idleMs: 60_000, clock });
  await listening();
  await until("all are stored", async () => (await status()).storedCount === 6);
  assert.equal(await done(), 4);

  const [last = ""] = labels(15);
  assert.equal((await push(last)).kind, "stored");
  await addReady(...labels(20));
  await until("more are marked", async () => (await done()) === 8);
  passedMs = 300_000;
  assert.equal(await running, "nobody called any more");
});

/** Labels that have a note. */
async function noted(): Promise<readonly string[]> {
  return (await readdir(spool.notes)).filter((name) => name.endsWith(".backup"));
}

/** TOTAL_BG_UPLOADED_LIMIT, WALG_UPLOAD_CONCURRENCY and PG_READY_RENAME in one. */
for (const isMarkingDone of [false, true]) {
  const what = isMarkingDone ? "marks as done" : "notes";
  test(`two at the same time, three ahead: it never has more, and ${what} no more`, async () => {
    const store = new Interrupted();
    const counts = { now: 0, max: 0 };
    store.onPut = async () => {
      counts.now += 1;
      counts.max = Math.max(counts.max, counts.now);
      await Promise.resolve();
      counts.now -= 1;
    };
    await addReady(...labels(10));
    const limits = { concurrency: 2, aheadMax: 3, isMarkingDone, idleMs: 60_000 };
    const stop = new AbortController();
    const running = start(store, { ...limits, signal: stop.signal });
    await listening();
    // Marked files are ahead of nobody any more, so that all get stored.
    const expected = isMarkingDone ? 6 : 3;
    await until("so many are stored", async () => (await status()).storedCount === expected);
    assert.equal(await done(), isMarkingDone ? 3 : 0);
    await until("notes of what is ahead only", async () => (await noted()).length === 3);
    assert.ok(counts.max <= 2, `${counts.max} at the same time`);
    const [, , , , , last = ""] = labels(10);
    assert.equal((await push(last)).kind, "stored");
    stop.abort(new Error("enough"));
    await assert.rejects(running, /enough/);
  });
}

test("directories in the places of the socket and of a reader's link do not keep it away", async () => {
  await addReady(LABEL_1);
  const [reader, socket] = [join(spool.notes, "77"), spool.socket];
  for (const path of [reader, socket]) await mkdir(join(path, "below"), { recursive: true });
  const store = new Store();
  const running = start(store);
  await listening();
  assert.equal((await push(LABEL_1)).kind, "stored");
  const found = () => lstatSync(reader, { throwIfNoEntry: false });
  await until("the reader has its link", () => found()?.isSymbolicLink() === true);
  assert.equal(await running, "nothing to do");
});
