/**
 * The whole job in Azure's and Google's stores, with the real program and a real server; for
 * `npm run test:interop` also on each other server of S3 and of Google's that can be had.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { startAzurite } from "../support/azurite.ts";
import { hasFakeGcsServer, startFakeGcsServer } from "../support/fake-gcs-server.ts";
import { GcsEmulation } from "../support/gcs-emulation.ts";
import { initCluster, restoreCluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";
import { availableS3Servers, isInterop, startS3Server } from "../support/s3-server.ts";
import type { S3ServerKind } from "../support/s3-server.ts";

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

type GcsServer = AsyncDisposable & { readonly endpoint: string; readonly bucket: string };

async function gcs(start: () => Promise<GcsServer>): Promise<Store> {
  const server = await start();
  return {
    settings: {
      WALG_GS_PREFIX: `gs://${server.bucket}/folder/main`,
      STORAGE_EMULATOR_HOST: server.endpoint,
      GCS_MAX_CHUNK_SIZE: "1048576",
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function s3(kind: S3ServerKind): Promise<Store> {
  const server = await startS3Server(kind);
  return {
    settings: {
      WALG_S3_PREFIX: `s3://${server.bucket}/folder/main`,
      AWS_ENDPOINT: server.endpoint,
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
      WALG_S3_MAX_PART_SIZE: "5242880",
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

type Row = readonly [string, () => Promise<Store>];

const others = async (): Promise<readonly Row[]> => [
  ...(await availableS3Servers()).map((kind): Row => [`S3 on ${kind}`, () => s3(kind)]),
  ...(hasFakeGcsServer()
    ? [["GCS on fake-gcs-server", () => gcs(startFakeGcsServer)] as const]
    : []),
];

const rows: readonly Row[] = [
  ["Azure", azure],
  ["Google Cloud Storage", () => gcs(() => GcsEmulation.start())],
  ...(isInterop ? await others() : []),
];

for (const [name, start] of rows) {
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
