/** The whole job in Azure's and Google's stores, with the real program and a real server. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { startAzurite } from "../support/azurite.ts";
import { GcsEmulation } from "../support/gcs-emulation.ts";
import { initCluster, restoreCluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";

const MAJOR = 18;

interface Store extends AsyncDisposable {
  readonly settings: Readonly<Record<string, string>>;
}

async function azure(): Promise<Store> {
  const server = await startAzurite();
  const { account, accessKey, endpoint, container } = server;
  const parts = [`AccountName=${account}`, `AccountKey=${accessKey}`, `BlobEndpoint=${endpoint}`];
  return {
    settings: {
      WALG_AZ_PREFIX: `azure://${container}/folder/main`,
      AZURE_STORAGE_CONNECTION_STRING: parts.join(";"),
      AZURE_BUFFER_SIZE: "1048576",
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

async function gcs(): Promise<Store> {
  const server = await GcsEmulation.start();
  return {
    settings: {
      WALG_GS_PREFIX: `gs://${server.bucket}/folder/main`,
      STORAGE_EMULATOR_HOST: server.endpoint,
      GCS_MAX_CHUNK_SIZE: "1048576",
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

for (const [name, start] of [
  ["Azure", azure],
  ["Google Cloud Storage", gcs],
] as const) {
  test(`archive, back up, verify, restore and delete in ${name}`, async () => {
    await using store = await start();
    await using cluster = await initCluster({
      major: MAJOR,
      segmentMiB: 1,
      settings: { archive_mode: "on" },
    });
    const walnut = await install(cluster, store.settings);
    await cluster.configure({ archive_command: walnut.archiveCommand });
    await cluster.start();
    await cluster.query("create table t as select generate_series(1, 1000) as id");
    await walnut.mustRun("backup-push", cluster.dataDirectory);
    await cluster.query("insert into t select generate_series(1001, 2000)");
    await cluster.switchWal();
    await cluster.waitForArchiver();
    const contents = await cluster.contents();
    assert.equal(await cluster.value("select failed_count from pg_stat_archiver"), "0");

    await walnut.mustRun("verify", "--full");
    const target = join(cluster.directory, "restored");
    await walnut.mustRun("backup-fetch", target, "LATEST");
    await using restored = await restoreCluster(target, {
      major: MAJOR,
      signal: "recovery",
      restoreCommand: walnut.restoreCommand,
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.equal(await restored.contents(), contents);

    await walnut.mustRun("backup-push", cluster.dataDirectory);
    await walnut.mustRun("delete", "retain", "FULL", "1", "--confirm");
    const { stdout } = await walnut.mustRun("backup-list");
    assert.equal(stdout.trimEnd().split("\n").length, 2, stdout);
  });
}
