/** wal-push and wal-fetch against an S3 endpoint that is dead, slow to die, or says no. */
import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, before, beforeEach, test } from "node:test";
import { FaultProxy, type HttpFault, type ProxiedRequest } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { type RealWal, recordWal, walFile } from "../support/real-wal.ts";
import { S3Emulation } from "../support/s3-emulation.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import { runWalnut } from "../support/walnut.ts";

/** Where the store does what it should, and where it does not. */
const LONG_MS = 30_000;
const SHORT_MS = 1200;
const NOWHERE = "http://127.0.0.1:1";

let wal: RealWal;
let name: string;
let directory: string;
let proxy: FaultProxy;

before(async () => {
  wal = await recordWal({ segmentCount: 3 });
  name = wal.segments[1] ?? "";
});
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-endpoint-"));
  await chmod(directory, 0o755);
  await mkdir(join(directory, "pg_wal"));
  for (const segment of wal.segments) {
    await writeFile(join(directory, "pg_wal", segment), walFile(wal, segment));
  }
  proxy = await FaultProxy.start(NOWHERE);
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

interface Place {
  readonly endpoint: string;
  readonly bucket?: string;
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
}

async function run(
  words: readonly string[],
  place: Place = proxy,
  timeoutMs = LONG_MS,
  more: Readonly<Record<string, string>> = {},
) {
  return await runWalnut(words, {
    cwd: directory,
    env: {
      WALG_S3_PREFIX: `s3://${place.bucket ?? "bucket"}/main`,
      AWS_ENDPOINT: place.endpoint,
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: place.accessKeyId ?? "key",
      AWS_SECRET_ACCESS_KEY: place.secretAccessKey ?? "secret",
      WALG_COMPRESSION_METHOD: "zstd",
      WALNUT_CACHE_DIR: join(directory, "cache"),
      WALNUT_WAL_TIMEOUT: `${timeoutMs}ms`,
      WALNUT_REQUEST_TIMEOUT: `${timeoutMs / 2}ms`,
      ...more,
    },
    // Longer than any deadline of ours: then a hang is seen as a signal instead of a code.
    killAfterMs: 2 * LONG_MS,
  });
}

const push = (place?: Place, timeoutMs?: number) =>
  run(["wal-push", join("pg_wal", name)], place, timeoutMs);
const fetch = (place?: Place, timeoutMs?: number) =>
  run(["wal-fetch", name, "pg_wal/RECOVERYXLOG"], place, timeoutMs);

const xml = (status: number, body: string): HttpFault => ({
  answer: {
    status,
    headers: { "content-type": "application/xml" },
    body: `<?xml version="1.0"?>${body}`,
  },
});
const failure = (status: number, code: string): HttpFault =>
  xml(status, `<Error><Code>${code}</Code><Message>told so</Message></Error>`);

/** A bucket that holds nothing and takes everything. */
function emptyBucket({ method, url }: ProxiedRequest): HttpFault {
  if (method === "PUT") return { answer: { status: 200, headers: { etag: '"e"' } } };
  if (url.includes("list-type=2")) {
    return xml(
      200,
      "<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>",
    );
  }
  return failure(404, "NoSuchKey");
}

test("P02: an endpoint that accepts and never answers ends in time, and then all is well", async () => {
  proxy.rule = () => ({ hang: true });
  const hung = await push(proxy, SHORT_MS);
  assert.ok(hung.code !== null && hung.code >= 1 && hung.code <= 125, hung.stderr);
  assert.match(hung.stderr, /ERROR/);

  proxy.rule = emptyBucket;
  const next = await push();
  assert.equal(next.code, 0, next.stderr);
});

test("P02: so does an endpoint that stalls only the segment itself", async () => {
  proxy.rule = emptyBucket;
  assert.equal((await run(["wal-push", join("pg_wal", wal.segments[0] ?? "")])).code, 0);
  proxy.rule = ({ method }) => (method === "PUT" ? { hang: true } : undefined);
  const hung = await push(proxy, SHORT_MS);
  assert.ok(hung.code !== null && hung.code >= 1 && hung.code <= 125, hung.stderr);
});

