import assert from "node:assert/strict";
import { createVerify, generateKeyPairSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { OperationError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import type { RetryPolicy } from "../../src/io/retry.ts";
import type { GcsConfig } from "../../src/storage/gcs-config.ts";
import { openStorage } from "../../src/storage/open.ts";
import { patternSource } from "../support/bodies.ts";
import { GcsEmulation, gcsConfig } from "../support/gcs-emulation.ts";
import { TokenServer } from "../support/token-server.ts";
import type { TokenAnswer, TokenRequest } from "../support/token-server.ts";
import { keysOf, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const policy: RetryPolicy = { attempts: 3, baseMs: 1, capMs: 5, totalMs: 60_000 };
const LIFE_SECONDS = 60;

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-gcs-credentials-"));
});
after(async () => await rm(directory, { recursive: true }));

/** Time that passes when it is told to, for all who look at it. */
class Time {
  #aheadMs = 0;
  readonly clock = { ...systemClock, now: () => Date.now() + this.#aheadMs };

  pass(seconds: number): void {
    this.#aheadMs += seconds * 1000;
  }
}

/** Gives tokens that live for a minute, and a bucket that takes them while they do. */
class Giver {
  readonly time = new Time();
  readonly #endsAtMs = new Map<string, number>();

  give(): TokenAnswer {
    const token = `token-${this.#endsAtMs.size + 1}`;
    this.#endsAtMs.set(token, this.time.clock.now() + LIFE_SECONDS * 1000);
    const body = { access_token: token, expires_in: LIFE_SECONDS, token_type: "Bearer" };
    return { status: 200, body };
  }

  accepts(token: string): boolean {
    return (this.#endsAtMs.get(token) ?? 0) > this.time.clock.now();
  }
}

async function roundTrip(giver: Giver, settings: Partial<GcsConfig>): Promise<void> {
  await using bucket = await GcsEmulation.start();
  let refusals = 0;
  bucket.acceptsToken = (token) => {
    // Ten minutes pass while this test stores its objects.
    giver.time.pass(10);
    if (giver.accepts(token)) return true;
    refusals++;
    return false;
  };
  const config = gcsConfig(bucket, { isAnonymous: false, chunkBytes: MIB, ...settings });
  await using storage = await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 2,
    retryPolicy: policy,
    clock: giver.time.clock,
  });
  await storage.put("long", patternSource(40 * MIB), { signal });
  for (let index = 0; index < 20; index++) await storage.put(`${index}`, text("x"), { signal });
  assert.equal((await keysOf(storage, "")).length, 21);
  assert.ok(bucket.requests.length >= 60, "ten minutes");
  assert.equal(refusals, 0, "no request with an old token");
}

test("the machine's account: a minute's tokens are renewed before they end (P23)", async () => {
  const giver = new Giver();
  await using metadata = await TokenServer.start(({ headers }) =>
    headers["metadata-flavor"] === "Google" ? giver.give() : { status: 403, body: {} },
  );
  await roundTrip(giver, { metadataHost: metadata.host });
  assert.match(metadata.requests[0]?.url.pathname ?? "", /service-accounts\/default\/token$/);
});

test("a service account's key signs for tokens", async () => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const giver = new Giver();
  const requests: TokenRequest[] = [];
  await using sts = await TokenServer.start((request) => {
    requests.push(request);
    return giver.give();
  });
  const credentialsFile = join(directory, "service-account.json");
  const json = {
    type: "service_account",
    client_email: "walnut@project.iam.gserviceaccount.com",
    private_key: privateKey.export({ type: "pkcs8", format: "pem" }),
    private_key_id: "id-1",
    token_uri: `${sts.origin}/token`,
  };
  await writeFile(credentialsFile, JSON.stringify(json));
  await roundTrip(giver, { credentialsFile });
  const form = new URLSearchParams(requests[0]?.body);
  const [header = "", claims = "", signature = ""] = (form.get("assertion") ?? "").split(".");
  const verify = createVerify("RSA-SHA256").update(`${header}.${claims}`);
  assert.ok(verify.verify(publicKey, signature, "base64url"));
  const { iss, aud, scope } = JSON.parse(Buffer.from(claims, "base64url").toString());
  assert.deepEqual([iss, aud], [json.client_email, json.token_uri]);
  assert.match(scope, /devstorage\.read_write$/);
});

