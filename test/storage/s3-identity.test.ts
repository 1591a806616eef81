/** P23: keys of AWS that live for seconds, from each of its givers, and keys that are replaced. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import type { RetryPolicy } from "../../src/io/retry.ts";
import { openStorage } from "../../src/storage/open.ts";
import { patternSource } from "../support/bodies.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation, errorDocument } from "../support/s3-emulation.ts";
import { TokenServer } from "../support/token-server.ts";
import type { TokenAnswer, TokenRequest } from "../support/token-server.ts";
import { keysOf, text } from "./contract-lists.ts";
import { until } from "../support/until.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const LIFE_MS = 1200;
const policy: RetryPolicy = { attempts: 3, baseMs: 1, capMs: 5, totalMs: 60_000 };
const ROLE = "arn:aws:iam::1:role/backup";

let directory = "";
const environment = { ...process.env };
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-s3-identity-"));
});
after(async () => await rm(directory, { recursive: true }));
afterEach(() => {
  setEnvironment({});
  Object.assign(process.env, environment);
});

/** Nothing of the machine's own may answer instead. */
function setEnvironment(values: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(process.env)) {
    if (name.startsWith("AWS_")) delete process.env[name];
  }
  const nowhere = join(directory, "nowhere");
  const isolated = { AWS_CONFIG_FILE: nowhere, AWS_SHARED_CREDENTIALS_FILE: nowhere };
  Object.assign(process.env, isolated, values);
}

interface Key {
  readonly id: string;
  readonly endsAt: Date;
}

/** Gives keys that end after seconds, each with its end. */
class Giver {
  readonly given: Key[] = [];

  give(): Key {
    const key = { id: `KEY${this.given.length}`, endsAt: new Date(Date.now() + LIFE_MS) };
    this.given.push(key);
    return key;
  }

  /** Whether the key was alive then. */
  accepts(id: string, atMs: number): boolean {
    return this.given.some((key) => key.id === id && key.endsAt.getTime() > atMs);
  }
}

function keyJson({ id, endsAt }: Key): TokenAnswer {
  const body = {
    Code: "Success",
    AccessKeyId: id,
    SecretAccessKey: "s",
    Token: `token of ${id}`,
    Expiration: endsAt.toISOString(),
  };
  return { status: 200, body };
}

function stsAnswer({ id, endsAt }: Key): TokenAnswer {
  const action = "AssumeRoleWithWebIdentity";
  const body =
    `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result>` +
    `<Credentials><AccessKeyId>${id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>` +
    `<SessionToken>token of ${id}</SessionToken><Expiration>${endsAt.toISOString()}</Expiration>` +
    `</Credentials></${action}Result></${action}Response>`;
  return { status: 200, body };
}

/** An emulated bucket that takes only requests whose key `accepts` as of when they were signed. */
async function startBucket(accepts: (id: string, signedAtMs: number) => boolean) {
  const stack = new AsyncDisposableStack();
  const bucket = stack.use(await S3Emulation.start());
  const proxy = stack.use(await FaultProxy.start(bucket.endpoint));
  const refused: string[] = [];
  proxy.rule = ({ headers }) => {
    const [, id = ""] = /Credential=([^/]+)\//.exec(headers.authorization ?? "") ?? [];
    if (accepts(id, signedAtMs(headers["x-amz-date"]))) return undefined;
    refused.push(id);
    const body = errorDocument("ExpiredToken", "The provided token has expired.");
    return { answer: { status: 400, body } };
  };
  const { accessKeyId: _, secretAccessKey: __, ...config } = s3Config(bucket);
  const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: policy };
  const open = async () =>
    stack.use(await openStorage({ ...config, endpoint: proxy.endpoint }, options));
  return { open, refused, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Reads "20261121T160104Z". */
function signedAtMs(date: string | string[] | undefined): number {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(date)) ?? [];
  const [year = 0, month = 0, day, hour, minute, second] = parts.slice(1).map(Number);
  return Date.UTC(year, month - 1, day, hour, minute, second);
}

interface Source {
  readonly name: string;
  readonly answer: (request: TokenRequest, giver: Giver) => TokenAnswer;
  readonly environment: (origin: string) => Readonly<Record<string, string>>;
}

const sources: readonly Source[] = [
  {
    name: "an instance's role (EC2)",
    answer({ method, url, headers }, giver) {
      if (method === "PUT") return { status: 200, body: "session" };
      if (headers["x-aws-ec2-metadata-token"] !== "session") return { status: 401, body: "" };
      const isNamed = !url.pathname.endsWith("/");
      return isNamed ? keyJson(giver.give()) : { status: 200, body: "backup" };
    },
    environment: (origin) => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: origin }),
  },
  {
    name: "a container's role (ECS)",
    answer: ({ headers }, giver) =>
      headers.authorization === "the task's" ? keyJson(giver.give()) : { status: 401, body: {} },
    environment: (origin) => ({
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `${origin}/v2`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN: "the task's",
    }),
  },
  {
    name: "a pod's role (IRSA)",
    answer({ body }, giver) {
      const isTrue = new URLSearchParams(body).get("WebIdentityToken") === "the pod's";
      return isTrue ? stsAnswer(giver.give()) : { status: 403, body: "<Error/>" };
    },
    environment: (origin) => ({
      AWS_ENDPOINT_URL_STS: origin,
      AWS_REGION: "us-east-1",
      AWS_WEB_IDENTITY_TOKEN_FILE: join(directory, "pod-token"),
      AWS_ROLE_ARN: ROLE,
    }),
  },
];

for (const { name, answer, environment: variables } of sources) {
  test(`keys of seconds are renewed while objects are stored: ${name}`, async () => {
    await writeFile(join(directory, "pod-token"), "the pod's");
    const giver = new Giver();
    await using server = await TokenServer.start((request) => answer(request, giver));
    setEnvironment(variables(server.origin));
    await using bucket = await startBucket((id, atMs) => giver.accepts(id, atMs));
    const storage = await bucket.open();
    let count = 0;
    await until("the first key has ended", async () => {
      await storage.put(String(count++).padStart(6, "0"), text("x"), { signal });
      return !giver.accepts("KEY0", Date.now());
    });
    await storage.put("large", patternSource(25 * MIB), { signal });
    assert.equal((await keysOf(storage, "")).length, count + 1);
    assert.ok(giver.given.length >= 2, `${giver.given.length} keys`);
    assert.deepEqual(bucket.refused, []);
  });
}

test("keys in a file that ended are named, and new ones taken up without a restart", async () => {
  const file = join(directory, "credentials");
  const write = async (id: string) =>
    await writeFile(file, `[default]\naws_access_key_id = ${id}\naws_secret_access_key = s\n`);
  await write("OLD");
  setEnvironment({ AWS_SHARED_CREDENTIALS_FILE: file, AWS_EC2_METADATA_DISABLED: "true" });
  let valid = "OLD";
  await using bucket = await startBucket((id) => id === valid);
  const storage = await bucket.open();
  await storage.put("a", text("x"), { signal });
  valid = "NEW";
  await assert.rejects(storage.put("b", text("x"), { signal }), {
    name: "StorageAccessError",
    hint: /credentials expired/,
  });
  await write("NEW");
  await storage.put("b", patternSource(25 * MIB), { signal });
  assert.deepEqual(await keysOf(storage, ""), ["a", "b"]);
  assert.ok(bucket.refused.length <= 4, `${bucket.refused.length} refusals`);
});
