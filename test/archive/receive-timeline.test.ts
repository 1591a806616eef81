import assert from "node:assert/strict";
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { bytesSource } from "../../src/io/bytes.ts";
import { walkSegment } from "../../src/postgres/wal-record.ts";
import { type Cluster, type Major, restoreCluster } from "../support/postgres.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import {
  fill,
  FLUSHED,
  ReceivingStorage,
  start,
  startReceiver,
  startReceiving,
  Switchboard,
} from "./receiver.ts";
import { until } from "../support/until.ts";

const { signal } = new AbortController();
/** What a cascading standby has sent on is what it has replayed or received. */
const RECEIVED = `SELECT flush_lsn >= (SELECT pg_last_wal_receive_lsn()) FROM pg_stat_replication`;

interface Pair extends AsyncDisposable {
  readonly primary: Cluster;
  readonly standby: Cluster;
}

/** A primary, and a standby that streams from it. */
async function startPair(major: Major): Promise<Pair> {
  const primary = await start(major);
  await primary.stop();
  const copy = join(primary.directory, "standby");
  await cp(primary.dataDirectory, copy, { recursive: true });
  await primary.start();
  const standby = await restoreCluster(copy, {
    major,
    signal: "standby",
    restoreCommand: "false",
    settings: { primary_conninfo: `host=127.0.0.1 port=${primary.port} user=postgres` },
  });
  assert.equal(standby.outcome, "consistent");
  return {
    primary,
    standby,
    async [Symbol.asyncDispose]() {
      await standby[Symbol.asyncDispose]();
      await primary[Symbol.asyncDispose]();
    },
  };
}

async function promote(cluster: Cluster): Promise<void> {
  await cluster.query("SELECT pg_promote()");
  await cluster.waitFor("SELECT NOT pg_is_in_recovery()");
}

async function caughtUp({ primary, standby }: Pair): Promise<void> {
  const end = await primary.value("SELECT pg_current_wal_flush_lsn()");
  await standby.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${end}'`);
}

/** History before all else of its timeline, its bytes those of the server; no segment missing. */
async function checkTimeline(
  storage: ReceivingStorage,
  cluster: Cluster,
  timeline: number,
): Promise<void> {
  assert.deepEqual(storage.broken, []);
  const digits = `0000000${timeline}`;
  const own = storage.puts.filter((key) => key.startsWith(`wal_005/${digits}`));
  assert.equal(own[0], `wal_005/${digits}.history.zst`);
  const directory = join(cluster.dataDirectory, "pg_wal");
  const history = await readFile(join(directory, `${digits}.history`));
  assert.ok(history.equals((await storage.content(`${digits}.history`)) ?? Buffer.alloc(0)));
  const segments = storage.names.filter((name) => new RegExp(`^${digits}[0-9A-F]{16}$`).test(name));
  assert.ok(segments.length > 0);
  for (const [index, name] of segments.entries()) {
    const file = await readFile(join(directory, name));
    assert.ok(file.equals((await storage.content(name)) ?? Buffer.alloc(0)), name);
    const previous = Number.parseInt(segments[index - 1]?.slice(16) ?? "", 16);
    if (index > 0) assert.equal(Number.parseInt(name.slice(16), 16), previous + 1);
  }
}

