import assert from "node:assert/strict";
import { chmodSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { restoreCluster } from "../support/postgres.ts";
import { seededRandom } from "../support/random.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { tableDigests } from "../support/table-digests.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";
import { runWalnut, walnutShellCommand } from "../support/walnut.ts";

const ROUNDS = process.env["WALNUT_LONG"] === "1" ? 100 : 2;
const NEWEST = "base_000000010000000000000007_D_000000010000000000000005";
const MERGED = "base_000000010000000000000007";
const random = seededRandom();

test(`a merge of WAL-G's chain, killed at ${ROUNDS} moments (seed ${random.seed}), starts a server`, async () => {
  await using fixture = await unpackWalgFixture("lz4-chain");
  const user = serverUser();
  const root = dirname(fixture.directory);
  chmodSync(root, 0o755);
  await chownTree(root, user);
  const env = { WALG_FILE_PREFIX: fixture.repository, WALNUT_CACHE_DIR: join(root, "cache") };
  const run = async (...words: readonly string[]) => {
    const result = await runWalnut(words, { env, user });
    assert.equal(result.code, 0, result.stderr);
    return result;
  };
  const names = async (): Promise<readonly string[]> => {
    const rows: readonly { backup_name: string }[] = JSON.parse(
      (await run("backup-list", "--json")).stdout,
    );
    return rows.map(({ backup_name }) => backup_name);
  };

  const planned = await run("backup-merge", "LATEST", "--dry-run", "--json");
  assert.match(planned.stdout, new RegExp(`^{"backup_name":"${MERGED}","chain":\\["${NEWEST}",`));
  const before = await names();
  let kills = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const killAfterMs = 100 + random.next() * 900;
    const killed = await runWalnut(["backup-merge", NEWEST], { env, user, killAfterMs });
    const found = await names();
    if (killed.signal === "SIGKILL") kills += 1;
    else assert.equal(killed.code, 0, killed.stderr);
    // The sentinel may have been stored just before the kill.
    if (found.length > before.length) {
      assert.deepEqual(found, [...before, MERGED]);
      await run("delete", "target", MERGED, "--confirm");
      assert.deepEqual(await names(), before);
    }
  }
  if (ROUNDS > 10) assert.ok(kills > ROUNDS / 4, `${kills} of ${ROUNDS} rounds were killed`);
  await run("backup-merge", NEWEST, "--add-user-data", '{"merged":true}');
  await run("delete", "before", MERGED, "--confirm");
  assert.deepEqual(await names(), [MERGED], "the merged backup needs no other");

  const destination = join(root, "data");
  await run("backup-fetch", destination, "--target-user-data", '{"merged":true}');
  await using cluster = await restoreCluster(destination, {
    major: 15,
    signal: "recovery",
    restoreCommand: `${walnutShellCommand()} wal-fetch "%f" "%p"`,
    environment: env,
    settings: { timezone: "UTC", hba_file: join(destination, "pg_hba.conf") },
  });
  assert.equal(cluster.outcome, "promoted", cluster.log());
  const wanted = fixture.digests["end"] ?? {};
  assert.deepEqual(await tableDigests(cluster, wanted), wanted);
});
