/**
 * Pushing ahead to a real S3 server that fails at random, while processes are killed at random.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { readAll } from "../../src/io/bytes.ts";
import { openStorage } from "../../src/storage/open.ts";
import { FaultProxy, type HttpFault } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { s3Config } from "../support/s3-config.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import {
  assertNothingLost,
  type Draining,
  fill,
  killSome,
  readyNames,
  setupLine,
  startWithBacklog,
  stopAll,
  survivingKills,
} from "./draining.ts";
import { pause } from "../support/until.ts";

const KILLS = process.env["WALNUT_LONG"] === "1" ? 200 : 12;
const KILLS_PER_BACKLOG = 6;
const SEGMENTS_PER_BACKLOG = 16;
const FAULT_SHARE = 0.1;

const { signal } = new AbortController();

const slowDown =
  '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>slower</Message></Error>';
const internal =
  '<?xml version="1.0"?><Error><Code>InternalError</Code><Message>again</Message></Error>';

/** What providers do on bad days. */
const FAULTS: readonly ((random: Random) => HttpFault)[] = [
  () => ({ answer: { status: 503, body: slowDown } }),
  () => ({ answer: { status: 500, body: internal } }),
  () => ({ answer: { status: 200, body: internal } }),
  (random) => ({ resetAfterBytes: Math.floor(random.next() * 300_000) }),
  () => ({ loseAnswer: true }),
  (random) => ({ delayMs: random.next() * 500 }),
  (random) => ({ truncateAfterBytes: Math.floor(random.next() * 1000) }),
];

/** One request of ten fails, each kind of fault in its turn. */
function faultRule(random: Random) {
  let count = 0;
  return (): HttpFault | undefined => {
    if (random.next() >= FAULT_SHARE) return undefined;
    const fault = FAULTS[count % FAULTS.length];
    count += 1;
    return fault?.(random);
  };
}

const [kind] = await availableS3Servers();
if (kind === undefined) leaveOut("drain through faults", "no S3 server on this machine");
else {
  test(`kills while ${kind} fails at random lose nothing that was acknowledged`, async () => {
    const random = seededRandom();
    const note = `WALNUT_SEED=${random.seed} repeats this`;
    await using server = await startS3Server(kind);
    await using proxy = await FaultProxy.start(server.endpoint);
    await using storage = await openStorage(s3Config(server, { prefix: "main" }), {
      signal,
      requestTimeoutMs: 60_000,
      uploadConcurrency: 2,
    });
    const readObject = async (name: string) =>
      await readAll(storage.get(`wal_005/${name}.zst`, { signal }));

    const draining = await startWithBacklog(1, {
      WALG_S3_PREFIX: `s3://${server.bucket}/main`,
      AWS_ENDPOINT: proxy.endpoint,
      AWS_REGION: "us-east-1",
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
    });
    const { cluster } = draining;
    await using _cleanUp = cluster;
    const line = await setupLine(draining);
    const verified = new Set<string>();
    for (let kills = 0; kills < KILLS;) {
      await cluster.configure({ archive_command: "false" });
      await fill(draining, SEGMENTS_PER_BACKLOG);
      proxy.rule = faultRule(random);
      await cluster.configure({ archive_command: survivingKills(line) });
      for (let count = 0; count < KILLS_PER_BACKLOG; count += 1, kills += 1) {
        await pause(random.next() * 400);
        killSome(draining, random);
        await assertNothingLost(draining, { note, verified, readObject });
      }
      // After three failures in a row PostgreSQL waits for a minute, or for this.
      await cluster.configure({ archive_command: line });
      await untilArchived(draining, () => cluster.configure({ archive_command: line }));
      await assertNothingLost(draining, { note, verified, readObject });
    }
    // Nothing is there under a final name that PostgreSQL does not have just so.
    for await (const { key } of storage.list("wal_005/", { signal })) {
      const name = key.replace(/^wal_005\//, "").replace(/\.zst$/, "");
      assert.ok(verified.has(name), `${key}; ${note}`);
    }
    await stopAll(cluster);
  });
}

/** Failures make the archiver pause for a minute: reloading its settings wakes it. */
async function untilArchived(draining: Draining, wake: () => Promise<void>): Promise<void> {
  const { walDirectory, cluster } = draining;
  for (let attempt = 0; (await readyNames(walDirectory)).length > 0; attempt += 1) {
    assert.ok(attempt < 60, `files stay ready; server log:\n${cluster.log().slice(-5000)}`);
    await wake();
    await cluster.waitForArchiver({ timeoutMs: 5000 }).catch(() => {});
  }
}
