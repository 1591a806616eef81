/**
 * P01: wal-push through a proxy that breaks a share of all requests, into each kind of store. What
 * was acknowledged is there and right, and nothing else is there under a final name. A long run
 * (`npm run test:long -- test/e2e/push-faults.test.ts`) pushes 10,000 files into each.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, test } from "node:test";
import { codecByExtension } from "../../src/codec/table.ts";
import { walPush } from "../../src/commands/wal-push.ts";
import { ConflictError, OperationError } from "../../src/errors.ts";
import { STORAGE_RETRY_POLICY } from "../../src/io/retry.ts";
import { borrowed } from "../../src/storage/overlay.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { StorageConfig } from "../../src/storage/open.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { azureConfig, startAzurite } from "../support/azurite.ts";
import { patternBytes } from "../support/bodies.ts";
import { runCommand } from "../support/command-run.ts";
import { FaultProxy, TcpFaultProxy } from "../support/fault-proxy.ts";
import type { HttpFault, TcpFault } from "../support/fault-proxy.ts";
import { GcsEmulation, gcsConfig } from "../support/gcs-emulation.ts";
import { leaveOut } from "../support/left-out.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { s3Config } from "../support/s3-config.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { isSshServerAvailable, startSshServer } from "../support/ssh-server.ts";
import { SWITCH, writeWal } from "../support/wal-writer.ts";
import { runWalnut } from "../support/walnut.ts";

const isLong = process.env["WALNUT_LONG"] === "1";
const PUSHES = Number(process.env["WALNUT_PUSHES"] ?? (isLong ? 10_000 : 24));
/** A few pushes meet each kind of fault only if they meet many. */
const FAULT_SHARE = PUSHES >= 500 ? 0.05 : 0.4;
/** One push of so many is made by the built program. */
const PROGRAM_SHARE = 20;
/** So many files go through one opened store, as they do in a daemon. */
const SESSION_FILES = 4;
/** One file of so many does not become small when it is compressed. */
const LARGE_SHARE = 20;
const WORKERS = 4;
/** Where each push is one request, and each session one connection. */
const LEAST_FAULTS = Math.floor(PUSHES * FAULT_SHARE * 0.4);
const MOST_ATTEMPTS = 50;

const { signal } = new AbortController();

interface Store extends AsyncDisposable {
  /** Settings that lead through the proxy. */
  readonly settings: Readonly<Record<string, string>>;
  /** The same, as config/ would read them. */
  readonly faulty: StorageConfig;
  /** Past the proxy. */
  readonly straight: StorageConfig;
  faultCount(): number;
}

type Faults<Fault> = readonly ((random: Random) => Fault)[];

const upTo = (random: Random, limit: number) => Math.floor(random.next() * limit);
const refusal = (status: number, code: string): HttpFault => ({
  answer: {
    status,
    headers: { "x-ms-error-code": code, "content-type": "application/xml" },
    body: `<?xml version="1.0"?><Error><Code>${code}</Code><Message>told so</Message></Error>`,
  },
});

/** What deceives stands first: a few pushes meet not all of them. */
const HTTP_FAULTS: Faults<HttpFault> = [
  () => refusal(200, "InternalError"),
  () => ({ loseAnswer: true }),
  (random) => ({ corruptRequestByte: upTo(random, 1500) }),
  (random) => ({ cutRequestAfterBytes: upTo(random, 1500) }),
  () => refusal(201, "InternalError"),
  () => refusal(503, "SlowDown"),
  () => refusal(500, "InternalError"),
  (random) => ({ resetAfterBytes: upTo(random, 6000) }),
  (random) => ({ truncateAfterBytes: upTo(random, 300) }),
  (random) => ({ corruptByte: upTo(random, 300) }),
  () => ({ hang: true }),
  (random) => ({ delayMs: upTo(random, 400), bytesPerSecond: 300_000 }),
];

