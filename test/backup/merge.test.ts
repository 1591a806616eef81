import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { ClusterHistory } from "../support/cluster-history.ts";
import { mergeInto } from "../support/merging.ts";
import { seededRandom } from "../support/random.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const increments = { maxSteps: 99, origin: "latest" } as const;

describe("merges of one server's chains", () => {
  const random = seededRandom();
  const all: { history?: ClusterHistory } = {};
  const history = (): ClusterHistory => {
    if (all.history === undefined) throw new Error("no history");
    return all.history;
  };
  const world = (): BackupWorld => history().world;
  const merge = async (backup: string, change: object = {}) =>
    await mergeInto(world().storage, backup, {
      spoolDirectory: join(world().cluster.directory, "spool"),
      ...change,
    });

  before(async () => {
    const started = await startBackupWorld({ major: 18, settings: { summarize_wal: "on" } });
    all.history = new ClusterHistory(started, random);
  });
  after(async () => await all.history?.[Symbol.asyncDispose]());

  const restored = async (directory: string, backup: string) => {
    await restoreInto(world().storage, directory, { backup });
    return snapshot(directory);
  };

  test(`a merged chain restores byte for byte as the chain (seed ${random.seed})`, async () => {
    using scratch = scratchDirectory();
    await history().change(6);
    let backup = "";
    for (let taken = 0; taken < 4; taken += 1) {
      const push = taken === 1 ? world().pushRemote.bind(world()) : world().push.bind(world());
      const pushed = await push({ increments, hasDatabaseNames: false });
      backup = pushed.name;
      await history().change(5);
    }
    const merged = await merge(backup);
    const [chain, one] = [join(scratch.path, "chain"), join(scratch.path, "merged")];
    assert.deepEqual(await restored(one, merged.name), await restored(chain, backup));
  });
});
