/**
 * SIGKILL of the prefetcher, of wal-fetch and of the server at random moments of a recovery: it
 * always reaches the end, with every row. The long form does it over S3, behind latency and faults.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { FaultProxy } from "../support/fault-proxy.ts";
import { seededRandom } from "../support/random.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import { archive, type Archived, recover, toTheEnd } from "./recovering.ts";
import { pause } from "../support/until.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const ROUNDS = IS_LONG ? 60 : 2;
const KILLS = 6;
const random = seededRandom();
const note = `WALNUT_SEED=${random.seed} repeats this`;

/** Ids of our processes of one recovery; not of the shells around them. */
function pidsOf(pattern: string): number[] {
  const { stdout } = spawnSync("pgrep", ["-f", pattern], { encoding: "utf8" });
  return stdout
    .trim()
    .split("\n")
    .filter((pid) => pid !== "" && !isShell(pid))
    .map(Number);
}

function isShell(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith("sh\0");
  } catch {
    return true;
  }
}

function postmasterPid(dataDirectory: string): number[] {
  try {
    const [pid = ""] = readFileSync(join(dataDirectory, "postmaster.pid"), "utf8").split("\n");
    return /^[1-9]\d+$/.test(pid) ? [Number(pid)] : [];
  } catch {
    return [];
  }
}

function kill(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended.
    }
  }
}

/** Kills now this, now that, a few times. */
async function killAtRandom(dataDirectory: string, configFile: string): Promise<void> {
  for (let round = 0; round < KILLS; round += 1) {
    await pause(random.next() * 300);
    const choice = random.next();
    if (choice < 0.6) kill(pidsOf(`wal-prefetch ${dataDirectory} `));
    else if (choice < 0.8) kill(pidsOf(`${configFile} wal-fetch `));
    else kill(postmasterPid(dataDirectory));
  }
}

async function killRound(archived: Archived): Promise<void> {
  const killing: Promise<void>[] = [];
  await using recovering = await recover(archived, {
    onPlace: (dataDirectory) =>
      killing.push(killAtRandom(dataDirectory, archived.walnut.configFile)),
  });
  await Promise.all(killing);
  await toTheEnd(recovering, note);
  const { server } = recovering;
  assert.equal(await server.value("SELECT count(*) FROM filler"), archived.rowCount, note);
  const last = await server.value("SELECT sum(length(content)) FROM filler");
  assert.equal(last, String(Number(archived.rowCount) * 1280), note);
  assert.doesNotMatch(server.log(), /a bug in walnut|invalid magic|unexpected pageaddr/, note);
}

test(`${ROUNDS} recoveries with ${KILLS} kills each`, async () => {
  await using archived = await archive({ major: 15 });
  for (let round = 0; round < ROUNDS; round += 1) await killRound(archived);
});

const [s3] = IS_LONG ? await availableS3Servers() : [];
if (s3 !== undefined) {
  test(`${ROUNDS} more over S3 (${s3}), behind latency and faults`, async () => {
    await using store = await startS3Server(s3);
    await using proxy = await FaultProxy.start(store.endpoint);
    await using archived = await archive({
      major: 17,
      settings: {
        WALG_S3_PREFIX: `s3://${store.bucket}/kill`,
        AWS_ENDPOINT: proxy.endpoint,
        AWS_ACCESS_KEY_ID: store.accessKeyId,
        AWS_SECRET_ACCESS_KEY: store.secretAccessKey,
        AWS_S3_FORCE_PATH_STYLE: "true",
        AWS_REGION: "us-east-1",
      },
    });
    proxy.rule = () => {
      const chance = random.next();
      if (chance < 0.05) return { delayMs: 20, answer: { status: 503 } };
      if (chance < 0.1) return { delayMs: 20, truncateAfterBytes: 50_000 };
      return { delayMs: 20 };
    };
    for (let round = 0; round < ROUNDS; round += 1) await killRound(archived);
  });
}