const TCP_FAULTS: Faults<TcpFault> = [
  (random) => ({ cutAnswersAfterBytes: 3000 + upTo(random, 3000) }),
  (random) => ({ cutAfterBytes: upTo(random, 12_000) }),
  (random) => ({ corruptByte: 3000 + upTo(random, 6000) }),
  () => ({ delayMs: 30 }),
  () => ({ isDeaf: true }),
  () => ({ isSilent: true }),
];

/** Each kind in its turn, evenly for a share of what is asked. */
function choosing<Fault>(faults: Faults<Fault>, share: number, random: Random) {
  let asked = 0;
  let count = 0;
  return {
    count: () => count,
    next(): Fault | undefined {
      asked += 1;
      if (Math.floor(asked * share) <= count) return undefined;
      return faults[count++ % faults.length]?.(random);
    },
  };
}

interface Target {
  readonly endpoint: string;
  config(endpoint: string): StorageConfig;
  settings(endpoint: string): Readonly<Record<string, string>>;
}

async function behindHttp(target: Target, servers: AsyncDisposableStack, random: Random) {
  const proxy = servers.use(await FaultProxy.start(new URL(target.endpoint).origin));
  const writes = choosing(HTTP_FAULTS, FAULT_SHARE, random);
  const reads = choosing(HTTP_FAULTS, FAULT_SHARE, random);
  proxy.rule = ({ method }) => (/^(PUT|POST)$/.test(method) ? writes : reads).next();
  const endpoint = target.endpoint.replace(/^http:\/\/[^/]*/, proxy.endpoint);
  return {
    settings: target.settings(endpoint),
    faulty: target.config(endpoint),
    straight: target.config(target.endpoint),
    faultCount: writes.count,
    [Symbol.asyncDispose]: () => servers[Symbol.asyncDispose](),
  };
}

type Start = (servers: AsyncDisposableStack, random: Random) => Promise<Store>;

const s3: Start = async (servers, random) => {
  const [kind = "swift"] = s3Kinds;
  const server = servers.use(await startS3Server(kind));
  const target = {
    endpoint: server.endpoint,
    config: (endpoint: string) => s3Config({ ...server, endpoint }, { prefix: "main" }),
    settings: (endpoint: string) => ({
      WALG_S3_PREFIX: `s3://${server.bucket}/main`,
      AWS_ENDPOINT: endpoint,
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
    }),
  };
  return await behindHttp(target, servers, random);
};

const gcs: Start = async (servers, random) => {
  const server = servers.use(await GcsEmulation.start());
  const target = {
    endpoint: server.endpoint,
    config: (endpoint: string) =>
      gcsConfig({ bucket: server.bucket, endpoint }, { prefix: "main" }),
    settings: (endpoint: string) => ({
      WALG_GS_PREFIX: `gs://${server.bucket}/main`,
      STORAGE_EMULATOR_HOST: endpoint,
    }),
  };
  return await behindHttp(target, servers, random);
};

const azure: Start = async (servers, random) => {
  const server = servers.use(await startAzurite());
  const { account, accessKey } = server;
  const target = {
    endpoint: server.endpoint,
    config: (endpoint: string) => azureConfig({ ...server, endpoint }, { prefix: "main" }),
    settings: (endpoint: string) => ({
      WALG_AZ_PREFIX: `azure://${server.container}/main`,
      AZURE_STORAGE_CONNECTION_STRING: [
        `AccountName=${account}`,
        `AccountKey=${accessKey}`,
        `BlobEndpoint=${endpoint}`,
      ].join(";"),
    }),
  };
  return await behindHttp(target, servers, random);
};

