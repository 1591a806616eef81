/**
 * Random histories of real servers. In each, chains of increments grow side by side, one for each
 * change source that the release has, all from the same moments; at the end each chain is restored,
 * replayed to the end of the WAL and compared with the server's files page by page.
 *
 * A long run has 200 histories. All of it, in a quarter of an hour on two quiet cores:
 *
 *   for part in 0-99 100-199; do
 *     TMPDIR=/dev/shm WALNUT_LONG=1 WALNUT_HISTORIES=$part \
 *       node_modules/.bin/bun test ./test/e2e/increment-histories.test.ts --timeout=600000 &
 *   done; wait
 *
 * A failure says how to repeat its history alone.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChangeWay } from "../../src/backup/change-sources.ts";
import { startBackupWorld } from "../support/backup-world.ts";
import { ChangeMaps } from "../support/change-maps.ts";
import { ClusterHistory } from "../support/cluster-history.ts";
import type { Major } from "../support/postgres.ts";
import { type Random, randomOf, seededRandom } from "../support/random.ts";
import { assertAllRestoreLive } from "../support/restored-compare.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
/** Every second one has summaries. */
const RELEASES: readonly Major[] = IS_LONG ? [17, 13, 18, 14, 17, 15, 18, 16] : [18, 13];
const COUNT = IS_LONG ? 200 : RELEASES.length;
const SEED = seededRandom().seed;

/** Increments that were all made in one way, each on the one before. */
interface Chain {
  readonly way: ChangeWay;
  /** What the sentinel may say of it. */
  readonly names: readonly string[];
  newest: string;
}

function chainsOf(major: Major, full: string): readonly Chain[] {
  const chains: Chain[] = [
    { way: "wal", names: ["wal", "wal-deltas"], newest: full },
    { way: "page-scan", names: ["page-scan"], newest: full },
  ];
  if (major >= 17) chains.unshift({ way: "summaries", names: ["wal-summaries"], newest: full });
  return chains;
}

const [first = 0, last = COUNT - 1] = (process.env["WALNUT_HISTORIES"] ?? "").match(/\d+/g) ?? [];
for (let index = Number(first); index <= Number(last); index += 1) {
  const major = RELEASES[index % RELEASES.length] ?? 18;
  test(`history ${index} on PostgreSQL ${major}: chains restore page by page`, async () => {
    const random = randomOf(SEED + index);
    const settings = {
      shared_buffers: "16MB",
      ...(major >= 17 ? { summarize_wal: "on" } : {}),
    };
    await using history = new ClusterHistory(await startBackupWorld({ major, settings }), random);
    try {
      const chains = await live(history, random, major);
      const backups = chains.map(({ newest }) => newest);
      await assertAllRestoreLive(history.world, backups, major);
    } catch (error) {
      const again = `WALNUT_SEED=${SEED} WALNUT_HISTORIES=${index}-${index}`;
      const long = IS_LONG ? " WALNUT_LONG=1" : "";
      const message = `${again}${long}, PostgreSQL ${major}: ${history.steps.join(", ")}`;
      throw new Error(message, { cause: error });
    }
  });
}

async function live(
  history: ClusterHistory,
  random: Random,
  major: Major,
): Promise<readonly Chain[]> {
  await history.change(6);
  const { name } = await push(history, "", { ways: ["page-scan"] });
  const chains = chainsOf(major, name);
  const maps = random.next() < 0.7 ? new ChangeMaps(history.world) : undefined;
  const count = 2 + Math.floor(random.next() * (IS_LONG ? 4 : 1));
  for (let taken = 0; taken < count; taken += 1) {
    await history.change(6 + Math.floor(random.next() * 10));
    await befall(history, random.next(), major);
    await maps?.store(history.world);
    for (const chain of chains) await extend(history, chain, maps?.directory);
  }
  await history.change(3 + Math.floor(random.next() * 6));
  if (random.next() < 0.3) await history.crash();
  return chains;
}

async function befall(history: ClusterHistory, chance: number, major: Major): Promise<void> {
  if (chance < 0.2) await history.crash();
  else if (chance < 0.4) await history.failOver(major);
  else return;
  await history.change(2);
}

async function extend(
  history: ClusterHistory,
  chain: Chain,
  notesDirectory: string | undefined,
): Promise<void> {
  const ways = [chain.way, "page-scan"] as const;
  const pushed = await push(history, chain.newest, { ways, notesDirectory });
  assert.equal(pushed.baseName, chain.newest, history.world.logged.join("\n"));
  chain.newest = pushed.name;
  const source = (await history.world.sentinel(pushed.name)).own?.changeSource ?? "none";
  history.steps.push(`(backup by ${source})`);
  // After a failover a source may have a hole, and the next one is right to be used.
  const mayHaveHole = source === "page-scan" && history.steps.includes("failover");
  assert.ok(chain.names.includes(source) || mayHaveHole, history.world.logged.join("\n"));
}

async function push(
  history: ClusterHistory,
  base: string,
  { ways, notesDirectory }: { ways: readonly ChangeWay[]; notesDirectory?: string | undefined },
) {
  const from = base === "" ? undefined : ({ kind: "name", name: base } as const);
  const increments = { maxSteps: base === "" ? 0 : 99, origin: "latest", ways, from } as const;
  return await history.world.push({ increments, notesDirectory, hasDatabaseNames: false });
}
