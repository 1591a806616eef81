/**
 * The whole job in Azure's and Google's stores and in a poor S3 behind a bad line (P13, P20), with
 * the real program and a real server; for `npm run test:interop` also on each other server of S3 and
 * of Google's that can be had.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { startAzurite } from "../support/azurite.ts";
import { hasFakeGcsServer, startFakeGcsServer } from "../support/fake-gcs-server.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import type { HttpFault } from "../support/fault-proxy.ts";
import { GcsEmulation } from "../support/gcs-emulation.ts";
import { restoreCluster, startCluster } from "../support/postgres.ts";
import type { Cluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";
import { S3Emulation, errorDocument } from "../support/s3-emulation.ts";
import { availableS3Servers, isInterop, startS3Server } from "../support/s3-server.ts";
import type { S3Server, S3ServerKind } from "../support/s3-server.ts";

const MAJOR = 18;

interface Store extends AsyncDisposable {
  readonly settings: Readonly<Record<string, string>>;
  /** Told when the job is done; throws if the store did not do its part. */
  finish?(): void;
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
  return { settings: s3Settings(server), [Symbol.asyncDispose]: () => server.stop() };
}

function s3Settings(
  server: Pick<S3Server, "bucket" | "endpoint" | "accessKeyId" | "secretAccessKey">,
): Store["settings"] {
  return {
    WALG_S3_PREFIX: `s3://${server.bucket}/folder/main`,
    AWS_ENDPOINT: server.endpoint,
    AWS_S3_FORCE_PATH_STYLE: "true",
    AWS_ACCESS_KEY_ID: server.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
    WALG_S3_MAX_PART_SIZE: "5242880",
  };
}

const refusal = (status: number, code: string): HttpFault => ({
  answer: { status, body: errorDocument(code) },
});

/** What a bad line and a bad day do; in this order, one for each twentieth request. */
const FAULTS: readonly HttpFault[] = [
  refusal(200, "InternalError"),
  { loseAnswer: true },
  refusal(503, "SlowDown"),
  { resetAfterBytes: 1000 },
  { truncateAfterBytes: 100 },
  { hang: true },
  { cutRequestAfterBytes: 1000 },
  refusal(500, "InternalError"),
];
const REQUESTS_PER_FAULT = 20;

/** Lacks what S3 got late, and one request of twenty goes wrong. */
async function poorS3(): Promise<Store> {
  await using servers = new AsyncDisposableStack();
  const lacks = { lacksListV2: true, refusesConditions: true, refusesBatches: true };
  const server = servers.use(await S3Emulation.start(lacks));
  const proxy = servers.use(await FaultProxy.start(server.endpoint));
  let faultCount = 0;
  proxy.rule = ({ number }) =>
    number % REQUESTS_PER_FAULT === 0 ? FAULTS[faultCount++ % FAULTS.length] : undefined;
  const { bucket, accessKeyId, secretAccessKey } = server;
  const { endpoint } = proxy;
  const owned = servers.move();
  return {
    settings: {
      ...s3Settings({ bucket, endpoint, accessKeyId, secretAccessKey }),
      WALNUT_REQUEST_TIMEOUT: "1s",
    },
    finish() {
      assert.ok(faultCount >= FAULTS.length, `${faultCount} faults`);
      for (const operation of ["ListObjectsV2", "DeleteObjects"]) {
        assert.ok(server.count(operation) > 0, `the store refused ${operation}`);
      }
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
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
  ["a poor S3 behind a bad line", poorS3],
  ...(isInterop ? await others() : []),
];

let started: Promise<Cluster> | undefined;
after(async () => await (await started)?.[Symbol.asyncDispose]());

/** One server for all stores, one after the other. */
async function startServer(): Promise<Cluster> {
  return await startCluster({ major: MAJOR, segmentMiB: 1, settings: { archive_mode: "on" } });
}

for (const [index, [name, start]] of rows.entries()) {
  test(`archive, back up, verify, restore and delete in ${name}`, async () => {
    await using store = await start();
    const cluster = await (started ??= startServer());
    const walnut = await install(cluster, store.settings, `walnut-${index}`);
    await cluster.configure({ archive_command: walnut.archiveCommand });
    await cluster.query(`create table t${index} as select generate_series(1, 1000) as id`);
    await walnut.mustRun("backup-push", cluster.dataDirectory);
    await cluster.query(`insert into t${index} select generate_series(1001, 2000)`);
    await cluster.switchWal();
    await cluster.waitForArchiver();
    const contents = await cluster.contents();
    assert.equal(await cluster.value("select failed_count from pg_stat_archiver"), "0");

    await walnut.mustRun("verify", "--full");
    const target = join(cluster.directory, `restored-${index}`);
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
    await cluster.waitForArchiver();
    store.finish?.();
  });
}