const sftp: Start = async (servers, random) => {
  const server = servers.use(await startSshServer());
  const path = join(server.stores, "main");
  await mkdir(path);
  await chownTree(path, serverUser());
  const proxy = servers.use(await TcpFaultProxy.start({ host: "127.0.0.1", port: server.port }));
  const share = Math.min(FAULT_SHARE * SESSION_FILES, 0.5);
  const chosen = choosing(TCP_FAULTS, share, random);
  proxy.rule = () => chosen.next();
  const hostKey = await readFile(join(server.directory, "host.pub"), "utf8");
  const knownHosts = join(server.directory, "known_hosts_of_proxy");
  await writeFile(knownHosts, `[127.0.0.1]:${proxy.port} ${hostKey}`);
  return {
    settings: {
      WALG_SSH_PREFIX: `ssh://127.0.0.1${path}`,
      SSH_PORT: String(proxy.port),
      SSH_USERNAME: server.username,
      SSH_PRIVATE_KEY_PATH: join(server.directory, "ed25519"),
      WALNUT_SSH_KNOWN_HOSTS: knownHosts,
    },
    faulty: server.config(path, { port: proxy.port, knownHostsFile: knownHosts }),
    straight: server.config(path),
    faultCount: chosen.count,
    [Symbol.asyncDispose]: () => servers[Symbol.asyncDispose](),
  };
};

