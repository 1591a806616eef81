import assert from "node:assert/strict";
import { test } from "node:test";
import { startBackupWorld } from "../support/backup-world.ts";
import { ClusterHistory } from "../support/cluster-history.ts";
import { type Major } from "../support/postgres.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { assertRestoresLive } from "../support/restored-compare.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const HISTORIES = IS_LONG ? 40 : 1;

for (let index = 0; index < HISTORIES; index += 1) {
  const major = index % 2 === 0 ? 18 : 17;
  test(`history ${index}: the server's increments of ${major} restore page by page`, async () => {
    const random = seededRandom();
    for (let skipped = 0; skipped <= index * 7; skipped += 1) random.next();
    const world = await startBackupWorld({ major, settings: { summarize_wal: "on" } });
    await using history = new ClusterHistory(world, random);
    try {
      await live(history, random, major);
    } catch (error) {
      const steps = history.steps.join(", ");
      throw new Error(`seed ${random.seed}, PostgreSQL ${major}: ${steps}`, { cause: error });
    }
  });
}

/** A full backup, increments over the network (some by the directory), and a restore. */
async function live(history: ClusterHistory, random: Random, major: Major): Promise<void> {
  const increments = { maxSteps: 9, origin: "latest" } as const;
  const settings = { increments, hasDatabaseNames: false };
  await history.change(8);
  let backup = "";
  for (let taken = 0; taken < 4; taken += 1) {
    // The second one by the directory: a chain may mix both.
    const isRemote = taken !== 1;
    const { world } = history;
    const pushed = isRemote ? await world.pushRemote(settings) : await world.push(settings);
    assert.equal(pushed.baseName ?? "", backup, world.logged.join("\n"));
    if (taken > 0) assert.ok(pushed.unchangedCount > 100, `${pushed.unchangedCount} unchanged`);
    backup = pushed.name;
    history.steps.push(`(backup ${taken})`);
    await history.change(4 + Math.floor(random.next() * 6));
    if (random.next() < 0.2) await history.crash();
  }
  await assertRestoresLive(history.world, backup, major);
}