test("a user's own login is refreshed", async () => {
  const giver = new Giver();
  await using sts = await TokenServer.start(({ body }) =>
    body.includes("refresh_token=r-1") ? giver.give() : { status: 400, body: {} },
  );
  const credentialsFile = join(directory, "user.json");
  const uri = { token_uri: `${sts.origin}/token` };
  const secrets = { client_id: "c", client_secret: "s", refresh_token: "r-1" };
  await writeFile(credentialsFile, JSON.stringify({ type: "authorized_user", ...secrets, ...uri }));
  await roundTrip(giver, { credentialsFile });
});

test("workload identity federation exchanges a file's token", async () => {
  const subjectFile = join(directory, "subject");
  await writeFile(subjectFile, "the pod's own token");
  let count = 0;
  await using sts = await TokenServer.start(({ body }) => {
    if (!body.includes("subject_token=the+pod%27s+own+token")) return { status: 400, body: {} };
    const issued_token_type = "urn:ietf:params:oauth:token-type:access_token";
    const access_token = `federated-${++count}`;
    const life = { token_type: "Bearer", expires_in: LIFE_SECONDS, issued_token_type };
    return { status: 200, body: { access_token, ...life } };
  });
  const credentialsFile = join(directory, "federation.json");
  const json = {
    type: "external_account",
    audience:
      "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x",
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
    token_url: `${sts.origin}/v1/token`,
    credential_source: { file: subjectFile },
  };
  await writeFile(credentialsFile, JSON.stringify(json));
  await using bucket = await GcsEmulation.start();
  bucket.acceptsToken = (token) => token === `federated-${count}`;
  const config = gcsConfig(bucket, { isAnonymous: false, credentialsFile });
  const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: policy };
  await using storage = await openStorage(config, options);
  await storage.put("a", text("x"), { signal });
  assert.equal(await textOf(storage, "a"), "x");
  assert.ok(count >= 1);
});

test("a token that the bucket refuses is replaced once", async () => {
  const giver = new Giver();
  await using metadata = await TokenServer.start(() => giver.give());
  await using bucket = await GcsEmulation.start();
  bucket.acceptsToken = (token) => token === "token-2";
  const config = gcsConfig(bucket, { isAnonymous: false, metadataHost: metadata.host });
  const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: policy };
  await using storage = await openStorage(config, options);
  await storage.put("a", text("x"), { signal });
  bucket.acceptsToken = () => false;
  await assert.rejects(storage.put("a", text("x"), { signal }), {
    name: "StorageAccessError",
    hint: /GOOGLE_APPLICATION_CREDENTIALS/,
  });
});

test("a giver of tokens that is away for a while is outlasted by a good token", async () => {
  const giver = new Giver();
  let isAway = false;
  await using metadata = await TokenServer.start(() =>
    isAway ? { status: 503, body: {} } : giver.give(),
  );
  await using bucket = await GcsEmulation.start();
  bucket.acceptsToken = (token) => giver.accepts(token);
  const config = gcsConfig(bucket, { isAnonymous: false, metadataHost: metadata.host });
  await using storage = await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 2,
    retryPolicy: policy,
    clock: giver.time.clock,
  });
  await storage.put("a", text("x"), { signal });
  isAway = true;
  giver.time.pass(45);
  await storage.put("b", text("x"), { signal });
  giver.time.pass(30);
  await assert.rejects(storage.put("c", text("x"), { signal }), {
    name: "StorageError",
    message: /cannot get a token from http:.*503.*gave up after 3 attempts/,
  });
});

