/**
 * catchup-send and catchup-receive, the real program at both ends: one of them is killed in the
 * middle. What is left can't be started, and a run of both completes it.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import { comparePages } from "../support/page-compare.ts";
import { restoreCluster } from "../support/postgres.ts";
import { seededRandom } from "../support/random.ts";
import { serverUser } from "../support/server-user.ts";
import { catchUp, type Pair, startPair } from "../support/standby-pair.ts";
import { walnutCommand } from "../support/walnut.ts";
import { until } from "../support/until.ts";

const ROUNDS = process.env["WALNUT_LONG"] === "1" ? 40 : 2;
const HOST = "127.0.0.1";
const MAJOR = 17;
/** So much is always sent. */
const SENT_BYTES_MIN = 3_000_000;
/** With so much the receiver has everything that it needs to begin. */
const BEGUN_BYTES = 300_000;

/** One end; its own words are in `log`. */
function startEnd(words: readonly string[], env: Readonly<Record<string, string>>) {
  const [program, ...rest] = walnutCommand();
  if (program === undefined) throw new Error("no command");
  const child = spawn(program, [...rest, ...words], {
    ...serverUser(),
    cwd: tmpdir(),
    env: { PATH: process.env["PATH"], HOME: tmpdir(), TMPDIR: tmpdir(), ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = once(child, "close");
  let log = "";
  const heard = Promise.withResolvers<number>();
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log += text;
    const port = /waiting for catchup-send.*port[=:]"?(\d+)/.exec(log)?.[1];
    if (port !== undefined) heard.resolve(Number(port));
  });
  void ended.then(() => heard.reject(new Error(log)));
  heard.promise.catch(() => {});
  return {
    port: heard.promise,
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
    outcome: async () => {
      await ended;
      return { code: child.exitCode, signal: child.signalCode, log };
    },
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

describe("a catch-up from server to server", () => {
  const random = seededRandom();
  const all: { pair?: Pair } = {};
  const pair = (): Pair => {
    if (all.pair === undefined) throw new Error("no servers");
    return all.pair;
  };
  const control = () => join(pair().standby.dataDirectory, "global", "pg_control");

  before(async () => {
    all.pair = await startPair(MAJOR);
    const { primary, standby } = pair();
    await catchUp(pair());
    await standby.stop();
    const { cluster } = primary;
    await cluster.query("UPDATE item SET n = -n WHERE n % 100 = 0");
    await cluster.query(
      "CREATE TABLE added AS SELECT n, repeat('x', 300) FROM generate_series(1, 20000) n",
    );
    await cluster.query("CHECKPOINT");
    await cluster.switchWal();
    await cluster.query("CHECKPOINT");
  });
  after(async () => await all.pair?.[Symbol.asyncDispose]());

  /** Both ends at once; `victim` is killed when the sender has sent so much. */
  async function run(kill?: { readonly victim: "sender" | "receiver"; readonly count: number }) {
    const { primary, standby } = pair();
    const env = { WALNUT_CATCHUP_SECRET: "a secret of the tests, long enough" };
    await using receiver = startEnd(["catchup-receive", standby.dataDirectory, "0"], env);
    await using proxy = await TcpFaultProxy.start({ host: HOST, port: await receiver.port });
    const { cluster } = primary;
    await using sender = startEnd(
      ["catchup-send", cluster.dataDirectory, `${HOST}:${proxy.port}`],
      { ...env, ...cluster.connection },
    );
    if (kill !== undefined) {
      const victim = kill.victim === "sender" ? sender : receiver;
      const strike = async (): Promise<void> => {
        // What was sent may still be on its way to a receiver that is slow.
        if (kill.count >= BEGUN_BYTES) await until("it begins", () => !existsSync(control()));
        await victim.kill();
      };
      proxy.fault = { atBytes: { count: kill.count, run: strike } };
    }
    const [sent, received] = await Promise.all([sender.outcome(), receiver.outcome()]);
    return { sent, received };
  }

  test(`either end killed in ${ROUNDS} runs leaves nothing to start (seed ${random.seed})`, async () => {
    let isStartable = true;
    for (let round = 0; round < ROUNDS; round += 1) {
      const victim = round % 2 === 0 ? "receiver" : "sender";
      // The longer run kills at the beginning, too, when nothing may be changed yet.
      const isEarly = ROUNDS > 2 && round % 5 === 0;
      const count = isEarly
        ? Math.floor(random.next() * 2000)
        : BEGUN_BYTES + Math.floor(random.next() * (SENT_BYTES_MIN - BEGUN_BYTES));
      const { sent, received } = await run({ victim, count });
      const [killed, other] = victim === "sender" ? [sent, received] : [received, sent];
      const story = `round ${round}, ${victim} at ${count}:\n${sent.log}\n${received.log}`;
      assert.equal(killed.signal, "SIGKILL", story);
      assert.equal(other.signal, null, story);
      assert.ok(other.code !== 0, story);
      if (!isEarly) isStartable = false;
      if (!isStartable) assert.ok(!existsSync(control()), story);
    }
  });

  test("a run of both completes it: the standby streams, and its pages are the primary's", async () => {
    const { sent, received } = await run();
    assert.deepEqual([sent.code, received.code], [0, 0], `${sent.log}\n${received.log}`);
    const { primary, standby } = pair();
    const { cluster } = primary;
    await using caught = await restoreCluster(standby.dataDirectory, {
      major: MAJOR,
      signal: "standby",
      restoreCommand: "false",
      settings: { primary_conninfo: `host=${HOST} port=${cluster.port} user=postgres` },
    });
    assert.equal(caught.outcome, "consistent", caught.log());
    await cluster.query("UPDATE item SET n = n + 1 WHERE n < 0");
    const lsn = await cluster.value("SELECT pg_current_wal_lsn()");
    await caught.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${lsn}'`);
    await primary.setArchiveCommand("true");
    await cluster.stop();
    await caught.stop();
    assert.deepEqual(comparePages(cluster.dataDirectory, standby.dataDirectory), []);
  });
});