/** Position of the end of timeline `timeline` in the history of the next one. */
async function endOfTimeline(storage: ReceivingStorage, timeline: number): Promise<bigint> {
  const text = (await storage.content(`0000000${timeline + 1}.history`))?.toString() ?? "";
  const [, high = "", low = ""] =
    new RegExp(`^${timeline}\\t(\\w+)/(\\w+)\\t`, "m").exec(text) ?? [];
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

for (const major of [13, 15, 18] as const) {
  test(`PostgreSQL ${major}: a standby that is promoted is followed, twice`, async () => {
    await using pair = await startPair(major);
    const { primary, standby } = pair;
    await using receiving = await startReceiving(standby);
    const { storage, receiver } = receiving;
    await fill(primary, 30_000);
    await caughtUp(pair);
    await standby.waitFor(RECEIVED);
    await primary.stop("immediate");
    await promote(standby);
    const line = await receiver.said(/^the timeline has ended$/);
    assert.deepEqual([line.fields["timeline"], line.fields["next"]], [1, 2]);
    await fill(standby, 30_000);
    await standby.waitFor(FLUSHED);
    await checkTimeline(storage, standby, 2);

    // The old timeline ends with a partial that goes exactly as far as it does.
    const end = await endOfTimeline(storage, 1);
    const [partial, ...others] = storage.names.filter((name) => /^00000001.*partial$/.test(name));
    assert.ok(partial !== undefined && others.length === 0);
    const content = (await storage.content(partial)) ?? Buffer.alloc(0);
    const walk = walkSegment(content, { name: partial });
    assert.equal(walk.header.startLsn + BigInt(walk.endOfRecords), end);
    assert.ok(content.subarray(walk.endOfRecords).every((byte) => byte === 0));

    await standby.stop();
    await writeFile(join(standby.dataDirectory, "standby.signal"), "");
    await standby.start();
    await until("the second connection", () => receiver.count(/^receiving WAL$/) > 2);
    await promote(standby);
    await until("the second end", () => receiver.count(/^the timeline has ended$/) > 1);
    await fill(standby, 30_000);
    await standby.waitFor(FLUSHED);
    await checkTimeline(storage, standby, 3);
    assert.ok(storage.names.includes("00000002.history"));
  });
}

test("the end of a timeline is stored although nothing else asks for it", async () => {
  await using pair = await startPair(15);
  const { primary, standby } = pair;
  await using receiving = await startReceiving(standby, {
    partialIntervalMs: 3_600_000,
  });
  const { storage, receiver } = receiving;
  await until("the first partial", () => storage.puts.some((key) => key.includes(".partial")));
  await fill(primary, 1000);
  await caughtUp(pair);
  await primary.stop("immediate");
  await promote(standby);
  await receiver.said(/^the timeline has ended$/);
  const partial = storage.names.findLast((name) => /^00000001.*partial$/.test(name)) ?? "";
  const content = (await storage.content(partial)) ?? Buffer.alloc(0);
  const { header, endOfRecords } = walkSegment(content, { name: partial });
  await until("the history", () => storage.names.includes("00000002.history"));
  assert.equal(header.startLsn + BigInt(endOfRecords), await endOfTimeline(storage, 1));
});

test("a slot that waits on an older timeline gets every history before its WAL", async () => {
  using scratch = scratchDirectory();
  await using pair = await startPair(18);
  const { primary, standby } = pair;
  await primary.stop();
  await promote(standby);
  await standby.query("SELECT pg_create_physical_replication_slot('walg', true)");
  await fill(standby, 30_000);
  await standby.stop();
  await writeFile(join(standby.dataDirectory, "standby.signal"), "");
  await standby.start();
  await promote(standby);
  await fill(standby, 30_000);

  const storage = new ReceivingStorage();
  await using receiver = startReceiver(storage, {
    port: standby.port,
    cacheDirectory: scratch.path,
  });
  await receiver.said(/^the timeline has ended$/);
  await standby.waitFor(FLUSHED);
  await checkTimeline(storage, standby, 2);
  await checkTimeline(storage, standby, 3);
});

test("after a failover it goes on with the new primary, and not with the old one", async () => {
  await using pair = await startPair(15);
  const { primary, standby } = pair;
  await using board = await Switchboard.open(primary.port);
  await using receiving = await startReceiving(board);
  const { storage, receiver } = receiving;
  await fill(primary, 30_000);
  await primary.waitFor(
    "SELECT bool_and(flush_lsn = pg_current_wal_flush_lsn()) FROM pg_stat_replication",
  );
  await caughtUp(pair);
  await primary.stop("immediate");
  await receiver.said(/^receiving WAL failed/);
  await promote(standby);
  await fill(standby, 30_000);
  board.switchTo(standby.port);
  await standby.waitFor(FLUSHED);
  await checkTimeline(storage, standby, 2);
  // Every segment up to the fork is there, on the one timeline or the other.
  const numbers = new Set(
    storage.names
      .filter((name) => name.length === 24)
      .map((name) => Number.parseInt(name.slice(16), 16)),
  );
  for (let n = Math.min(...numbers); n <= Math.max(...numbers); n += 1)
    assert.ok(numbers.has(n), `${n}`);

  // The old primary comes back and writes on, in vain.
  await primary.start();
  const before = storage.keys;
  board.switchTo(primary.port);
  await fill(primary, 30_000);
  await until("a refusal", () =>
    receiver.lines.some(({ fields }) =>
      String(fields["reason"]).startsWith("the server is on timeline 1, but WAL of timeline 2"),
    ),
  );
  board.switchTo(standby.port);
  await fill(standby, 20_000);
  await standby.waitFor(FLUSHED);
  const added = storage.keys.filter((key) => !before.includes(key));
  assert.ok(
    added.length > 0 && added.every((key) => key.startsWith("wal_005/00000002")),
    added.join(),
  );
});

test("commits that the new primary lacks are told, and stay in the archive", async () => {
  await using pair = await startPair(15);
  const { primary, standby } = pair;
  await using board = await Switchboard.open(primary.port);
  await using receiving = await startReceiving(board, {
    isSynchronous: true,
  });
  const { storage, receiver } = receiving;
  await fill(primary, 100);
  await caughtUp(pair);
  await standby.stop();
  await fill(primary, 500);
  await primary.waitFor(FLUSHED);
  const partials = storage.names.filter((name) => name.endsWith(".partial"));
  const [partial = ""] = partials;
  const content = await storage.content(partial);
  await primary.stop("immediate");

  await standby.start();
  await promote(standby);
  const end = await standby.value("SELECT pg_current_wal_flush_lsn()");
  const release = storage.hold(/00000002\d/);
  board.switchTo(standby.port);
  const line = await receiver.said(/^the server does not have all of the WAL that was stored/);
  assert.equal(line.level, "error");
  // What was stored of the old timeline confirms nothing of the new one.
  await fill(standby, 2000);
  await standby.waitFor("SELECT write_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication");
  const confirmed = `SELECT flush_lsn > '${end}' FROM pg_stat_replication`;
  assert.notEqual(await standby.value(confirmed), "true");
  release();
  await fill(standby, 30_000);
  await standby.waitFor(FLUSHED);
  await checkTimeline(storage, standby, 2);
  assert.ok(content?.equals((await storage.content(partial)) ?? Buffer.alloc(0)));
});

test("another history under the same name ends it, and nothing of its timeline is stored", async () => {
  await using pair = await startPair(15);
  const { primary, standby } = pair;
  await using receiving = await startReceiving(standby);
  const { storage, receiver } = receiving;
  await fill(primary, 100);
  await caughtUp(pair);
  const other = Buffer.from("1\t0/1000000\tanother promotion\n");
  await storage.put("wal_005/00000002.history", bytesSource(other), { signal });
  await promote(standby);
  await assert.rejects(receiver.ended, { name: "ConflictError" });
  assert.deepEqual(
    storage.names.filter((name) => name.startsWith("00000002")),
    ["00000002.history"],
  );
});

test("a primary that was left behind is told so, and refused when commits would rely on it", async () => {
  using scratch = scratchDirectory();
  const primary = await start(15);
  try {
    const storage = new ReceivingStorage();
    const position = await primary.value("SELECT pg_current_wal_flush_lsn()");
    const history = Buffer.from(`1\t${position}\tpromoted elsewhere\n`);
    await storage.put("wal_005/00000002.history", bytesSource(history), { signal });
    await fill(primary, 100);
    const options = { port: primary.port, cacheDirectory: scratch.path };
    {
      await using receiver = startReceiver(storage, options);
      const line = await receiver.said(
        /^the archive has timeline 2, which left the server's timeline 1/,
      );
      assert.equal(line.level, "error");
      await primary.waitFor(FLUSHED);
    }
    await using receiver = startReceiver(storage, { ...options, isSynchronous: true });
    await assert.rejects(receiver.ended, { name: "RefusedError" });
  } finally {
    await primary[Symbol.asyncDispose]();
    await rm(scratch.path, { recursive: true, force: true });
  }
});
