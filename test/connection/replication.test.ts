import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  connectReplication,
  isSlotName,
  READ_SLOT_SINCE,
  ReplicationError,
  type ReplicationSession,
} from "../../src/connection/replication.ts";
import { type WalPiece, WalStream } from "../../src/connection/wal-stream.ts";
import { DatabaseError } from "../../src/errors.ts";
import { type Clock, systemClock } from "../../src/io/clock.ts";
import { type Lsn, lsn, parseLsn } from "../../src/postgres/lsn.ts";
import { type Cluster, type Major, startCluster } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const MIB = 1024 * 1024;
const STATUS_INTERVAL_MS = 200;
const signal = new AbortController().signal;

function open(
  cluster: Cluster,
  options: { readonly signal?: AbortSignal; readonly clock?: Clock } = {},
): Promise<ReplicationSession> {
  return connectReplication(
    { host: "127.0.0.1", port: cluster.port, user: "postgres", applicationName: "walnut-test" },
    { signal, clock: systemClock, ...options },
  );
}

async function stream(
  session: ReplicationSession,
  slot: string | undefined,
  startLsn: Lsn,
  options: { timeline?: number; silenceTimeoutMs?: number; signal?: AbortSignal } = {},
): Promise<WalStream> {
  const started = await session.startPhysical({
    slot,
    startLsn,
    timeline: options.timeline ?? 1,
    statusIntervalMs: STATUS_INTERVAL_MS,
    silenceTimeoutMs: options.silenceTimeoutMs ?? 10_000,
    signal: options.signal ?? signal,
  });
  assert.ok(started instanceof WalStream);
  return started;
}

async function flushLsn(cluster: Cluster): Promise<Lsn> {
  return parseLsn(await cluster.value("SELECT pg_current_wal_flush_lsn()"));
}

/** Start of the segment (1 MiB in these tests). */
function segmentStart(position: Lsn): Lsn {
  return lsn(position - (position % BigInt(MIB)));
}

function endOf(piece: WalPiece): Lsn {
  return lsn(piece.startLsn + BigInt(piece.bytes.length));
}

/** Whether the only stream of WAL has got no further since it was asked before. */
function isAtRest(cluster: Cluster): () => Promise<boolean> {
  let before = "";
  return async () => {
    const sent = await cluster.value("SELECT sent_lsn FROM pg_stat_replication");
    const isSame = sent === before;
    before = sent;
    return isSame;
  };
}

async function takeUntil(walStream: WalStream, end: Lsn): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of walStream) {
    pieces.push(piece.bytes);
    if (endOf(piece) >= end) break;
  }
  return Buffer.concat(pieces);
}

