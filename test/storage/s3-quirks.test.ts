import assert from "node:assert/strict";
import { test } from "node:test";
import { readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import type { S3Config } from "../../src/storage/open.ts";
import { PrefixedStorage } from "../../src/storage/prefixed.ts";
import { RetryingStorage } from "../../src/storage/retrying.ts";
import { openS3Client } from "../../src/storage/s3-client.ts";
import { readObject } from "../../src/storage/s3-read.ts";
import { S3Transport } from "../../src/storage/s3-transport.ts";
import { patternSource } from "../support/bodies.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation, errorDocument } from "../support/s3-emulation.ts";
import type { S3Quirks } from "../support/s3-emulation.ts";
import { openEmulated as open } from "../support/s3-opened.ts";
import { keysOf, putAll, text, textOf } from "./contract-lists.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const LARGE_BYTES = 6 * MIB;

const smallParts = { maxPartBytes: 5 * MIB };

const providers: Readonly<Record<string, [S3Quirks, Partial<S3Config>]>> = {
  "a strict provider": [{}, {}],
  "a provider without conditions and ListObjectsV2": [
    { refusesConditions: true, lacksListV2: true },
    { useListObjectsV1: true },
  ],
  "a provider without batches, with small pages": [
    { refusesBatches: true, pageKeys: 90 },
    smallParts,
  ],
};
for (const [name, [quirks, settings]] of Object.entries(providers)) {
  storageContract(
    `s3 on ${name}`,
    async () => {
      const opened = await open(quirks, settings);
      const storage = new PrefixedStorage(opened.storage, "some/prefix");
      return { storage, close: () => opened[Symbol.asyncDispose]() };
    },
    { isCreateAtomic: quirks.refusesConditions !== true },
  );
}

test("a create-only put is one request", async () => {
  await using opened = await open();
  const { server, storage } = opened;
  await storage.put("a", patternSource(16 * MIB), { signal, ifAbsent: true });
  assert.deepEqual(
    server.requests.map(({ operation }) => operation),
    ["PutObject"],
  );
  assert.equal(server.requests[0]?.headers["if-none-match"], "*");
  assert.equal(server.requests[0]?.headers["expect"], undefined);
});

test("a store that refuses conditions is looked at first, and asked only once", async () => {
  await using opened = await open({ refusesConditions: true });
  const { server, storage } = opened;
  await storage.put("a", text("1"), { signal, ifAbsent: true });
  await storage.put("b", text("2"), { signal, ifAbsent: true });
  await assert.rejects(storage.put("a", text("3"), { signal, ifAbsent: true }), {
    name: "ObjectExistsError",
  });
  const operations = server.requests.map(({ operation }) => operation);
  assert.deepEqual(
    operations.filter((operation) => operation !== "GetObject"),
    ["PutObject", "HeadObject", "PutObject", "HeadObject", "PutObject", "HeadObject"],
  );
});

test("a store that checks no condition on completion does not lose the older object", async () => {
  await using opened = await open({ ignoresConditionOnComplete: true }, smallParts);
  const { server, storage } = opened;
  await storage.put("a", text("older"), { signal });
  const put = storage.put("a", patternSource(LARGE_BYTES), { signal, ifAbsent: true });
  await assert.rejects(put, { name: "ObjectExistsError" });
  assert.equal(await textOf(storage, "a"), "older");
  assert.equal(server.count("UploadPart"), 0);
});

test("a put of exactly one part is one request, one byte more is an upload", async () => {
  await using opened = await open({}, smallParts);
  const { server, storage } = opened;
  await storage.put("a", patternSource(5 * MIB), { signal });
  assert.equal(server.count("CreateMultipartUpload"), 0);
  await storage.put("b", patternSource(5 * MIB + 1), { signal });
  assert.equal(server.count("UploadPart"), 2);
  assert.equal(server.uploads.size, 0);
});

test("an error document in an answer that says 200 is a failure, and repeated (E02)", async () => {
  const cases: [string, string][] = [
    [
      "CompleteMultipartUpload",
      errorDocument("InternalError", "We encountered an internal error."),
    ],
    ["CompleteMultipartUpload", `   \n  ${errorDocument("SlowDown", "Reduce your request rate.")}`],
    ["CompleteMultipartUpload", ""],
    ["CompleteMultipartUpload", "<CompleteMultipartUploadResult><ETa"],
    ["CompleteMultipartUpload", "<html>It works!</html>"],
    ["CreateMultipartUpload", errorDocument("InternalError")],
    ["UploadPart", errorDocument("InternalError")],
    ["UploadPart", ""],
    ["PutObject", errorDocument("InternalError")],
    ["PutObject", ""],
    ["DeleteObjects", errorDocument("InternalError")],
  ];
  for (const [operation, body] of cases) {
    const call = async (isFor: "once" | "ever") => {
      await using opened = await open({}, smallParts);
      const { server, storage, retries } = opened;
      server.objects.set("c", { bytes: Buffer.from("c"), etag: '"c"' });
      let isDue = true;
      server.intercept = (request) => {
        if (request.operation !== operation || !isDue) return undefined;
        isDue = isFor === "ever";
        return { status: 200, body };
      };
      const sizeBytes = operation === "PutObject" ? 10 : LARGE_BYTES;
      if (operation === "DeleteObjects") await storage.delete(["c", "d"], { signal });
      else await storage.put("a", patternSource(sizeBytes), { signal });
      return {
        hasObject: server.objects.has("a"),
        retries: retries.length,
        uploads: server.uploads.size,
      };
    };
    const once = await call("once");
    assert.equal(once.retries, 1, `${operation} ${body}`);
    assert.equal(once.hasObject, operation !== "DeleteObjects");
    await assert.rejects(
      call("ever"),
      { name: "StorageError", message: /gave up after 4 attempts/ },
      body,
    );
  }
});

test("a list that says 200 and errs, or is cut, is no list", async () => {
  const bodies = [
    errorDocument("InternalError"),
    "",
    "<ListBucketResult><IsTruncated>false</IsTruncated><Conte",
    "<html><body>Please log in</body></html>",
    "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
  ];
  for (const body of bodies) {
    for (const useListObjectsV1 of [false, true]) {
      await using opened = await open({}, { useListObjectsV1 });
      opened.server.intercept = () => ({ status: 200, body });
      await assert.rejects(
        keysOf(opened.storage, ""),
        { name: "StorageError" },
        `not an empty list: ${body}`,
      );
    }
  }
});

test("a failed upload is taken away, its body closed, and nothing visible", async () => {
  await using opened = await open({}, smallParts);
  const { server, storage } = opened;
  server.intercept = (request) =>
    request.operation === "UploadPart" && request.query.get("partNumber") === "3"
      ? { status: 500, body: errorDocument("InternalError") }
      : undefined;
  let isClosed = false;
  async function* body() {
    try {
      for (;;) yield Buffer.alloc(MIB);
    } finally {
      isClosed = true;
    }
  }
  const put = storage.put("a", { isReopenable: false, open: body }, { signal });
  await assert.rejects(put, {
    message:
      /^cannot upload part 3 of a in s3:\/\/[\d.:]+\/emulated: 500 InternalError \(gave up after 4/,
    isRetryable: false,
  });
  assert.equal(isClosed, true);
  assert.equal(server.uploads.size, 0);
  assert.equal(server.objects.size, 0);
});

test("a completion whose answer was lost is recognised by its ETag", async () => {
  await using opened = await open({}, smallParts);
  const { server, storage } = opened;
  server.intercept = (request) =>
    request.operation === "CompleteMultipartUpload" && server.count(request.operation) === 1
      ? { status: 503, body: errorDocument("SlowDown"), isDoneFirst: true }
      : undefined;
  await storage.put("a", patternSource(LARGE_BYTES), { signal });
  assert.equal(server.objects.get("a")?.bytes.length, LARGE_BYTES);
});

test("an upload that vanished is not taken for completed", async () => {
  for (const ifAbsent of [false, true]) {
    await using opened = await open({}, smallParts);
    const { server, storage } = opened;
    server.intercept = (request) => {
      if (request.operation !== "CompleteMultipartUpload") return undefined;
      server.uploads.clear();
      server.objects.set("a", { bytes: Buffer.from("of another"), etag: '"other"' });
      return server.count(request.operation) === 1 ? { status: 503 } : undefined;
    };
    const put = storage.put("a", patternSource(LARGE_BYTES), { signal, ifAbsent });
    const name = ifAbsent ? "ObjectExistsError" : "StorageError";
    await assert.rejects(put, { name });
  }
});

test("a conflict of two conditional writes is repeated, and then decided", async () => {
  for (const [sizeBytes, operation] of [
    [10, "PutObject"],
    [LARGE_BYTES, "CompleteMultipartUpload"],
  ] as const) {
    await using opened = await open({}, smallParts);
    const { server, storage } = opened;
    server.intercept = (request) =>
      request.operation === operation && server.count(operation) < 3
        ? { status: 409, body: errorDocument("ConditionalRequestConflict") }
        : undefined;
    await storage.put("a", patternSource(sizeBytes), { signal, ifAbsent: true });
    assert.equal(server.count(operation), 3);
  }
});

/** The answer to DeleteObjects that says 200 and names keys that remain. */
function batchErrors(code: string, ...keys: readonly string[]) {
  const entries = keys.map((key) => `<Error><Key>${key}</Key><Code>${code}</Code></Error>`);
  const body = `<DeleteResult>${entries.join("")}</DeleteResult>`;
  return { status: 200, body, isDoneFirst: true };
}

test("keys that a batch did not delete are repeated alone, and named if they remain", async () => {
  await using opened = await open();
  const { server, storage } = opened;
  const keys = Array.from({ length: 2500 }, (_, index) => `k${index}`);
  server.intercept = (request) =>
    request.operation === "DeleteObjects" && server.count("DeleteObjects") === 2
      ? batchErrors("InternalError", "k1001", "k1002")
      : undefined;
  for (const key of keys) server.objects.set(key, { bytes: Buffer.alloc(0), etag: '"e"' });
  server.objects.set("kept", { bytes: Buffer.alloc(0), etag: '"e"' });
  await storage.delete(keys, { signal });
  assert.deepEqual([...server.objects.keys()], ["kept"]);
  const batches = server.requests.map(({ document }) => document.match(/<Key>/g)?.length);
  assert.deepEqual(batches, [1000, 1000, 2, 500]);

  server.intercept = () => batchErrors("AccessDenied", "k7", "k8", "k9");
  await assert.rejects(storage.delete(keys, { signal }), {
    name: "StorageAccessError",
    message: /^cannot delete k7 and 2 other objects in s3:\/\/[\d.:]+\/emulated: AccessDenied$/,
  });
  server.intercept = () => batchErrors("InternalError", "k7");
  await assert.rejects(
    storage.delete(keys, { signal }),
    /cannot delete k7 in .*gave up after 4 attempts/,
  );
});

test("1,001 and 2,500 keys are listed and deleted, and none beside them", async () => {
  for (const count of [1000, 1001, 2500]) {
    await using opened = await open();
    const { server, storage } = opened;
    const keys = Array.from(
      { length: count },
      (_, index) => `wal_005/${String(index).padStart(24, "0")}`,
    );
    for (const key of [...keys, "wal_004", "wal_0050"]) {
      server.objects.set(key, { bytes: Buffer.alloc(0), etag: '"e"' });
    }
    const listed = await keysOf(storage, "wal_005/");
    assert.deepEqual(listed, keys);
    await storage.delete(listed, { signal });
    assert.deepEqual([...server.objects.keys()], ["wal_004", "wal_0050"]);
  }
});

test("entries for folders, as user interfaces make them, are no objects", async () => {
  await using opened = await open();
  for (const key of ["main/", "main/a", "main/wal_005/"]) {
    opened.server.objects.set(key, { bytes: Buffer.alloc(0), etag: '"e"' });
  }
  assert.deepEqual(await keysOf(new PrefixedStorage(opened.storage, "main"), ""), ["a"]);
});

test("a store that lists out of order is refused", async () => {
  await using opened = await open({ listsUnordered: true });
  await putAll(opened.storage, ["b"]);
  await putAll(opened.storage, ["a"]);
  const policy = { attempts: 9, baseMs: 100, capMs: 1000, totalMs: 60_000 };
  const context = { clock: new SkippingClock(), random: () => 0 };
  const storage = new RetryingStorage(opened.storage, policy, context);
  await assert.rejects(keysOf(storage, ""), /lists "a", which is not in byte order, after "b"$/);
  assert.equal(context.clock.sleeps.length, 1, "asked again once");
});

test("a store whose lists know no start gives what follows it, and no more", async () => {
  for (const useListObjectsV1 of [false, true]) {
    await using opened = await open({ ignoresStart: true }, { useListObjectsV1 });
    await putAll(opened.storage, ["a", "b", "c", "d"]);
    const policy = { attempts: 2, baseMs: 1, capMs: 1, totalMs: 60_000 };
    const context = { clock: new SkippingClock(), random: () => 0 };
    const storage = new RetryingStorage(opened.storage, policy, context);
    assert.deepEqual(await keysOf(storage, "", { startAfter: "b" }), ["c", "d"]);
    assert.deepEqual(await keysOf(storage, "", { startAfter: "d" }), []);
    assert.deepEqual(await keysOf(storage, "b", { startAfter: "a" }), ["b"]);
    assert.deepEqual(await keysOf(storage, ""), ["a", "b", "c", "d"]);
    assert.equal(context.clock.sleeps.length, 0);
  }
});

test("pages that all begin anew are an error, and no endless list", async () => {
  for (const startAfter of ["a", "b", undefined]) {
    const settings = { useListObjectsV1: true };
    await using opened = await open({ ignoresStart: true, pageKeys: 2 }, settings);
    await putAll(opened.storage, ["a", "b", "c", "d"]);
    const listing = keysOf(opened.storage, "", startAfter === undefined ? {} : { startAfter });
    await assert.rejects(listing, /asked for what follows "b", it begins anew$/);
  }
});

test("a store that ignores ranges does not pass wrong bytes", async () => {
  await using opened = await open({ ignoresRange: true });
  await opened.storage.put("a", text("0123456789"), { signal });
  assert.equal(await textOf(opened.storage, "a"), "0123456789");
  await assert.rejects(
    textOf(opened.storage, "a", 3, 5),
    /success without the length of bytes=3-4/,
  );
});

test("an answer for another range than the one asked for is refused", async () => {
  await using opened = await open();
  await opened.storage.put("a", text("0123456789"), { signal });
  const headers = { "content-range": "bytes 0-1/10", "content-length": "2", etag: '"e"' };
  opened.server.intercept = () => ({ status: 206, headers, body: "01" });
  await assert.rejects(
    textOf(opened.storage, "a", 3, 5),
    /success without the length of bytes=3-4/,
  );
});

test("no more parts are under way than allowed, and more than one", async () => {
  await using opened = await open({}, smallParts);
  await opened.storage.put("a", patternSource(60 * MIB), { signal });
  const { peakConcurrency } = opened.server;
  assert.ok(peakConcurrency > 1 && peakConcurrency <= 3, `${peakConcurrency} at once`);
});

test("fewer bytes than the answer promised are an error", async () => {
  await using server = await S3Emulation.start();
  server.objects.set("a", { bytes: Buffer.from("0123456789"), etag: '"e"' });
  const options = { requestTimeoutMs: 5000, clock: systemClock };
  const client = await openS3Client(s3Config(server), options);
  client.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      if ("ContentLength" in result.output) result.output.ContentLength = 11;
      return result;
    },
    { step: "initialize" },
  );
  const transport = new S3Transport(client, { ...options, bucket: server.bucket });
  await assert.rejects(readAll(readObject(transport, "a", { signal })), {
    name: "StorageError",
    message: "cannot get a in s3://emulated: 10 of 11 bytes arrived",
    isRetryable: true,
  });
});
