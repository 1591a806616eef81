import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { CatchUpListener, connectCatchUp } from "../../src/backup/catch-up-connection.ts";
import {
  type CatchUpReceived,
  inspectCatchUpPlace,
  receiveCatchUp,
} from "../../src/backup/catch-up-receive.ts";
import { type CatchUpSent, sendCatchUp } from "../../src/backup/catch-up-send.ts";
import { untilAborted } from "../../src/io/abort.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { type TcpFault, TcpFaultProxy } from "../support/fault-proxy.ts";
import { comparePages } from "../support/page-compare.ts";
import { restoreCluster } from "../support/postgres.ts";
import { catchUp, type Pair, startPair } from "../support/standby-pair.ts";

const SECRET = "a secret of the tests, long enough";
const HOST = "127.0.0.1";

interface Ends {
  readonly sent: PromiseSettledResult<CatchUpSent>;
  readonly received: PromiseSettledResult<CatchUpReceived>;
}

describe("a primary that gives a standby what it lacks", () => {
  const all: { pair?: Pair } = {};
  function pair(): Pair {
    if (all.pair === undefined) throw new Error("no servers");
    return all.pair;
  }
  before(async () => {
    all.pair = await startPair(17, async ({ cluster }) => {
      const location = await cluster.makeDirectory("a space");
      await cluster.query(`CREATE TABLESPACE other LOCATION '${location}'`);
      await cluster.query("CREATE TABLE far TABLESPACE other AS SELECT * FROM item");
      for (const name of ["big", "short", "gone"]) {
        await cluster.query(
          `CREATE TABLE ${name} AS SELECT n, repeat('x', 300) FROM generate_series(1, 9000) n`,
        );
      }
      await cluster.query("VACUUM");
    });
    const { primary, standby } = pair();
    const { cluster } = primary;
    await catchUp(pair());
    await standby.stop();
    await cluster.query("UPDATE big SET n = -n WHERE n % 1000 = 0");
    await cluster.query("DELETE FROM short WHERE n > 10");
    await cluster.query("VACUUM short");
    await cluster.query("DROP TABLE gone");
    await cluster.query("UPDATE far SET n = -n WHERE n % 100 = 0");
    await cluster.query("CREATE TABLE added AS SELECT * FROM item");
    // Older pages under new names, which no LSN tells of.
    await cluster.query("CREATE DATABASE copied STRATEGY file_copy");
    await cluster.query("CHECKPOINT");
    await cluster.switchWal();
    await cluster.query("CHECKPOINT");
  });
  after(async () => await all.pair?.[Symbol.asyncDispose]());

  /** Both ends at once, through a proxy with this fault. */
  async function run(
    fault: TcpFault = {},
    {
      secret = SECRET,
      idleMs = 30_000,
    }: { readonly secret?: string; readonly idleMs?: number } = {},
  ): Promise<Ends> {
    const { primary, standby } = pair();
    const { cluster } = primary;
    const signal = AbortSignal.timeout(60_000);
    const over = new AbortController();
    const common = { idleMs, clock: systemClock, log: silentLog };
    const receiver = { ...common, secret: SECRET, signal };
    const place = await inspectCatchUpPlace(standby.dataDirectory);
    assert.ok(place !== undefined);
    await using listener = await CatchUpListener.open({ host: HOST, port: 0 }, receiver);
    await using proxy = await TcpFaultProxy.start({ host: HOST, port: listener.port });
    proxy.fault = fault;
    const send = async (): Promise<CatchUpSent> => {
      try {
        const at = { host: HOST, port: proxy.port };
        await using link = await connectCatchUp(at, { ...common, secret, signal });
        const settings = {
          dataDirectory: cluster.dataDirectory,
          connection: {
            host: HOST,
            port: cluster.port,
            user: "postgres",
            database: "postgres",
            applicationName: "walnut-test",
          },
          aliveCheckIntervalMs: 1000,
        };
        const world = { log: silentLog, clock: systemClock, onProgress: () => {}, signal };
        return await sendCatchUp(link, settings, world);
      } catch (error) {
        over.abort(new Error("the sender failed", { cause: error }));
        throw error;
      }
    };
    const receive = async (): Promise<CatchUpReceived> => {
      await using link = await untilAborted(listener.accept(), over.signal);
      const options = { fsync: false, log: silentLog, signal, onProgress: () => {} };
      return await receiveCatchUp(link, place, options);
    };
    const [sent, received] = await Promise.allSettled([send(), receive()]);
    return { sent, received };
  }

  function isStartable(): boolean {
    return existsSync(join(pair().standby.dataDirectory, "global/pg_control"));
  }

  test("another secret is refused, and nothing is changed", async () => {
    const { sent } = await run({}, { secret: "not the secret of the tests" });
    assert.equal(sent.status, "rejected");
    assert.ok(isStartable());
    assert.deepEqual(await leftovers(pair().standby.dataDirectory), []);
  });

  test("a directory that a server may use is refused", async () => {
    const { dataDirectory } = pair().standby;
    const pid = join(dataDirectory, "postmaster.pid");
    await writeFile(pid, "1\n");
    await assert.rejects(inspectCatchUpPlace(dataDirectory), { message: /postmaster\.pid/ });
    await rm(pid);
    const { cluster } = pair().primary;
    await assert.rejects(inspectCatchUpPlace(cluster.dataDirectory), { message: /postmaster/ });
    await assert.rejects(inspectCatchUpPlace(join(dataDirectory, "base")), {
      message: /is no data directory of a standby/,
    });
  });

  for (const [what, fault] of [
    ["cut", { cutAfterBytes: 400_000 }],
    ["changed by a bit", { corruptByte: 700_000 }],
    ["cut again", { cutAfterBytes: 3_000_000 }],
  ] as const) {
    test(`a stream that is ${what} ends both, and no server starts`, async () => {
      const { sent, received } = await run(fault);
      assert.equal(received.status, "rejected");
      assert.match(String(received.reason), /connection .* was lost|changed on its way/);
      assert.equal(sent.status, "rejected");
      assert.ok(!isStartable());
      assert.deepEqual(await leftovers(pair().standby.dataDirectory), [
        "pg_control.walnut",
        "walnut_catchup",
      ]);
    });
  }

  test("an end that goes silent is given up", async () => {
    const { sent } = await run({ isSilent: true }, { idleMs: 300 });
    assert.equal(sent.status, "rejected");
    assert.match(String(sent.reason), /does not answer any more/);
  });

  test("the next run goes on, and the standby streams from there", async () => {
    const { primary, standby } = pair();
    const { dataDirectory } = standby;
    // What comes over the wire is all that there is.
    await rename(join(primary.repository, "wal_005"), join(primary.repository, "away"));
    await mkdir(join(primary.repository, "wal_005"));
    const { sent, received } = await run();
    assert.equal(received.status, "fulfilled", inspectReason(received));
    assert.equal(sent.status, "fulfilled", inspectReason(sent));
    assert.ok(sent.value.dataBytes < 30_000_000, `${sent.value.dataBytes}`);
    assert.ok(sent.value.unchangedCount > 100, `${sent.value.unchangedCount}`);
    assert.ok(received.value.removedCount > 0);
    assert.deepEqual(await leftovers(dataDirectory), []);
    assert.ok(existsSync(join(dataDirectory, "standby.signal")));

    const { cluster } = primary;
    await using caught = await restoreCluster(dataDirectory, {
      major: 17,
      signal: "standby",
      restoreCommand: "false",
      settings: { primary_conninfo: `host=127.0.0.1 port=${cluster.port} user=postgres` },
    });
    assert.equal(caught.outcome, "consistent", caught.log());
    await cluster.query("UPDATE item SET n = -n");
    const lsn = await cluster.value("SELECT pg_current_wal_lsn()");
    await caught.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${lsn}'`);
    assert.equal(await caught.contents(), await cluster.contents());
    await primary.setArchiveCommand("true");
    await cluster.stop();
    // Only behind the primary's last checkpoint a standby that stops writes all its pages.
    await caught.waitFor("SELECT pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn()");
    await caught.stop();
    assert.deepEqual(comparePages(cluster.dataDirectory, dataDirectory), []);
  });
});

function inspectReason(result: PromiseSettledResult<unknown>): string {
  if (result.status === "fulfilled") return "";
  return result.reason instanceof Error ? (result.reason.stack ?? "") : String(result.reason);
}

/** What a run leaves until the next one. */
async function leftovers(dataDirectory: string): Promise<readonly string[]> {
  const names = [
    ...(await readdir(dataDirectory)),
    ...(await readdir(join(dataDirectory, "global"))),
  ];
  return names.filter((name) => name.includes("walnut")).toSorted();
}
