/**
 * P23: a daemon whose keys or tokens live for seconds (for a minute in a long run), from each kind
 * of giver: new ones are taken up without a restart, and no request is refused.
 */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { AwsKeyGiver, GuardedBucket, awsKeySources } from "../support/aws-keys.ts";
import { startAzurite } from "../support/azurite.ts";
import { makeCertificates } from "../support/certificates.ts";
import { startDaemon } from "../support/daemon.ts";
import { GcsEmulation } from "../support/gcs-emulation.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { TokenServer, azureJwt } from "../support/token-server.ts";
import { until } from "../support/until.ts";

const LIFE_MS = process.env["WALNUT_LONG"] === "1" ? 60_000 : 2000;
const SECOND_MS = 1000;
/** A slow machine may carry a request for so long; gcs-credentials.test.ts counts exactly. */
const GRACE_MS = 30_000;

interface World {
  readonly settings: Readonly<Record<string, string>>;
  /** What the store refused. */
  readonly refused: () => readonly string[];
  /** How many keys or tokens were given. */
  readonly given: () => number;
}

type Start = (servers: AsyncDisposableStack, directory: string) => Promise<World>;

const aws =
  ({ answer, environment }: (typeof awsKeySources)[number]): Start =>
  async (servers, directory) => {
    const giver = new AwsKeyGiver(LIFE_MS);
    const source = servers.use(await TokenServer.start((request) => answer(request, giver)));
    const guarded = servers.use(await GuardedBucket.start((id, atMs) => giver.accepts(id, atMs)));
    const tokenFile = join(directory, "pod-token");
    writeFileSync(tokenFile, "the pod's");
    return {
      settings: {
        ...environment(source.origin, tokenFile),
        WALG_S3_PREFIX: `s3://${guarded.bucket.bucket}/main`,
        AWS_ENDPOINT: guarded.endpoint,
        AWS_S3_FORCE_PATH_STYLE: "true",
      },
      refused: () => guarded.refused,
      given: () => giver.given.length,
    };
  };

const google: Start = async (servers) => {
  const endsAtMs = new Map<string, number>();
  const metadata = servers.use(
    await TokenServer.start(() => {
      const token = `token-${endsAtMs.size}`;
      endsAtMs.set(token, Date.now() + LIFE_MS);
      return { status: 200, body: { access_token: token, expires_in: LIFE_MS / SECOND_MS } };
    }),
  );
  const bucket = servers.use(await GcsEmulation.start());
  const refused: string[] = [];
  bucket.acceptsToken = (token) => {
    const isGood = (endsAtMs.get(token) ?? 0) + GRACE_MS > Date.now();
    if (!isGood) refused.push(token);
    return isGood;
  };
  return {
    settings: {
      WALG_GS_PREFIX: `gs://${bucket.bucket}/main`,
      WALNUT_GCS_ENDPOINT: bucket.endpoint,
      GCE_METADATA_HOST: metadata.host,
    },
    refused: () => refused,
    given: () => endsAtMs.size,
  };
};

const azure: Start = async (servers, directory) => {
  const certificates = await makeCertificates(directory);
  assert.ok(certificates !== undefined, "openssl is missing");
  let count = 0;
  const imds = servers.use(
    await TokenServer.start(() => {
      count++;
      const { token, expiresOn } = azureJwt(LIFE_MS);
      const body = { access_token: token, expires_on: `${expiresOn}`, token_type: "Bearer" };
      return { status: 200, body: { ...body, resource: "https://storage.azure.com" } };
    }),
  );
  const server = servers.use(await startAzurite({ certificates }));
  return {
    settings: {
      WALG_AZ_PREFIX: `azure://${server.container}/main`,
      AZURE_STORAGE_CONNECTION_STRING: `AccountName=${server.account};BlobEndpoint=${server.endpoint}`,
      AZURE_CA_CERT_FILE: certificates.authorityFile,
      IDENTITY_ENDPOINT: `${imds.origin}/token`,
      IDENTITY_HEADER: "secret",
    },
    // Azurite looks at the times of a token; the daemon's log would tell.
    refused: () => [],
    given: () => count,
  };
};

/** A slow machine may leave a connection until its server ends it, with a request on its way. */
function isTrouble(line: string): boolean {
  return /ERROR|will be repeated/.test(line) && !/socket hang up|ECONNRESET/.test(line);
}

async function holdOut(start: Start): Promise<void> {
  using scratch = scratchDirectory();
  await using servers = new AsyncDisposableStack();
  const { settings, refused, given } = await start(servers, scratch.path);
  const data = join(scratch.path, "data");
  mkdirSync(join(data, "pg_wal", "archive_status"), { recursive: true, mode: 0o700 });
  await using daemon = await startDaemon({
    dataDirectory: data,
    socketPath: join(scratch.path, "walnut.sock"),
    env: { ...settings, WALNUT_CACHE_DIR: join(scratch.path, "cache") },
  });
  const endsAtMs = Date.now() + 2 * LIFE_MS;
  let timeline = 2;
  await until("two lives have passed", async () => {
    const name = `${(timeline++).toString(16).toUpperCase().padStart(8, "0")}.history`;
    writeFileSync(join(data, "pg_wal", name), "1\t0/3000000\tno recovery target specified\n");
    const reply = await daemon.call({ kind: "push", name });
    assert.deepEqual(reply, { kind: "reply", reply: "O" }, daemon.log());
    return Date.now() > endsAtMs;
  });
  assert.ok(given() >= 2, `${given()} were given`);
  assert.deepEqual(refused(), []);
  const troubles = daemon
    .log()
    .split("\n")
    .filter((line) => isTrouble(line));
  assert.deepEqual(troubles, []);
}

const rows: readonly (readonly [string, Start])[] = [
  ...awsKeySources.map((source) => [source.name, aws(source)] as const),
  ["Google's metadata service", google],
  ["a managed identity of Azure's", azure],
];

test("keys that end are replaced while a daemon runs (P23)", async () => {
  // They wait for time to pass: all at once.
  const results = await Promise.allSettled(rows.map(([, start]) => holdOut(start)));
  const failures = results.flatMap((result, index) =>
    result.status === "rejected" ? [`${rows[index]?.[0]}: ${String(result.reason)}`] : [],
  );
  assert.deepEqual(failures, []);
});
