import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { WalSpool } from "../../src/archive/wal-spool.ts";
import { DatabaseError, LocalFileError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import type { Cluster } from "../support/postgres.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { until } from "../support/until.ts";
import { writeWal } from "../support/wal-writer.ts";
import {
  checkStored,
  dropSlot,
  fill,
  FLUSHED,
  ReceivingStorage,
  start,
  startReceiver,
  startReceiving,
} from "./receiver.ts";

const MIB = 1024 * 1024;
const { signal } = new AbortController();

/** Writes WAL until the server gives up what the slot holds back. */
async function loseSlot(cluster: Cluster): Promise<void> {
  for (let round = 0; round < 8; round += 1) {
    await fill(cluster, 20_000);
    await cluster.switchWal();
    await cluster.query("CHECKPOINT");
  }
  await cluster.waitFor(
    "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'walg'",
  );
}

for (const major of [13, 18] as const) {
  test(`PostgreSQL ${major}: a slot that was invalidated ends it, with the way out`, async () => {
    using scratch = scratchDirectory();
    await using cluster = await start(major, {
      max_slot_wal_keep_size: "1MB",
      wal_keep_size: "0",
      min_wal_size: "2MB",
      max_wal_size: "2MB",
    });
    const storage = new ReceivingStorage();
    const options = { port: cluster.port, cacheDirectory: scratch.path };
    {
      await using receiver = startReceiver(storage, options);
      await receiver.said(/^receiving WAL$/);
      await fill(cluster, 1000);
      await cluster.waitFor(FLUSHED);
    }
    await loseSlot(cluster);
    await using receiver = startReceiver(storage, options);
    await assert.rejects(receiver.ended, {
      name: "RefusedError",
      message:
        "the server has removed WAL that replication slot walg still needed: there is a gap in " +
        "what was received",
      hint: /pg_drop_replication_slot\('walg'\).*new base backup/,
    });
  });
}

for (const [about, hba, told] of [
  ["has no database of its name", "", undefined],
  ["may log in nowhere", "host all replicator all reject\n", /can't be told whether/],
] as const) {
  test(`a slot that was invalidated ends it, also for a role that ${about}`, async () => {
    using scratch = scratchDirectory();
    await using cluster = await start(15, {
      max_slot_wal_keep_size: "1MB",
      wal_keep_size: "0",
      min_wal_size: "2MB",
      max_wal_size: "2MB",
    });
    await cluster.query("CREATE ROLE replicator LOGIN REPLICATION");
    const hbaFile = join(cluster.dataDirectory, "pg_hba.conf");
    writeFileSync(hbaFile, hba + readFileSync(hbaFile, "utf8"));
    await cluster.query("SELECT pg_reload_conf()");
    const storage = new ReceivingStorage();
    const { port } = cluster;
    const settings = { host: "127.0.0.1", port, user: "replicator", applicationName: "walnut" };
    const options = { port, cacheDirectory: scratch.path, settings };
    {
      await using receiver = startReceiver(storage, options);
      await receiver.said(/^receiving WAL$/);
      await fill(cluster, 1000);
      await cluster.waitFor(FLUSHED);
      await cluster.switchWal();
      await cluster.waitFor(FLUSHED);
    }
    await loseSlot(cluster);
    await using receiver = startReceiver(storage, options);
    if (told !== undefined) await receiver.said(told);
    await assert.rejects(receiver.ended, {
      name: "RefusedError",
      message: /has removed WAL that replication slot walg still needed/,
    });
  });
}

test("WAL that the server has removed is told as a gap, and then it goes on", async () => {
  using scratch = scratchDirectory();
  await using cluster = await start(15, {
    wal_keep_size: "0",
    min_wal_size: "2MB",
    max_wal_size: "2MB",
  });
  const storage = new ReceivingStorage();
  const options = { port: cluster.port, cacheDirectory: scratch.path };
  {
    await using receiver = startReceiver(storage, options);
    await receiver.said(/^receiving WAL$/);
    await fill(cluster, 30_000);
    await cluster.waitFor(FLUSHED);
  }
  await dropSlot(cluster);
  for (let round = 0; round < 6; round += 1) {
    await fill(cluster, 30_000);
    await cluster.switchWal();
    await cluster.query("CHECKPOINT");
  }
  await using receiver = startReceiver(storage, options);
  const line = await receiver.said(/^the server has removed WAL that is not in the archive$/);
  assert.equal(line.level, "error");
  assert.match(String(line.fields["from"]), /^0\/[0-9A-F]+00000$/);
  await fill(cluster, 1000);
  await cluster.waitFor(FLUSHED);
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

  test("a server that is told to stop while the store is away is not held up", async () => {
    await using receiving = await startReceiving(cluster);
    const { storage, receiver } = receiving;
    await fill(cluster, 1000);
    await cluster.waitFor(FLUSHED);
    storage.isAway = true;
    await fill(cluster, 1000);
    await receiver.said(/^storing WAL .* failed/);
    await cluster.stop("fast");
    await receiver.said(/^receiving WAL failed/);
    assert.match(
      JSON.stringify(receiver.lines),
      /the server is shutting down, and the store is away/,
    );
    storage.isAway = false;
    await cluster.start();
    await cluster.waitFor(FLUSHED);
    assert.deepEqual(storage.broken, []);
  });

  test("files that vanish are made again, and the WAL is received again", async () => {
    using scratch = scratchDirectory();
    await using receiving = await startReceiving(cluster, { cacheDirectory: scratch.path });
    const { storage, receiver } = receiving;
    await fill(cluster, 1000);
    await cluster.waitFor(FLUSHED);
    await rm(scratch.path, { recursive: true });
    await fill(cluster, 40_000);
    await cluster.waitFor(FLUSHED);
    await checkStored(storage, cluster);
    await receiver.said(/^receiving WAL works again/);
  });

  test("a disk that stays full is one outage, however much fits onto it each time", async () => {
    await using receiving = await startReceiving(cluster);
    const { storage, receiver } = receiving;
    await fill(cluster, 1000);
    await cluster.waitFor(FLUSHED);
    const { prototype } = WalSpool;
    const append = Reflect.get(prototype, "append");
    prototype.append = async function (this: WalSpool, bytes: Uint8Array) {
      if (this.receivedBytes >= MIB / 2) throw new LocalFileError("no space left on the device");
      return await append.call(this, bytes);
    };
    try {
      const before = receiver.count(/^receiving WAL$/);
      await fill(cluster, 50_000);
      await until("four more attempts", () => receiver.count(/^receiving WAL$/) >= before + 4);
      assert.equal(receiver.count(/^receiving WAL works again$/), 0);
      assert.equal(receiver.count(/^receiving WAL failed/), 1);
    } finally {
      prototype.append = append;
    }
    await receiver.said(/^receiving WAL works again$/);
    await cluster.waitFor(FLUSHED);
    assert.deepEqual(storage.broken, []);
  });

  test("a partial with other records is left alone; complete segments go on", async () => {
    using scratch = scratchDirectory();
    const storage = new ReceivingStorage();
    // The slot will begin in a segment that has just been begun.
    await cluster.switchWal();
    await cluster.query("CHECKPOINT");
    const position = await cluster.value("SELECT pg_current_wal_flush_lsn()");
    const name = await cluster.value("SELECT pg_walfile_name(pg_current_wal_flush_lsn())");
    const wal = writeWal({
      firstSegment: BigInt(Number.parseInt(position.slice(2), 16)) / BigInt(MIB),
      records: Array.from({ length: 20 }, () => ({ dataBytes: 40_000 })),
    });
    const theirs = Buffer.from(wal.segments[0]?.bytes ?? []);
    const key = `wal_005/${name}.partial.zst`;
    const packed = codecOf("zstd").compress(bytesSource(theirs).open(), { jobs: 1, signal });
    await storage.put(key, bytesSource(await readAll(packed)), { signal });

    await using receiver = startReceiver(storage, {
      port: cluster.port,
      cacheDirectory: scratch.path,
    });
    await fill(cluster, 100);
    const line = await receiver.said(/^a partial segment with other records is in the way$/);
    assert.equal(line.level, "error");
    await fill(cluster, 40_000);
    await cluster.waitFor(FLUSHED);
    assert.ok(theirs.equals((await storage.content(`${name}.partial`)) ?? Buffer.alloc(0)));
    assert.ok(storage.names.includes(name));
    await receiver.said(/^a partial segment with other records was kept$/);
  });

  test("an archive that holds other content under the name of a segment ends it", async () => {
    using scratch = scratchDirectory();
    const storage = new ReceivingStorage();
    const name = await cluster.value("SELECT pg_walfile_name(pg_current_wal_flush_lsn())");
    await storage.put(`wal_005/${name}`, bytesSource(Buffer.alloc(MIB, 1)), { signal });
    await using receiver = startReceiver(storage, {
      port: cluster.port,
      cacheDirectory: scratch.path,
      codec: codecOf("none"),
    });
    await receiver.said(/^receiving WAL$/);
    await fill(cluster, 40_000);
    await assert.rejects(receiver.ended, { name: "ConflictError" });
  });

  test("a repository of another cluster ends it before anything is written", async () => {
    using scratch = scratchDirectory();
    const storage = new ReceivingStorage();
    const identity = Buffer.from('{"system_identifier": 5}');
    await storage.put("walnut_005/cluster.json", bytesSource(identity), { signal });
    await using receiver = startReceiver(storage, {
      port: cluster.port,
      cacheDirectory: scratch.path,
    });
    await assert.rejects(receiver.ended, { name: "WrongClusterError" });
    assert.deepEqual(storage.keys, ["walnut_005/cluster.json"]);
    assert.equal(await cluster.value("SELECT count(*) FROM pg_replication_slots"), "0");
  });

  test("a slot that somebody dropped is made again, from where the archive ends", async () => {
    using scratch = scratchDirectory();
    const storage = new ReceivingStorage();
    const options = { port: cluster.port, cacheDirectory: scratch.path };
    {
      await using receiver = startReceiver(storage, options);
      await receiver.said(/^receiving WAL$/);
      await fill(cluster, 30_000);
      await cluster.waitFor(FLUSHED);
    }
    await dropSlot(cluster);
    await fill(cluster, 60_000);
    await cluster.query("CHECKPOINT");
    await using receiver = startReceiver(storage, options);
    await receiver.said(/^replication slot created$/);
    await cluster.waitFor(FLUSHED);
    const segments = await checkStored(storage, cluster);
    assert.ok(segments.length >= 5, segments.join());
  });

  test("a server that refuses us from the start is not asked for ever", async () => {
    using scratch = scratchDirectory();
    const settings = {
      host: "127.0.0.1",
      port: cluster.port,
      user: "nobody_here",
      applicationName: "walnut",
    };
    await using receiver = startReceiver(new ReceivingStorage(), {
      port: cluster.port,
      cacheDirectory: scratch.path,
      settings,
    });
    await assert.rejects(
      receiver.ended,
      (error) => error instanceof DatabaseError && /nobody_here/.test(error.message),
    );
  });
});