function makeSegment(number: number): { readonly name: string; readonly bytes: Uint8Array } {
  const isLarge = number % LARGE_SHARE === 0;
  const dataBytes = isLarge ? 900_000 : 1500 + (number % 3000);
  const data = patternBytes(dataBytes, number);
  const [segment] = writeWal({
    firstSegment: BigInt(number),
    records: [{ dataBytes, data }, SWITCH],
  }).segments;
  assert.ok(segment !== undefined);
  return segment;
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

interface Archived {
  /** Sum of the content by name, for each push that ended with 0. */
  readonly sums: ReadonlyMap<string, string>;
  /** Pushes that ended otherwise, as some have to: the archiver repeats them. */
  readonly failures: number;
}

const CACHE = "cache";
const LIMITS = { requestTimeoutMs: isLong ? 1000 : 500, walTimeoutMs: 20_000 };
/** As always, with shorter pauses. */
const retryPolicy = { ...STORAGE_RETRY_POLICY, baseMs: 10, capMs: 200 };

/** Ends with 0, or says what the program said. */
async function pushByProgram(path: string, store: Store, cwd: string): Promise<string | undefined> {
  const env = {
    ...store.settings,
    WALG_COMPRESSION_METHOD: "zstd",
    WALNUT_CACHE_DIR: join(cwd, CACHE),
    WALNUT_REQUEST_TIMEOUT: `${LIMITS.requestTimeoutMs}ms`,
    WALNUT_WAL_TIMEOUT: `${LIMITS.walTimeoutMs}ms`,
  };
  const { code, stderr } = await runWalnut(["wal-push", path], { env, cwd });
  assert.doesNotMatch(stderr, /a bug in walnut|other content/);
  return code === 0 ? undefined : stderr;
}

/** The same in this process. */
async function pushHere(path: string, storage: Storage, cwd: string): Promise<string | undefined> {
  const { walTimeoutMs } = LIMITS;
  const cacheDirectory = join(cwd, CACHE);
  const config = { compressionMethod: "zstd", cacheDirectory, walTimeoutMs } as const;
  try {
    await runCommand(walPush, borrowed(storage), [path], config);
    return undefined;
  } catch (error) {
    if (!(error instanceof OperationError) || error instanceof ConflictError) throw error;
    return error.message;
  }
}

/** Numbers from 1, in groups that share an opened store. */
function sessionsOf(count: number): number[][] {
  const sessions: number[][] = [];
  for (let number = 1; number <= count; number += SESSION_FILES) {
    const size = Math.min(SESSION_FILES, count - number + 1);
    sessions.push(Array.from({ length: size }, (_, index) => number + index));
  }
  return sessions;
}

/** Does what PostgreSQL's archiver does with each of `PUSHES` files, some at the same time. */
async function archiveAll(store: Store, directory: string): Promise<Archived> {
  const sums = new Map<string, string>();
  let failures = 0;
  const archive = async (number: number, storage: Storage) => {
    const isByProgram = number % PROGRAM_SHARE === 0;
    const { name, bytes } = makeSegment(number);
    const path = join(directory, name);
    await writeFile(path, bytes);
    const push = () =>
      isByProgram ? pushByProgram(path, store, directory) : pushHere(path, storage, directory);
    for (let attempt = 1; ; attempt++) {
      const failure = await push();
      if (failure === undefined) break;
      failures += 1;
      assert.ok(attempt < MOST_ATTEMPTS, `${name} is not archived: ${failure}`);
    }
    sums.set(name, sha256(bytes));
    await rm(path);
  };
  const sessions = sessionsOf(PUSHES).values();
  const work = async () => {
    for (const numbers of sessions) {
      const options = { ...LIMITS, signal, uploadConcurrency: WORKERS, retryPolicy };
      await using storage = await openStorage(store.faulty, options);
      for (const number of numbers) await archive(number, storage);
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  return { sums, failures };
}

/** Everything below the archive's folder, read to its end. */
async function readArchive(store: Store): Promise<ReadonlyMap<string, string>> {
  const options = { signal, requestTimeoutMs: 60_000, uploadConcurrency: WORKERS };
  await using storage = await openStorage(store.straight, options);
  const found = new Map<string, string>();
  for await (const { key } of storage.list("wal_005/", { signal })) {
    const [, name = "", extension = ""] = /^wal_005\/([0-9A-F]{24})\.(\w+)$/.exec(key) ?? [];
    const codec = codecByExtension(extension);
    assert.ok(codec !== undefined, `${key} is no WAL`);
    const hash = createHash("sha256");
    const decompressed = codec.decompress(storage.get(key, { signal }), { signal, jobs: 1 });
    for await (const chunk of decompressed) hash.update(chunk);
    assert.ok(!found.has(name), `${key} is there twice`);
    found.set(name, hash.digest("hex"));
  }
  return found;
}

const s3Kinds = (await availableS3Servers()).filter((kind) => kind !== "moto").toReversed();
const stores: readonly (readonly [string, Start, string | undefined])[] = [
  ["S3", s3, s3Kinds.length > 0 ? undefined : "no S3 server on this machine"],
  ["GCS", gcs, undefined],
  ["Azure", azure, undefined],
  ["SFTP", sftp, isSshServerAvailable() ? undefined : "OpenSSH's server is not installed"],
];

async function checkStore(start: Start): Promise<string> {
  const random = seededRandom();
  const directory = await mkdtemp(join(tmpdir(), "walnut-push-faults-"));
  await chmod(directory, 0o755);
  try {
    await using store = await start(new AsyncDisposableStack(), random);
    const { sums, failures } = await archiveAll(store, directory);
    const found = await readArchive(store);
    assert.deepEqual([...found.keys()], [...sums.keys()].toSorted());
    for (const [file, sum] of sums) assert.equal(found.get(file), sum, file);
    assert.ok(store.faultCount() >= LEAST_FAULTS, `${store.faultCount()} faults`);
    return `${store.faultCount()} faults, ${failures} pushes repeated`;
  } catch (error) {
    throw new Error(`with WALNUT_SEED=${random.seed}`, { cause: error });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A few pushes wait for faults most of their time: then all stores wait at once. */
const checks = new Map<Start, Promise<string>>();
before(() => {
  if (isLong) return;
  for (const [, start, lack] of stores) {
    if (lack !== undefined) continue;
    const check = checkStore(start);
    check.catch(() => {});
    checks.set(start, check);
  }
});

for (const [name, start, lack] of stores) {
  const title = `P01: ${PUSHES} files into ${name} through faults`;
  if (lack !== undefined) {
    leaveOut(title, lack);
    continue;
  }
  test(title, async () => {
    const result = await (checks.get(start) ?? checkStore(start));
    if (isLong) process.stdout.write(`${title}: ${result}\n`);
  });
}