test("P23: keys that expired are named by the first command that meets them, and by info", async () => {
  proxy.rule = () => failure(400, "ExpiredToken");
  for (const words of [
    ["wal-push", join("pg_wal", name)],
    ["info", "--offline"],
  ]) {
    const { code, stderr } = await run(words);
    assert.equal(code, 12, stderr);
    assert.match(stderr, /^HINT: .*The credentials expired: renew the session token/m);
  }
});

test("a login page with 200 is no acknowledgement", async () => {
  proxy.rule = emptyBucket;
  assert.equal((await run(["wal-push", join("pg_wal", wal.segments[0] ?? "")])).code, 0);
  proxy.rule = () => xml(200, "<html>log in</html>");
  const refused = await push(proxy, SHORT_MS);
  assert.ok(refused.code !== null && refused.code >= 1 && refused.code <= 125, refused.stderr);
});

/** What a server gives that keeps a body of aws-chunked as it came. */
function framed(content: string): HttpFault {
  const size = content.length.toString(16);
  const body = `${size};chunk-signature=0a\r\n${content}\r\n0;chunk-signature=0b\r\n\r\n`;
  const headers = { etag: '"e"', "last-modified": new Date(0).toUTCString() };
  return { answer: { status: 200, headers, body } };
}

for (const method of ["none", "zstd"]) {
  test(`P13: the framing of chunks is damage, never a file (${method})`, async () => {
    const history = "00000002.history";
    const content = "1\t0/3000000\tno recovery target specified\n";
    await writeFile(join(directory, "pg_wal", history), content);
    await using server = await S3Emulation.start();
    await using between = await FaultProxy.start(server.endpoint);
    const { bucket, accessKeyId, secretAccessKey } = server;
    const place = { bucket, accessKeyId, secretAccessKey, endpoint: between.endpoint };
    const env = { WALG_COMPRESSION_METHOD: method };
    const pushed = await run(["wal-push", join("pg_wal", history)], place, LONG_MS, env);
    assert.equal(pushed.code, 0, pushed.stderr);
    between.rule = ({ method: verb, url }) =>
      verb === "GET" && url.includes(`wal_005/${history}`) ? framed(content) : undefined;
    const fetched = await run(
      ["wal-fetch", history, "pg_wal/RECOVERYHISTORY"],
      place,
      LONG_MS,
      env,
    );
    assert.ok(fetched.code !== 0 && fetched.code !== 74, fetched.stderr);
    assert.match(fetched.stderr, /ERROR: /);
    assert.ok(!(await readdir(join(directory, "pg_wal"))).includes("RECOVERYHISTORY"));
  });
}

const troubles: readonly { readonly what: string; readonly rule: () => HttpFault }[] = [
  { what: "403", rule: () => failure(403, "AccessDenied") },
  { what: "503", rule: () => failure(503, "SlowDown") },
  { what: "404 of the bucket", rule: () => failure(404, "NoSuchBucket") },
  { what: "a login page with 200", rule: () => xml(200, "<html>log in</html>") },
  { what: "silence", rule: () => ({ hang: true }) },
  { what: "a reset", rule: () => ({ resetAfterBytes: 0 }) },
];
for (const { what, rule } of troubles) {
  test(`P06: ${what} never looks like the end of the archive`, async () => {
    proxy.rule = rule;
    await writeFile(join(directory, "recovery.signal"), "");
    const recovering = await fetch(proxy, SHORT_MS);
    assert.equal(recovering.code, 200, recovering.stderr);
    assert.match(recovering.stderr, /ERROR: /);
    assert.deepEqual((await readdir(join(directory, "pg_wal"))).toSorted(), wal.segments);

    const pushed = await push(proxy, SHORT_MS);
    assert.ok(pushed.code !== null && pushed.code >= 1 && pushed.code <= 125, pushed.stderr);
  });
}

test("P06: a bucket without any repository is no end of the archive", async () => {
  proxy.rule = emptyBucket;
  await writeFile(join(directory, "recovery.signal"), "");
  const result = await fetch();
  assert.equal(result.code, 200, result.stderr);
  assert.match(result.stderr, /holds no repository/);
});