const bad: readonly (readonly [string, RegExp])[] = [
  ["", /holds no credentials of Google's$/],
  ["{}", /holds no credentials of Google's$/],
  ['{"type": "service_account", "client_email": "a@b"}', /have no private_key$/],
];

for (const [content, message] of bad) {
  test(`credentials refused: ${content}`, async () => {
    const credentialsFile = join(directory, "bad.json");
    await writeFile(credentialsFile, content);
    const target = { endpoint: "http://127.0.0.1:9", bucket: "b" };
    const config = gcsConfig(target, { isAnonymous: false, credentialsFile });
    const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: policy };
    await using storage = await openStorage(config, options);
    await assert.rejects(storage.stat("a", { signal }), { name: "ConfigError", message });
  });
}

test("a metadata service that never answers ends in time", async () => {
  const { createServer } = await import("node:net");
  const sockets = new Set<{ destroy(): void }>();
  const silent = createServer((socket) => void sockets.add(socket));
  silent.listen(0, "127.0.0.1");
  await new Promise((resolve) => silent.once("listening", resolve));
  const address = silent.address();
  const port = typeof address === "object" ? address?.port : 0;
  const target = { endpoint: "http://127.0.0.1:9", bucket: "b" };
  const config = gcsConfig(target, { isAnonymous: false, metadataHost: `127.0.0.1:${port}` });
  const options = { signal, requestTimeoutMs: 200, uploadConcurrency: 2, retryPolicy: policy };
  await using storage = await openStorage(config, options);
  await assert.rejects(storage.stat("a", { signal }), { name: "StorageError", isRetryable: false });
  for (const socket of sockets) socket.destroy();
  silent.close();
});

const { privateKey } = generateKeyPairSync("rsa", {
  modulusLength: 2048,
  privateKeyEncoding: { type: "pkcs8", format: "pem" },
  publicKeyEncoding: { type: "spki", format: "pem" },
});
const account = { type: "service_account", client_email: "a@b", private_key: privateKey };

/** Of credentials that are of no use: the file's text (undefined: no file), and what is said. */
const useless = [
  {
    what: "no file",
    text: undefined,
    message: /^cannot read the credentials in .*\.json: no such file or directory \(ENOENT\)$/,
    hint: /^Correct GOOGLE_APPLICATION_CREDENTIALS; or unset it/,
  },
  {
    what: "no JSON",
    text: "key",
    message: /\.json holds no credentials of Google's$/,
    hint: /download a service account's key again/,
  },
  {
    what: "a damaged key",
    text: JSON.stringify({ ...account, private_key: "garbage" }),
    message: /^the private key in .*\.json is damaged$/,
    hint: /^Download the key again/,
  },
  {
    what: "a giver of tokens that is not reached",
    text: JSON.stringify({ ...account, token_uri: "http://127.0.0.1:1/token" }),
    message: /^cannot get a token from http:\/\/127\.0\.0\.1:1: nothing listens there \(.*ECONNREF/,
    hint: /^This machine must reach 127\.0\.0\.1:1 for its tokens/,
  },
];

for (const { what, text: content, message, hint } of useless) {
  test(`useless credentials: ${what}`, async () => {
    const credentialsFile = join(directory, `${what}.json`);
    if (content !== undefined) await writeFile(credentialsFile, content);
    await using bucket = await GcsEmulation.start();
    const config = gcsConfig(bucket, { isAnonymous: false, credentialsFile });
    const once: RetryPolicy = { ...policy, attempts: 1 };
    const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: once };
    await using storage = await openStorage(config, options);
    await assert.rejects(storage.stat("a", { signal }), (error) => {
      assert.ok(error instanceof OperationError);
      assert.match(error.message, message);
      assert.match(error.hint ?? "", hint);
      return true;
    });
  });
}

test("a machine without an account is told to name credentials", async () => {
  await using server = await TokenServer.start(() => ({ status: 403, body: {} }));
  await using bucket = await GcsEmulation.start();
  const metadataHost = new URL(server.origin).host;
  const config = gcsConfig(bucket, { isAnonymous: false, metadataHost });
  const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: policy };
  await using storage = await openStorage(config, options);
  await assert.rejects(storage.stat("a", { signal }), {
    name: "StorageAccessError",
    message: `cannot get a token from ${server.origin}: 403`,
    hint: /^There is no credentials file, and this machine has no service account/,
  });
});
