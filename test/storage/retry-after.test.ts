import assert from "node:assert/strict";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import type { StorageConfig } from "../../src/storage/open.ts";
import { openStorage } from "../../src/storage/open.ts";
import { retryAfterSeconds } from "../../src/storage/request-errors.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { s3Config } from "../support/s3-config.ts";
import { swiftConfig } from "../support/swift-config.ts";
import { textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const store = { bucket: "b", accessKeyId: "k", secretAccessKey: "s" };
const NOW_MS = Date.UTC(1994, 10, 6, 8, 49, 30, 500);

const dates: readonly (readonly [string, number | undefined])[] = [
  ["Sun, 06 Nov 1994 08:49:37 GMT", 7],
  ["Sunday, 06-Nov-94 08:49:37 GMT", 7],
  ["Sun Nov  6 08:49:37 1994", 7],
  ["Sat, 05 Nov 1994 08:49:37 GMT", 0],
  ["Sun, 06 Nov 1994 08:61:37 GMT", undefined],
  ["Sunday, soon", undefined],
  ["1994-11-06T08:49:37Z", undefined],
  ["7", undefined],
  ["", undefined],
];
for (const [date, seconds] of dates) {
  test(`Retry-After ${JSON.stringify(date)} is ${seconds ?? "no date"}`, () => {
    assert.equal(retryAfterSeconds({ "retry-after": date }, NOW_MS), seconds);
  });
}

test("the store's own clock is what its dates are of", () => {
  const headers = {
    date: "Sun, 06 Nov 1994 10:00:00 GMT",
    "retry-after": "Sun, 06 Nov 1994 10:00:05 GMT",
  };
  assert.equal(retryAfterSeconds(headers, NOW_MS), 5);
  assert.equal(retryAfterSeconds({ ...headers, date: "today" }, NOW_MS), 4235);
});

const stores: Readonly<Record<string, (endpoint: string) => StorageConfig>> = {
  s3: (endpoint) => s3Config({ ...store, endpoint }),
  gcs: (endpoint) => ({
    kind: "gcs",
    endpoint,
    bucket: "b",
    prefix: "",
    isAnonymous: true,
    chunkBytes: 1024 * 1024,
  }),
  azure: (endpoint) => ({
    kind: "azure",
    endpoint: `${endpoint}/a`,
    account: "a",
    accessKey: "a2V5",
    container: "b",
    prefix: "",
    bufferBytes: 1024 * 1024,
  }),
  swift: (endpoint) =>
    swiftConfig(
      { ...store, endpoint },
      { login: { kind: "token", token: "t" }, storageUrl: `${endpoint}/v1/a` },
    ),
  "swift's login": (endpoint) => swiftConfig({ ...store, endpoint }),
};
for (const [name, configOf] of Object.entries(stores)) {
  test(`${name}: a Retry-After that is a date is the pause`, async () => {
    await using server = await FaultProxy.start("http://127.0.0.1:9");
    const headers = {
      date: "Sat, 21 Nov 2026 10:00:00 GMT",
      "retry-after": "Sat, 21 Nov 2026 10:00:07 GMT",
    };
    server.rule = () => ({ answer: { status: 503, headers } });
    await using storage = await openStorage(configOf(server.endpoint), {
      signal,
      requestTimeoutMs: 20_000,
      uploadConcurrency: 1,
      // The pause does not fit in: it is told, and not waited for.
      retryPolicy: { attempts: 9, baseMs: 1, capMs: 1, totalMs: 1000 },
    });
    await assert.rejects(textOf(storage, "a"), ({ cause }: Error) => {
      assert.ok(cause instanceof StorageError);
      assert.equal(cause.retryAfterMs, 7000);
      return true;
    });
    assert.equal(server.requests.length, 1);
  });
}
