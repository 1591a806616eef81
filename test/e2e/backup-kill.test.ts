import { test } from "node:test";
import assert from "node:assert/strict";
import { join } from "node:path";
import { rm } from "node:fs/promises";
import { restoreCluster, startCluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";
import { seededRandom } from "../support/random.ts";
import { runWalnut } from "../support/walnut.ts";
import { KillMoments } from "../support/kill-moments.ts";

const ROUNDS = process.env["WALNUT_LONG"] === "1" ? 200 : 25;
const random = seededRandom();

test(`backup-push killed at ${ROUNDS} random moments (seed ${random.seed})`, async () => {
  await using cluster = await startCluster({
    major: 17,
    segmentMiB: 1,
    settings: { archive_mode: "on", checkpoint_timeout: "1h" },
  });
  const walnut = await install(cluster, {
    WALG_FILE_PREFIX: await cluster.makeDirectory("repository"),
    WALG_COMPRESSION_METHOD: "zstd",
  });
  await cluster.configure({ archive_command: walnut.archiveCommand });
  await cluster.query("select pg_reload_conf()");
  await cluster.query("create table counted (n int)");

  const names = async () => {
    const { stdout } = await walnut.mustRun("backup-list", "--json");
    const rows: readonly { backup_name: string }[] = JSON.parse(stdout);
    return rows.map(({ backup_name }) => backup_name);
  };
  const moments = new KillMoments(
    random,
    await walnut.mustRun("backup-push", cluster.dataDirectory),
  );

  const finished: string[] = await names();
  let kills = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    await cluster.query(`insert into counted values (${round})`);
    const result = await runWalnut(
      ["--config", walnut.configFile, "backup-push", cluster.dataDirectory],
      {
        cwd: cluster.dataDirectory,
        user: cluster.user,
        killAfterMs: moments.next(),
      },
    );
    moments.saw(result);
    const listed = await names();
    const added = listed.filter((name) => !finished.includes(name));
    if (result.signal === "SIGKILL") kills += 1;
    else assert.equal(result.code, 0, result.stderr);
    // Killed after the sentinel was written, or before: there is nothing in between.
    assert.ok(added.length <= 1, `round ${round} added ${added.join(", ")}`);
    finished.push(...added);
  }
  assert.ok(kills > ROUNDS / 4, `${kills} of ${ROUNDS} rounds were killed`);

  await walnut.mustRun("backup-push", cluster.dataDirectory);
  await cluster.switchWal();
  await cluster.waitForArchiver();
  const contents = await cluster.contents();
  const sample = [finished[0], finished.at(-1), "LATEST"];
  for (const name of sample) {
    const target = join(cluster.directory, "restored");
    await walnut.mustRun("backup-fetch", target, name ?? "LATEST");
    await using restored = await restoreCluster(target, {
      major: 17,
      signal: "recovery",
      restoreCommand: walnut.restoreCommand,
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.equal(await restored.contents(), contents);
    await restored.stop();
    await rm(target, { recursive: true });
  }
});
