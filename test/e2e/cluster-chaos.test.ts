/**
 * A cluster whose machines, programs and store fail at random, its one repository, and clients that
 * count what was acknowledged. Long rounds: `npm run test:long -- test/e2e/cluster-chaos.test.ts`.
 */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { test } from "node:test";
import { ChaosCluster, chaosRoot } from "../support/chaos-cluster.ts";
import { brokenPromises, type Row } from "../support/chaos-line.ts";
import { chaosSteps } from "../support/chaos-steps.ts";
import { chaosDirectory, chaosS3 } from "../support/chaos-store.ts";
import type { Major } from "../support/postgres.ts";
import { pick, randomOf, seededRandom } from "../support/random.ts";
import { availableS3Servers } from "../support/s3-server.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const ROUNDS = Number(process.env["WALNUT_ROUNDS"] ?? 60);
/** In this one a standby was given an unfinished segment, and archived it as a whole one. */
const FIXED_SEEDS = [18];
const RELEASES: readonly Major[] = [13, 15, 17, 18];

/** Of the three, one takes three times as long as the others. */
const s3Kinds = (await availableS3Servers()).filter((kind) => kind !== "swift");

const { seed: firstSeed } = seededRandom();
const longSeeds = Array.from({ length: ROUNDS }, (_, index) => firstSeed + index);
for (const seed of IS_LONG ? longSeeds : FIXED_SEEDS) {
  test(`nothing acknowledged is lost, and nothing else opens: round ${seed}`, async () => {
    await round(seed);
  });
}

test("what the rounds check is seen where it is broken", () => {
  const path = [
    { epoch: 1, timeline: 1, endLsn: 50n },
    { epoch: 3, timeline: 2, endLsn: undefined },
  ];
  // The fifth is of a promotion that nobody followed, the sixth behind the fork.
  const rows = [
    row(1, 1, 10n),
    row(2, 1, 20n),
    row(3, 1, 40n),
    row(4, 3, 60n, true),
    row(5, 2, 55n, true),
    row(6, 1, 60n, true),
    row(7, 3, 80n),
  ];
  const broken = (held: readonly number[], archivedLsn = 0n) =>
    brokenPromises(new Set(held), { rows, path, archivedLsn });
  assert.deepEqual(broken([1, 2, 3, 4, 7]), []);
  assert.deepEqual(broken([1, 2, 3, 4], 85n), []);
  assert.deepEqual(broken([1, 2, 3]), ["row 4 was acknowledged by the archive"]);
  assert.deepEqual(broken([1, 3, 4]), ["row 2 is a hole"]);
  assert.deepEqual(broken([1, 2, 3, 4], 90n), ["row 7 is in archived WAL"]);
  assert.deepEqual(broken([1, 2, 3, 4, 5, 6, 8]), [
    "row 5 is of another line",
    "row 6 is of another line",
    "row 8 was never written",
  ]);
});

function row(n: number, epoch: number, fromLsn: bigint, isSynced = false): Row {
  return { n, epoch, fromLsn, toLsn: fromLsn + 10n, isSynced };
}

async function round(seed: number): Promise<void> {
  const random = randomOf(seed);
  const said: string[] = [];
  const say = (text: string): void => void said.push(text);
  const root = await chaosRoot();
  try {
    const major = pick(random, RELEASES);
    const kind = random.next() < 0.35 && s3Kinds.length > 0 ? pick(random, s3Kinds) : undefined;
    await using store = await (kind === undefined ? chaosDirectory(root) : chaosS3(kind, random));
    const isSynchronous = random.next() < 0.5;
    const chosen = {
      major,
      nodeCount: random.next() < 0.5 ? 2 : 3,
      archiveMode: random.next() < 0.6 ? "on" : "always",
      isSynchronous,
      hasReceiver: isSynchronous || random.next() < 0.4,
    } as const;
    say(JSON.stringify({ ...chosen, store: kind ?? "directory" }));
    await using cluster = await ChaosCluster.make({ ...chosen, store, root, say });
    try {
      await chaosSteps(cluster, { random, say });
    } catch (error) {
      said.push(...cluster.logs());
      throw error;
    }
  } catch (error) {
    const note = `WALNUT_LONG=1 WALNUT_ROUNDS=1 WALNUT_SEED=${seed} repeats this`;
    assert.fail(`${String(error)}\n${note}\n${said.join("\n")}`);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}
