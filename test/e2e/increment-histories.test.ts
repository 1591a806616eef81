import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChangeWay } from "../../src/backup/change-sources.ts";
import { startBackupWorld } from "../support/backup-world.ts";
import { ClusterHistory } from "../support/cluster-history.ts";
import { type Major, MAJORS } from "../support/postgres.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { assertRestoresLive } from "../support/restored-compare.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const HISTORIES = IS_LONG ? 200 : 3;
/** Each change source, with the releases that have it. */
const SOURCES: readonly {
  readonly way: ChangeWay;
  readonly names: readonly string[];
  readonly majors: readonly Major[];
}[] = [
  { way: "summaries", names: ["wal-summaries"], majors: IS_LONG ? [17, 18] : [18] },
  { way: "wal", names: ["wal", "wal-deltas"], majors: IS_LONG ? MAJORS : [13] },
  { way: "page-scan", names: ["page-scan"], majors: IS_LONG ? MAJORS : [18] },
];

for (let index = 0; index < HISTORIES; index += 1) {
  const source = SOURCES[index % SOURCES.length] ?? SOURCES[0];
  test(`history ${index}: a chain by ${source?.way} restores page by page`, async () => {
    assert.ok(source !== undefined);
    const random = seededRandom();
    for (let skipped = 0; skipped <= index * 7; skipped += 1) random.next();
    const round = Math.floor(index / SOURCES.length);
    const major = source.majors[round % source.majors.length] ?? 18;
    const settings = major >= 17 ? { summarize_wal: "on" } : {};
    await using history = new ClusterHistory(await startBackupWorld({ major, settings }), random);
    try {
      const used = await live(history, random, { major, way: source.way });
      // After a failover a source may have a hole, and the next one is right to be used.
      const mayHaveHole = history.steps.includes("failover");
      assert.ok(mayHaveHole || used.every((name) => source.names.includes(name)), used.join(" "));
    } catch (error) {
      const steps = history.steps.join(", ");
      throw new Error(`seed ${random.seed}, PostgreSQL ${major}: ${steps}`, { cause: error });
    }
  });
}

/** Gives the sources by which the increments were made. */
async function live(
  history: ClusterHistory,
  random: Random,
  { major, way }: { readonly major: Major; readonly way: ChangeWay },
): Promise<readonly string[]> {
  const increments = { maxSteps: 9, origin: "latest", ways: [way, "page-scan"] } as const;
  const used: string[] = [];
  await history.change(6);
  let backup = "";
  const count = 2 + Math.floor(random.next() * (IS_LONG ? 4 : 1));
  for (let taken = 0; taken <= count; taken += 1) {
    const pushed = await history.world.push({ increments, hasDatabaseNames: false });
    assert.equal(pushed.baseName ?? "", backup, history.world.logged.join("\n"));
    backup = pushed.name;
    const source = (await history.world.sentinel(backup)).own?.changeSource;
    if (source !== undefined) used.push(source);
    history.steps.push(`(backup ${taken} ${source ?? ""})`);
    await history.change(3 + Math.floor(random.next() * 6));
    const chance = random.next();
    if (chance < 0.2) await history.crash();
    else if (chance < 0.4 && taken < count) await history.failOver(major);
  }
  await assertRestoresLive(history.world, backup, major);
  return used;
}
