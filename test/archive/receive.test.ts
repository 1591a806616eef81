import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { type Cluster } from "../support/postgres.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import {
  checkStored,
  dropSlot,
  fill,
  FLUSHED,
  heardAgain,
  ReceivingStorage,
  RESTART,
  start,
  startReceiver,
  startReceiving,
} from "./receiver.ts";
import { until } from "../support/until.ts";

const MIB = 1024 * 1024;

const isLong = process.env["WALNUT_LONG"] === "1";
for (const major of isLong ? ([13, 15, 18] as const) : ([13, 18] as const)) {
  test(`PostgreSQL ${major}: segments are the server's, and the partial is their end`, async () => {
    using scratch = scratchDirectory();
    await using cluster = await start(major);
    const storage = new ReceivingStorage();
    const looks: { readonly name: string; readonly isStored: boolean; readonly bytes: Buffer }[] =
      [];
    const onSegment = async ({ name, path }: { readonly name: string; readonly path: string }) => {
      const isStored = storage.names.includes(name);
      looks.push({ name, isStored, bytes: await readFile(path) });
    };
    const options = { port: cluster.port, cacheDirectory: scratch.path, onSegment };
    await using receiver = startReceiver(storage, options);
    await receiver.said(/^receiving WAL$/);
    await fill(cluster, 60_000);
    await cluster.waitFor(FLUSHED);
    const segments = await checkStored(storage, cluster);
    assert.ok(segments.length >= 3, segments.join());
    assert.ok(looks.length > 0);
    for (const { name, isStored, bytes } of looks) {
      assert.ok(isStored, `${name} was shown before it was stored`);
      assert.ok(bytes.equals((await storage.content(name)) ?? Buffer.alloc(0)), name);
    }

    const current = await cluster.value("SELECT pg_walfile_name(pg_current_wal_flush_lsn())");
    const [partial, ...others] = storage.names.filter((name) => name.endsWith(".partial"));
    assert.deepEqual([partial, others], [`${current}.partial`, []]);
    const offset = await cluster.value(
      "SELECT file_offset FROM pg_walfile_name_offset(pg_current_wal_flush_lsn())",
    );
    const stored = (await storage.content(`${current}.partial`)) ?? Buffer.alloc(0);
    const file = await readFile(join(cluster.dataDirectory, "pg_wal", current));
    assert.equal(stored.length, MIB);
    assert.ok(stored.subarray(0, Number(offset)).equals(file.subarray(0, Number(offset))));
    assert.ok(stored.subarray(Number(offset)).every((byte) => byte === 0));

    // The slot may forget what is stored, and nothing else.
    assert.equal(
      await cluster.value(RESTART),
      await cluster.value("SELECT flush_lsn FROM pg_stat_replication"),
    );
  });
}

