/** The whole job with keys that AWS KMS guards, with the real program and a service of ours. */
import assert from "node:assert/strict";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { FakeKms } from "../support/fake-kms.ts";
import { initCluster, restoreCluster } from "../support/postgres.ts";
import { runWalnut, shellWord, walnutShellCommand } from "../support/walnut.ts";

const MAJOR = 18;
const SECRET = "a row that nobody else may read";

test("round trip with a key of AWS KMS", async () => {
  await using kms = await FakeKms.start();
  await using cluster = await initCluster({
    major: MAJOR,
    segmentMiB: 1,
    settings: { archive_mode: "on" },
  });
  const repository = await cluster.makeDirectory("repository");
  const configFile = join(cluster.directory, "walnut.json");
  const settings = {
    WALNUT_CACHE_DIR: await cluster.makeDirectory("cache"),
    WALG_FILE_PREFIX: repository,
    WALG_COMPRESSION_METHOD: "none",
    WALG_CSE_KMS_ID: kms.keyId,
    WALG_CSE_KMS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: "any",
    AWS_SECRET_ACCESS_KEY: "any",
    ...cluster.connection,
  };
  await writeFile(configFile, JSON.stringify(settings));
  const run = async (...words: readonly string[]) =>
    await runWalnut(["--config", configFile, ...words], {
      cwd: cluster.dataDirectory,
      user: cluster.user,
      env: { AWS_ENDPOINT_URL_KMS: kms.endpoint },
    });
  const mustRun = async (...words: readonly string[]) => {
    const { code, stderr } = await run(...words);
    assert.equal(code, 0, stderr);
  };
  const program =
    `AWS_ENDPOINT_URL_KMS=${kms.endpoint} ` +
    `${walnutShellCommand()} --config ${shellWord(configFile)}`;
  await cluster.configure({ archive_command: `${program} wal-push "%p"` });
  await cluster.start();
  await cluster.query(`create table t as select '${SECRET}' as body from generate_series(1, 100)`);

  kms.asked.splice(0);
  await mustRun("backup-push", cluster.dataDirectory);
  const asked = kms.asked.filter((one) => one === "Encrypt").length;
  assert.ok(asked >= 1 && asked <= 10, `${asked} data keys for a backup and its WAL`);
  await cluster.query(`insert into t select '${SECRET}' from generate_series(1, 100)`);
  await cluster.switchWal();
  await cluster.waitForArchiver();
  const contents = await cluster.contents();

  for (const entry of await readdir(repository, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const bytes = await readFile(join(entry.parentPath, entry.name));
    assert.ok(!bytes.includes(SECRET), entry.name);
  }

  const target = join(cluster.directory, "restored");
  await mustRun("backup-fetch", target, "LATEST");
  await using restored = await restoreCluster(target, {
    major: MAJOR,
    signal: "recovery",
    restoreCommand: `${program} wal-fetch "%f" "%p"`,
  });
  assert.equal(restored.outcome, "promoted", restored.log());
  assert.equal(await restored.contents(), contents);

  // Without the service nothing is stored plain, and no recovery ends.
  const segments = (await readdir(join(repository, "wal_005"))).toSorted();
  const [segment = ""] = segments;
  const history = join(cluster.directory, "00000009.history");
  await writeFile(history, "8\t0/3000000\tno reason\n", { mode: 0o644 });
  const troubles = [
    { status: 400, body: { __type: "AccessDeniedException", message: "told so" } },
    { status: 400, body: { __type: "DisabledException", message: "told so" } },
    { status: 500, body: { __type: "KMSInternalException", message: "told so" } },
  ];
  for (const trouble of troubles) {
    kms.answer = trouble;
    const pushed = await run("--walnut-wal-timeout=1500ms", "wal-push", history);
    assert.ok(pushed.code !== null && pushed.code >= 1 && pushed.code <= 125, pushed.stderr);
    assert.match(pushed.stderr, /AWS KMS can't encrypt a data key/);
    const to = join(cluster.directory, "to");
    const fetched = await run("--walnut-wal-timeout=1500ms", "wal-fetch", segment, to);
    assert.equal(fetched.code, 200, fetched.stderr);
  }
  assert.deepEqual((await readdir(join(repository, "wal_005"))).toSorted(), segments);
});