for (const major of [13, 15, 18] as const satisfies readonly Major[]) {
  describe(`replication with PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    before(async () => {
      cluster = await startCluster({ major, segmentMiB: 1, settings: { wal_level: "replica" } });
    });
    after(async () => {
      await cluster[Symbol.asyncDispose]();
    });

    test("a session tells the system, parameters and slots", async () => {
      await using session = await open(cluster);
      const system = await session.identifySystem({ signal });
      const expected = await cluster.value("SELECT system_identifier FROM pg_control_system()");
      assert.equal(system.systemId, BigInt(expected));
      assert.equal(system.timeline, 1);
      assert.equal(system.flushLsn, await flushLsn(cluster));
      assert.equal(await session.show("wal_segment_size", { signal }), "1MB");

      await session.createPhysicalSlot("kept", { isReserved: true, signal });
      await session.createPhysicalSlot("bare", { isReserved: false, signal });
      const kept = await cluster.value(
        "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'kept'",
      );
      if (major >= READ_SLOT_SINCE) {
        assert.deepEqual(await session.readSlot("kept", { signal }), {
          restartLsn: parseLsn(kept),
        });
        assert.deepEqual(await session.readSlot("bare", { signal }), { restartLsn: undefined });
        assert.equal(await session.readSlot("none", { signal }), undefined);
      }
    });

    test("an answer with an error leaves the session usable", async () => {
      await using session = await open(cluster);
      await session.createPhysicalSlot("twice", { isReserved: false, signal });
      await assert.rejects(
        session.createPhysicalSlot("twice", { isReserved: false, signal }),
        (error) => error instanceof ReplicationError && error.sqlState === "42710",
      );
      assert.equal(await session.timelineHistory(9, { signal }), undefined);
      assert.equal(await session.show("wal_segment_size", { signal }), "1MB");
    });

    test("the stream is what pg_wal holds, byte for byte", async () => {
      await using session = await open(cluster);
      const from = segmentStart(await flushLsn(cluster));
      const name = await cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())");
      await cluster.query("CREATE TABLE much AS SELECT generate_series(1, 20000) AS id");
      await cluster.switchWal();
      const walStream = await stream(session, undefined, from);
      const bytes = await takeUntil(walStream, lsn(from + BigInt(MIB)));
      const file = await readFile(join(cluster.dataDirectory, "pg_wal", name));
      assert.ok(bytes.subarray(0, MIB).equals(file));
    });

    test("what we confirm moves the slot, and nothing else does", async () => {
      await using session = await open(cluster);
      await session.createPhysicalSlot("moving", { isReserved: true, signal });
      const restart = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'moving'";
      const first = await cluster.value(restart);
      const from = segmentStart(parseLsn(first));
      await using walStream = await stream(session, "moving", from);
      const end = await flushLsn(cluster);
      const writeLsn = lsn(end + 0n);
      walStream.note({ writeLsn, flushLsn: lsn(0n), applyLsn: lsn(0n) });
      await cluster.waitFor(
        `SELECT count(*) = 1 FROM pg_stat_replication WHERE write_lsn = '0/${end.toString(16)}'`,
      );
      assert.equal(await cluster.value(restart), first);
      walStream.confirm({ writeLsn, flushLsn: end, applyLsn: lsn(0n) });
      await cluster.waitFor(
        `SELECT restart_lsn = '0/${end.toString(16)}' FROM pg_replication_slots
          WHERE slot_name = 'moving'`,
      );
    });

    test("a reader that waits holds the server up, and loses nothing", async () => {
      await using session = await open(cluster);
      const from = segmentStart(await flushLsn(cluster));
      await cluster.query(
        "CREATE TABLE big AS SELECT repeat('x', 900) FROM generate_series(1, 20000)",
      );
      const end = await flushLsn(cluster);
      const walStream = await stream(session, undefined, from);
      let count = 0;
      let at = from;
      for await (const piece of walStream) {
        if (count === 0) await until("the server sends no more", isAtRest(cluster));
        count += 1;
        assert.equal(piece.startLsn, at);
        at = endOf(piece);
        assert.ok(walStream.waitingBytes <= 2 * MIB, `${walStream.waitingBytes} bytes wait`);
        if (at >= end) break;
      }
      assert.ok(end - from > 8n * BigInt(MIB));
    });

    test("a start that the server can't give is told with its reason", async () => {
      await using session = await open(cluster);
      const far = lsn((await flushLsn(cluster)) + BigInt(64 * MIB));
      await assert.rejects(
        takeUntil(await stream(session, undefined, far), far),
        /^ReplicationError: START_REPLICATION: .*ahead of the WAL flush position/,
      );
      await using other = await open(cluster);
      const gone = await stream(other, undefined, lsn(0x100000n));
      await assert.rejects(
        takeUntil(gone, far),
        (error) => error instanceof ReplicationError && error.sqlState === "58P01",
      );
    });

    test("a slot takes one session at a time", async () => {
      await using one = await open(cluster);
      await one.createPhysicalSlot("busy", { isReserved: true, signal });
      const from = segmentStart(await flushLsn(cluster));
      await using walStream = await stream(one, "busy", from);
      assert.equal(walStream.end, undefined);
      await using other = await open(cluster);
      await assert.rejects(
        stream(other, "busy", from),
        (error) =>
          error instanceof ReplicationError &&
          error.sqlState === "55006" &&
          error.hint?.includes("a slot of its own by WALG_SLOTNAME") === true,
      );
    });

    test("a walsender that is killed, and an abort, end the stream", async () => {
      await using session = await open(cluster);
      const walStream = await stream(session, undefined, segmentStart(await flushLsn(cluster)));
      const reading = takeUntil(walStream, lsn(1n << 60n));
      const killing = (async () => {
        await cluster.waitFor("SELECT count(*) = 1 FROM pg_stat_replication");
        await cluster.query("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
      })();
      await Promise.all([
        assert.rejects(reading, (error) => error instanceof DatabaseError),
        killing,
      ]);

      const stop = new AbortController();
      await using next = await open(cluster, { signal: stop.signal });
      const from = segmentStart(await flushLsn(cluster));
      const stopped = await stream(next, undefined, from, { signal: stop.signal });
      const ended = assert.rejects(takeUntil(stopped, lsn(1n << 60n)), /enough/);
      stop.abort(new Error("enough"));
      await ended;
    });

    test("the server stops at once when all was confirmed, and tells so", async () => {
      await using session = await open(cluster);
      await using walStream = await stream(
        session,
        undefined,
        segmentStart(await flushLsn(cluster)),
      );
      const reading = (async () => {
        for await (const piece of walStream) {
          const end = endOf(piece);
          walStream.confirm({ writeLsn: end, flushLsn: end, applyLsn: end });
        }
      })();
      await Promise.all([
        assert.rejects(reading, { message: "the server is shutting down" }),
        cluster.stop("fast"),
      ]);
      await cluster.start();
    });

    test("a server that shuts down waits for what is not confirmed, without haste", async () => {
      // Time stands still, so that every pause is asked for in full; it takes no time itself.
      const pausesMs: number[] = [];
      const clock: Clock = {
        now: () => systemClock.now(),
        monotonicMs: () => 0,
        async sleep(ms, options) {
          // The regular status would be an answer, too.
          if (ms === STATUS_INTERVAL_MS) return await systemClock.sleep(3_600_000, options);
          pausesMs.push(ms);
        },
      };
      await using session = await open(cluster, { signal, clock });
      const from = segmentStart(await flushLsn(cluster));
      await using walStream = await stream(session, undefined, from);
      // Without a slot the server is content with what we received, unless we say more than
      // nothing.
      const flushed = lsn(from + 1n);
      let at = from;
      const begun = Promise.withResolvers<void>();
      const reading = (async () => {
        for await (const piece of walStream) {
          at = endOf(piece);
          walStream.confirm({ writeLsn: at, flushLsn: flushed, applyLsn: lsn(0n) });
          begun.resolve();
        }
      })();
      const watching = (async () => {
        await begun.promise;
        const asked = Promise.withResolvers<void>();
        let askedCount = 0;
        walStream.onReplyRequested = () => {
          askedCount += 1;
          if (askedCount === 5) asked.resolve();
        };
        const stopped = cluster.stop("fast");
        await Promise.race([asked.promise, stopped]);
        assert.deepEqual(pausesMs, Array<number>(askedCount).fill(100));
        assert.ok(askedCount >= 5);
        walStream.confirm({ writeLsn: at, flushLsn: at, applyLsn: lsn(0n) });
        await stopped;
      })();
      await Promise.all([
        assert.rejects(reading, { message: "the server is shutting down" }),
        watching,
      ]);
    });
  });
}

test("a server that says nothing is given up", async () => {
  await using cluster = await startCluster({
    major: 15,
    segmentMiB: 1,
    settings: { wal_level: "replica", wal_sender_timeout: "0" },
  });
  await using session = await open(cluster);
  const from = segmentStart(await flushLsn(cluster));
  const walStream = await stream(session, undefined, from, { silenceTimeoutMs: 1000 });
  const pid = Number(await cluster.value("SELECT pid FROM pg_stat_replication"));
  process.kill(pid, "SIGSTOP");
  try {
    await assert.rejects(
      takeUntil(walStream, lsn(1n << 60n)),
      /^DatabaseError: the server has said nothing for \d+ s$/,
    );
  } finally {
    process.kill(pid, "SIGCONT");
  }
});

test("names of slots are PostgreSQL's", () => {
  for (const name of ["walg", "a_1", "0", "x".repeat(63)]) assert.equal(isSlotName(name), true);
  for (const name of ["", "Walg", "a-b", 'a"b', "a b", "x".repeat(64), "é"]) {
    assert.equal(isSlotName(name), false);
  }
});