test("a commit waits for the store, and for nothing else, when it is synchronous", async () => {
  await using cluster = await start(18, { synchronous_standby_names: "walnut" });
  await using receiving = await startReceiving(cluster, {
    isSynchronous: true,
    partialIntervalMs: 3_600_000,
  });
  const { storage } = receiving;
  await cluster.query("CREATE TABLE counted (n int)");
  for (let n = 0; n < 10; n += 1) {
    await cluster.query(`INSERT INTO counted VALUES (${n})`);
    const name = await cluster.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    assert.ok(storage.names.some((one) => one.startsWith(name)));
  }

  const release = storage.hold();
  const state = { isCommitted: false };
  const committing = (async () => {
    await cluster.query("INSERT INTO counted VALUES (100)");
    state.isCommitted = true;
  })();
  await cluster.waitFor("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  await heardAgain(cluster);
  assert.equal(state.isCommitted, false);
  release();
  await committing;

  // Many at a time share one upload.
  storage.puts.length = 0;
  await Promise.all(
    Array.from({ length: 20 }, (_, n) => cluster.query(`INSERT INTO counted VALUES (${n})`)),
  );
  assert.ok(storage.puts.length < 20, `${storage.puts.length} uploads`);
  assert.deepEqual(storage.broken, []);
});

describe("one server", () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await start(15);
  });
  after(async () => {
    await cluster[Symbol.asyncDispose]();
  });
  afterEach(async () => {
    await dropSlot(cluster);
  });

  test("nothing is confirmed that the store has not acknowledged", async () => {
    await using receiving = await startReceiving(cluster);
    const { storage } = receiving;
    await fill(cluster, 10_000);
    await cluster.waitFor(FLUSHED);
    const before = await cluster.value(RESTART);

    const release = storage.hold();
    await fill(cluster, 40_000);
    const written = "SELECT write_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication";
    // Two segments may wait here; the rest stays with the server.
    await until("WAL that was received", async () => {
      const sql = `SELECT write_lsn - '${before}'::pg_lsn FROM pg_stat_replication`;
      return Number(await cluster.value(sql)) > 0;
    });
    assert.notEqual(await cluster.value(written), "true");
    assert.equal(await cluster.value(RESTART), before);
    release();
    await cluster.waitFor(FLUSHED);
    assert.equal(await cluster.value(written), "true");
    await checkStored(storage, cluster);
  });

  test("a store that is away is waited for: one line when it goes, one when it is back", async () => {
    await using receiving = await startReceiving(cluster);
    const { storage, receiver } = receiving;
    await fill(cluster, 10_000);
    await cluster.waitFor(FLUSHED);

    storage.isAway = true;
    const before = await cluster.value(RESTART);
    await fill(cluster, 60_000);
    await receiver.said(/^storing WAL in memory:\/\/test failed/);
    await heardAgain(cluster);
    assert.equal(await cluster.value(RESTART), before);
    storage.isAway = false;
    await receiver.said(/^storing WAL in memory:\/\/test works again/);
    await cluster.waitFor(FLUSHED);
    await checkStored(storage, cluster);
    assert.equal(receiver.count(/failed/), 1);
    assert.equal(receiver.lines.filter(({ level }) => level === "warning").length, 1);
  });

  test("a server that is restarted is found again, and stops without delay", async () => {
    await using receiving = await startReceiving(cluster, {
      partialIntervalMs: 3_600_000,
    });
    const { storage, receiver } = receiving;
    await fill(cluster, 10_000);
    for (const mode of ["fast", "immediate"] as const) {
      await fill(cluster, 1000);
      await cluster.stop(mode);
      await cluster.start();
      await fill(cluster, 20_000);
      await until("the connection", () => receiver.count(/^receiving WAL works again/) > 0);
    }
    await cluster.switchWal();
    await cluster.waitFor(
      "SELECT flush_lsn >= pg_current_wal_flush_lsn() - 8192 FROM pg_stat_replication",
    );
    await checkStored(storage, cluster);
    assert.equal(receiver.count(/failed/), receiver.count(/works again/));
  });

  test("an upload outlives its connection, and the next one waits for it", async () => {
    await using receiving = await startReceiving(cluster, {
      isSynchronous: true,
    });
    const { storage, receiver } = receiving;
    await fill(cluster, 100);
    await cluster.waitFor(FLUSHED);
    const release = storage.hold();
    await fill(cluster, 100);
    await until("an upload", () => storage.isUploading);
    await cluster.query("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
    // The upload is still under way then: the next connection must wait for its end.
    await cluster.waitFor("SELECT count(*) = 0 FROM pg_stat_replication");
    release();
    await until("the second connection", () => receiver.count(/^receiving WAL$/) > 1);
    await fill(cluster, 100);
    await cluster.waitFor(FLUSHED);
    assert.deepEqual(storage.broken, []);
    const [failure, ...others] = receiver.lines.filter(({ level }) => level === "warning");
    assert.match(String(failure?.fields["reason"]), /terminating connection/);
    assert.deepEqual(others, []);
  });

  test("a receiver that starts again does not take back what it had stored", async () => {
    using scratch = scratchDirectory();
    const storage = new ReceivingStorage();
    const options = { port: cluster.port, cacheDirectory: scratch.path, isSynchronous: true };
    for (let round = 0; round < 4; round += 1) {
      await using receiver = startReceiver(storage, options);
      await receiver.said(/^receiving WAL$/);
      await fill(cluster, 3000);
      await cluster.waitFor(FLUSHED);
    }
    await using receiver = startReceiver(storage, { ...options, codec: codecOf("lz4") });
    await receiver.said(/^receiving WAL$/);
    await fill(cluster, 1000);
    await cluster.waitFor(FLUSHED);
    const partials = storage.names.filter((name) => name.endsWith(".partial"));
    assert.equal(partials.length, 1);
    await checkStored(storage, cluster);
  });

  test("a server that is not there yet is waited for", async () => {
    using scratch = scratchDirectory();
    await cluster.stop();
    const storage = new ReceivingStorage();
    await using receiver = startReceiver(storage, {
      port: cluster.port,
      cacheDirectory: scratch.path,
    });
    await receiver.said(/^receiving WAL failed/);
    await cluster.start();
    await fill(cluster, 1000);
    await cluster.waitFor(FLUSHED);
  });

  test("the growth of a segment is stored without waiting, if so set", async () => {
    await using receiving = await startReceiving(cluster, {
      partialIntervalMs: 3_600_000,
      partialBytes: 100_000,
    });
    const { storage } = receiving;
    await until("the first partial", () => storage.puts.some((key) => key.includes(".partial")));
    await cluster.switchWal();
    await fill(cluster, 100);
    const count = storage.puts.length;
    await fill(cluster, 5000);
    await until("another partial", () => storage.puts.length > count);
  });
});
