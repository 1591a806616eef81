import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationError, StorageError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { systemRandom } from "../../src/io/retry.ts";
import { openS3Storage } from "../../src/storage/s3.ts";
import { s3Error } from "../../src/storage/s3-errors.ts";
import { freePort } from "../support/postgres-programs.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation, errorDocument } from "../support/s3-emulation.ts";
import type { S3Answer } from "../support/s3-emulation.ts";
import { keysOf, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;

async function open(server: Parameters<typeof s3Config>[0]) {
  return await openS3Storage(s3Config(server), {
    clock: systemClock,
    random: systemRandom,
    retryPolicy: { attempts: 1, baseMs: 1, capMs: 1, totalMs: 1 },
    requestTimeoutMs: 5000,
    uploadConcurrency: 1,
  });
}

interface Row {
  readonly answer: S3Answer;
  readonly name: string;
  readonly message: RegExp;
  readonly hint?: RegExp;
  readonly isRetryable?: boolean;
}

const s3 = (status: number, code: string, message?: string): S3Answer => ({
  status,
  body: errorDocument(code, message),
});

/** What a GET of the object "a" becomes. */
const rows: readonly Row[] = [
  {
    answer: s3(404, "NoSuchKey"),
    name: "ObjectNotFoundError",
    message: /^object a does not exist in s3:\/\/[\d.:]+\/emulated$/,
  },
  {
    answer: s3(404, "NoSuchBucket"),
    name: "StorageError",
    message: /404 NoSuchBucket/,
    hint: /^Create the bucket of s3:\/\/[\d.:]+\/emulated/,
    isRetryable: false,
  },
  {
    answer: { status: 404, body: errorDocument("NoSuchKey").replace("</Code>", "</Kode>") },
    name: "StorageError",
    message: /^cannot get a in s3:\/\/[\d.:]+\/emulated: 404/,
    hint: /AWS_ENDPOINT/,
    isRetryable: true,
  },
  {
    answer: { status: 404, body: "<html>nginx</html>" },
    name: "StorageError",
    message: /^cannot get a in s3:\/\/[\d.:]+\/emulated: 404/,
    hint: /AWS_ENDPOINT/,
    isRetryable: false,
  },
  {
    answer: { status: 404 },
    name: "StorageError",
    message: /404/,
    hint: /AWS_ENDPOINT/,
    isRetryable: false,
  },
  {
    answer: s3(403, "AccessDenied", "Access Denied."),
    name: "StorageAccessError",
    message: /403 AccessDenied: Access Denied$/,
    hint: /may not do this here/,
  },
  {
    answer: s3(403, "InvalidAccessKeyId"),
    name: "StorageAccessError",
    message: /InvalidAccessKeyId/,
    hint: /AWS_ACCESS_KEY_ID/,
  },
  {
    answer: s3(403, "SignatureDoesNotMatch"),
    name: "StorageAccessError",
    message: /SignatureDoesNotMatch/,
    hint: /AWS_SECRET_ACCESS_KEY/,
  },
  {
    answer: s3(400, "ExpiredToken"),
    name: "StorageAccessError",
    message: /ExpiredToken/,
    hint: /credentials expired/,
  },
  {
    answer: s3(400, "InvalidToken"),
    name: "StorageAccessError",
    message: /InvalidToken/,
    hint: /credentials expired/,
  },
  {
    answer: s3(400, "InvalidBucketName"),
    name: "StorageError",
    message: /400 InvalidBucketName/,
    hint: /^No bucket can have the name in s3:\/\/[\d.:]+\/emulated/,
    isRetryable: false,
  },
  {
    answer: { status: 400 },
    name: "StorageError",
    message: /^cannot get a in s3:\/\/[\d.:]+\/emulated: 400/,
    hint: /AWS_REGION/,
    isRetryable: false,
  },
  { answer: { status: 401 }, name: "StorageAccessError", message: /401/, hint: /does not say why/ },
  { answer: { status: 403 }, name: "StorageAccessError", message: /403/, hint: /does not say why/ },
  {
    answer: s3(403, "RequestTimeTooSkewed"),
    name: "StorageError",
    message: /RequestTimeTooSkewed/,
    hint: /NTP/,
    isRetryable: true,
  },
  {
    answer: s3(507, "XMinioStorageFull"),
    name: "StorageError",
    message: /507 XMinioStorageFull/,
    hint: /no room left/,
    isRetryable: true,
  },
  {
    answer: s3(404, "XAdminUserNotFound"),
    name: "StorageAccessError",
    message: /XAdminUserNotFound/,
    hint: /AWS_ACCESS_KEY_ID/,
  },
  {
    answer: s3(500, "InternalError"),
    name: "StorageError",
    message: /500 InternalError/,
    isRetryable: true,
  },
  { answer: s3(503, "SlowDown"), name: "StorageError", message: /503 SlowDown/, isRetryable: true },
  {
    answer: { status: 503, body: "<html>busy</html>" },
    name: "StorageError",
    message: /503/,
    isRetryable: true,
  },
  { answer: { status: 502 }, name: "StorageError", message: /502/, isRetryable: true },
  { answer: { status: 429 }, name: "StorageError", message: /429/, isRetryable: true },
  {
    answer: s3(400, "RequestTimeout"),
    name: "StorageError",
    message: /RequestTimeout/,
    isRetryable: true,
  },
  {
    answer: s3(400, "InvalidRequest"),
    name: "StorageError",
    message: /400 InvalidRequest/,
    isRetryable: false,
  },
  {
    answer: s3(501, "NotImplemented"),
    name: "StorageError",
    message: /501 NotImplemented/,
    isRetryable: false,
  },
  {
    answer: s3(301, "PermanentRedirect"),
    name: "StorageError",
    message: /301 PermanentRedirect/,
    hint: /AWS_REGION/,
    isRetryable: false,
  },
  {
    answer: s3(400, "AuthorizationHeaderMalformed"),
    name: "StorageError",
    message: /AuthorizationHeaderMalformed/,
    hint: /AWS_REGION/,
    isRetryable: false,
  },
];

for (const { answer, name, message, hint = /^$/, isRetryable } of rows) {
  test(`${answer.status} ${answer.body?.slice(21, 60) ?? ""} becomes ${name}`, async () => {
    await using server = await S3Emulation.start();
    server.intercept = () => answer;
    const storage = await open(server);
    await assert.rejects(textOf(storage, "a"), (error) => {
      assert.ok(error instanceof OperationError);
      assert.equal(error.name, name);
      assert.match(error.message, message);
      assert.match(error.hint ?? "", hint);
      if (error instanceof StorageError) assert.equal(error.isRetryable, isRetryable);
      const shown = `${error.message} ${error.hint} ${error.stack}`;
      assert.ok(!shown.includes(server.secretAccessKey) && !/Signature=/.test(shown), "no secret");
      return true;
    });
  });
}

test("a missing bucket is never a missing object", async () => {
  await using server = await S3Emulation.start();
  const { endpoint, accessKeyId, secretAccessKey } = server;
  const storage = await open({ endpoint, accessKeyId, secretAccessKey, bucket: "no-such-bucket" });
  const expected = { name: "StorageError", message: /NoSuchBucket/, hint: /no-such-bucket/ };
  await assert.rejects(storage.stat("a", { signal }), expected);
  await assert.rejects(textOf(storage, "a"), expected);
  await assert.rejects(textOf(storage, "a", 3, 3), expected);
  await assert.rejects(keysOf(storage, ""), expected);
  await assert.rejects(storage.put("a", text("x"), { signal }), expected);
});

test("a missing object is asked for once more only until the bucket has been seen", async () => {
  await using server = await S3Emulation.start();
  const storage = await open(server);
  await assert.rejects(storage.stat("a", { signal }), { name: "ObjectNotFoundError" });
  await assert.rejects(storage.stat("b", { signal }), { name: "ObjectNotFoundError" });
  const operations = server.requests.map(({ operation }) => operation);
  assert.deepEqual(operations, ["HeadObject", "GetObject", "HeadObject"]);
});

test("the pause that the store asks for is told", async () => {
  await using server = await S3Emulation.start();
  const storage = await open(server);
  server.intercept = () => ({ ...s3(503, "SlowDown"), headers: { "retry-after": "7" } });
  await assert.rejects(textOf(storage, "a"), { retryAfterMs: 7000 });
  server.intercept = () => ({ ...s3(503, "SlowDown"), headers: { "retry-after": "soon" } });
  await assert.rejects(textOf(storage, "a"), { retryAfterMs: undefined });
});

test("an endpoint where nobody listens, or that has no address, is named with a hint", async () => {
  const endpoints = [
    [`http://127.0.0.1:${await freePort()}`, /ECONNREFUSED|refused/i],
    ["http://no-such-host.invalid", /ENOTFOUND|EAI_AGAIN/],
  ] as const;
  for (const [endpoint, message] of endpoints) {
    const storage = await open({ endpoint, bucket: "b", accessKeyId: "a", secretAccessKey: "s" });
    await assert.rejects(textOf(storage, "a"), {
      name: "StorageError",
      message,
      isRetryable: true,
    });
  }
});

test("what is no failure of a request stays what it is", () => {
  const action = { verb: "get", key: "a", storage: "s3://b" };
  for (const bug of [new TypeError("x is not a function"), "text", undefined]) {
    assert.equal(s3Error(bug, action), bug);
  }
});