test("a standby is told to ask again", async () => {
  proxy.rule = () => failure(403, "AccessDenied");
  await writeFile(join(directory, "standby.signal"), "");
  const standby = await fetch(proxy, SHORT_MS);
  assert.equal(standby.code, 75, standby.stderr);
});

test("P06: a port that nobody listens on never looks like the end of the archive", async () => {
  await writeFile(join(directory, "recovery.signal"), "");
  const result = await fetch({ endpoint: NOWHERE }, SHORT_MS);
  assert.equal(result.code, 200, result.stderr);
});

test("P06: what the bucket of a repository does not list is a true miss", async () => {
  const identity = {
    "content-length": "2",
    etag: '"e"',
    "last-modified": new Date(0).toUTCString(),
  };
  proxy.rule = (request) =>
    request.method === "HEAD" && request.url.includes("cluster.json")
      ? { answer: { status: 200, headers: identity } }
      : emptyBucket(request);
  for (const signal of ["recovery.signal", "standby.signal"]) {
    await writeFile(join(directory, signal), "");
    const miss = await fetch();
    assert.equal(miss.code, 74, miss.stderr);
    assert.match(miss.stderr, new RegExp(`WAL file ${name} is not in the archive`));
  }
});

const available = await availableS3Servers();
for (const kind of ["versitygw", "moto"] as const) {
  if (!available.includes(kind)) {
    // The gateway is an extra: it takes a Go toolchain, which no test machine must have.
    if (kind !== "versitygw") leaveOut(`wal-push and wal-fetch on ${kind}`, "it is not installed");
    continue;
  }
  test(`on ${kind} a push is one request, and so is a fetch`, async () => {
    await using server = await startS3Server(kind);
    await using counting = await FaultProxy.start(server.endpoint);
    const place = { ...server, endpoint: counting.endpoint };
    const requests = () =>
      counting.requests.splice(0).map(({ method, url }) => `${method} ${url.replace(/\?.*/, "")}`);

    const first = wal.segments[0] ?? "";
    const cold = await run(["wal-push", join("pg_wal", first)], place);
    assert.equal(cold.code, 0, cold.stderr);
    assert.equal((await run(["wal-fetch", first, "pg_wal/RECOVERYXLOG"], place)).code, 0);
    requests();

    const key = `/${server.bucket}/main/wal_005/${name}.zst`;
    const warm = await push(place);
    assert.equal(warm.code, 0, warm.stderr);
    assert.deepEqual(requests(), [`PUT ${key}`]);

    const fetched = await fetch(place);
    assert.equal(fetched.code, 0, fetched.stderr);
    assert.deepEqual(requests(), [`GET ${key}`]);
    const bytes = await readFile(join(directory, "pg_wal", "RECOVERYXLOG"));
    assert.ok(bytes.equals(walFile(wal, name)));

    const again = await push(place);
    assert.equal(again.code, 0, again.stderr);
    assert.match(again.stderr, /already archived/);
    await writeFile(join(directory, "pg_wal", "00000002.history"), "1\t0/A000000\tfirst\n");
    assert.equal((await run(["wal-push", "pg_wal/00000002.history"], place)).code, 0);
    await writeFile(join(directory, "pg_wal", "00000002.history"), "1\t0/B000000\tsecond\n");
    const changed = await run(["wal-push", "pg_wal/00000002.history"], place);
    assert.equal(changed.code, 20, changed.stderr);
  });

  test(`on ${kind} a put whose answer is lost is archived once`, async () => {
    await using server = await startS3Server(kind);
    await using losing = await FaultProxy.start(server.endpoint);
    const lost = { count: 0 };
    losing.rule = ({ method, url }) => {
      if (method !== "PUT" || !url.includes(name) || lost.count > 0) return undefined;
      lost.count += 1;
      return { loseAnswer: true };
    };
    const result = await push({ ...server, endpoint: losing.endpoint });
    assert.equal(result.code, 0, result.stderr);
    assert.equal(lost.count, 1);
    const fetched = await fetch(server);
    assert.equal(fetched.code, 0, fetched.stderr);
  });
}
