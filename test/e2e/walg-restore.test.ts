import assert from "node:assert/strict";
import { chmodSync, mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { restoreCluster } from "../support/postgres.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { tableDigests } from "../support/table-digests.ts";
import {
  type KnownRestore,
  unpackWalgFixture,
  ENCRYPTED_WALG_CASES,
  type EncryptedWalgCase,
  WALG_CASES,
  type WalgCase,
  type WalgFixture,
} from "../support/walg-fixture.ts";
import { runWalnut, walnutShellCommand } from "../support/walnut.ts";

/**
 * Every known restore of these; of the others the first and the last, of encrypted ones only that,
 * unless WALNUT_LONG is 1.
 */
const WHOLE: readonly (WalgCase | EncryptedWalgCase)[] = ["lz4-chain", "timelines"];
const IS_LONG = process.env["WALNUT_LONG"] === "1";

async function restoreAndCompare(fixture: WalgFixture, known: KnownRestore): Promise<void> {
  const user = serverUser();
  const directory = mkdtempSync(join(tmpdir(), "walnut-e2e-"));
  try {
    chmodSync(directory, 0o755);
    await chownTree(directory, user);
    const destination = join(directory, "data");
    const env = {
      ...fixture.env,
      WALG_FILE_PREFIX: fixture.repository,
      WALNUT_CACHE_DIR: join(directory, "cache"),
    };
    const fetched = await runWalnut(["backup-fetch", destination, known.backup], { env, user });
    assert.equal(fetched.code, 0, fetched.stderr);
    await using cluster = await restoreCluster(destination, {
      major: 15,
      signal: "recovery",
      restoreCommand: `${walnutShellCommand()} wal-fetch "%f" "%p"`,
      environment: env,
      settings: {
        timezone: "UTC",
        recovery_target_action: "promote",
        hba_file: join(destination, "pg_hba.conf"),
        ...known.target,
      },
    });
    assert.equal(cluster.outcome, "promoted", cluster.log());
    const wanted = fixture.digests[known.digest] ?? {};
    assert.deepEqual(await tableDigests(cluster, wanted), wanted, cluster.log());
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

for (const name of [...WALG_CASES, ...ENCRYPTED_WALG_CASES]) {
  test(`what WAL-G wrote is restored to every recorded state: ${name}`, async () => {
    await using fixture = await unpackWalgFixture(name);
    chmodSync(dirname(fixture.directory), 0o755);
    await chownTree(dirname(fixture.directory), serverUser());
    const { restores } = fixture;
    const isEncrypted = ENCRYPTED_WALG_CASES.some((one) => one === name);
    const some = isEncrypted ? [restores.at(-1)] : [restores[0], restores.at(-1)];
    const chosen = IS_LONG || WHOLE.includes(name) ? restores : some;
    assert.ok(chosen.length > 0);
    for (const known of chosen) {
      assert.ok(known !== undefined);
      await restoreAndCompare(fixture, known);
    }
  });

  test(`what WAL-G wrote is listed as it lists it: ${name}`, async () => {
    await using fixture = await unpackWalgFixture(name);
    const env = { ...fixture.env, WALG_FILE_PREFIX: fixture.repository };
    const list = async (...flags: string[]): Promise<string> => {
      const result = await runWalnut(["backup-list", ...flags], { env });
      assert.equal(result.code, 0, result.stderr);
      return result.stdout;
    };
    assert.equal(await list(), fixture.expected("backup-list.txt"));
    assert.equal(
      await list("--json", "--detail"),
      withRecordedTimes(fixture.expected("backup-list.json")),
    );
    const short = withoutTimes(await list("--json"));
    assert.equal(short, withoutTimes(fixture.expected("backup-list-short.json")));
    const indented = await list("--json", "--detail", "--pretty");
    assert.deepEqual(JSON.parse(indented), JSON.parse(await list("--json", "--detail")));
    assert.match(indented, /^\[\n {4}\{\n {8}"backup_name": "base_/);
  });
}

/** WAL-G shows the sentinel's time of modification, we show the recorded time of the end. */
function withRecordedTimes(text: string): string {
  return text.replaceAll(/"time":"[^"]*"(.*?"finish_time":")([^"]*)"/g, '"time":"$2"$1$2"');
}

function withoutTimes(text: string): string {
  return text.replaceAll(/"time":"[^"]*"/g, '"time":""');
}
