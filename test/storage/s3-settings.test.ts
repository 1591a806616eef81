import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../src/io/clock.ts";
import type { S3Config } from "../../src/storage/open.ts";
import { failingSource, patternSource } from "../support/bodies.ts";
import type { S3Emulation } from "../support/s3-emulation.ts";
import { openEmulated } from "../support/s3-opened.ts";
import { keysOf, putAll, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const LARGE_BYTES = 6 * MIB;
const smallParts = { maxPartBytes: 5 * MIB };

test("storage class and encryption are asked for on the requests that take them", async () => {
  const key = "k".repeat(32);
  const settings = {
    storageClass: "COLD",
    sse: "aws:kms",
    sseKmsKeyId: "key/1",
    sseCustomerKey: key,
  };
  await using opened = await openEmulated({}, { ...smallParts, ...settings });
  const { server, storage } = opened;
  await storage.put("a", patternSource(LARGE_BYTES), { signal });
  await storage.put("b", patternSource(1), { signal });
  await textOf(storage, "b");
  await storage.stat("b", { signal });
  await storage.delete(["a", "b"], { signal });
  const prefix = "x-amz-server-side-encryption";
  for (const { operation, headers } of server.requests) {
    const isCreating = operation === "PutObject" || operation === "CreateMultipartUpload";
    assert.equal(headers["x-amz-storage-class"], isCreating ? "COLD" : undefined, operation);
    assert.equal(headers[prefix], isCreating ? "aws:kms" : undefined, operation);
    assert.equal(headers[`${prefix}-aws-kms-key-id`], isCreating ? "key/1" : undefined, operation);
    const base64 = operation === "DeleteObjects" ? undefined : Buffer.from(key).toString("base64");
    assert.equal(headers[`${prefix}-customer-key`], base64, operation);
    const signed = headers.authorization ?? "";
    if (isCreating) assert.match(signed, /x-amz-storage-class/, "signed");
  }
});

test("a lock, tags and who pays are told with the requests that take them", async () => {
  const settings: Partial<S3Config> = {
    lock: { mode: "COMPLIANCE", periodSeconds: 86_400 },
    tags: "team=db&cost%20center=7",
    isRequesterPays: true,
    requestHeaders: { "x-tenant": "seven" },
  };
  await using opened = await openEmulated({}, { ...smallParts, ...settings });
  const { server, storage } = opened;
  const beganMs = systemClock.now();
  await storage.put("a", patternSource(LARGE_BYTES), { signal });
  await storage.put("b", patternSource(1), { signal });
  const failing = storage.put("c", failingSource(LARGE_BYTES, new Error("the source broke")), {
    signal,
  });
  await assert.rejects(failing, /the source broke/);
  await textOf(storage, "b");
  await storage.stat("b", { signal });
  await keysOf(storage, "");
  await storage.delete(["a"], { signal });
  await storage.delete(["b", "c"], { signal });
  const seen = new Set<string>();
  for (const { operation, headers } of server.requests) {
    seen.add(operation);
    assert.equal(headers["x-amz-request-payer"], "requester", operation);
    assert.equal(headers["x-tenant"], "seven", operation);
    const isCreating = operation === "PutObject" || operation === "CreateMultipartUpload";
    assert.equal(headers["x-amz-tagging"], isCreating ? settings.tags : undefined, operation);
    const mode = headers["x-amz-object-lock-mode"];
    assert.equal(mode, isCreating ? "COMPLIANCE" : undefined, operation);
    if (isCreating) {
      const until = new Date(String(headers["x-amz-object-lock-retain-until-date"])).getTime();
      assert.ok(until >= beganMs + 86_400_000 && until <= systemClock.now() + 86_400_000);
      assert.match(headers.authorization ?? "", /x-amz-object-lock-mode.*x-amz-tagging/, "signed");
    }
    // S3 wants a checksum of what it locks.
    const isBody = ["PutObject", "UploadPart", "DeleteObjects"].includes(operation);
    assert.equal(headers["content-md5"] !== undefined, isBody, operation);
  }
  assert.deepEqual([...seen].toSorted(), [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CreateMultipartUpload",
    "DeleteObject",
    "DeleteObjects",
    "GetObject",
    "HeadObject",
    "ListObjectsV2",
    "PutObject",
    "UploadPart",
  ]);
});

const listQuirks = [{ lacksListV2: true }, { ignoresListV2: true }] as const;
for (const quirks of listQuirks) {
  test(`a store with ${JSON.stringify(quirks)} is listed as of old, found once`, async () => {
    await using opened = await openEmulated({ ...quirks, pageKeys: 3 });
    const { server, storage } = opened;
    const keys = ["a", "b", "c", "d", "e", "f", "g"];
    await putAll(storage, keys);
    assert.deepEqual(await keysOf(storage, "", { startAfter: "b" }), keys.slice(2));
    assert.deepEqual(await keysOf(storage, ""), keys);
    assert.equal(server.count("ListObjectsV2"), 1);
    assert.equal(server.count("ListObjects"), 5);
  });
}

/** The system's own name for this machine may get a prefix, unlike an address. */
function byName({ endpoint }: S3Emulation): Partial<S3Config> {
  return { endpoint: endpoint.replace("127.0.0.1", "localhost"), isPathStyle: false };
}

for (const operation of ["put", "stat", "list", "missing"] as const) {
  test(`a bucket that only the path leads to is found there: ${operation} first`, async () => {
    await using opened = await openEmulated({}, byName);
    const { server, storage } = opened;
    server.objects.set("there", { bytes: Buffer.from("12345"), etag: '"x"' });
    if (operation === "put") await storage.put("new", text("12"), { signal });
    if (operation === "stat") assert.equal((await storage.stat("there", { signal })).sizeBytes, 5);
    if (operation === "list") assert.deepEqual(await keysOf(storage, ""), ["there"]);
    if (operation === "missing") {
      await assert.rejects(storage.stat("other", { signal }), { name: "ObjectNotFoundError" });
    }
    assert.equal(await textOf(storage, "there"), "12345");
  });
}

test("a bucket that neither host nor path leads to is named", async () => {
  await using opened = await openEmulated({}, (server) => ({
    ...byName(server),
    bucket: "nowhere",
  }));
  const { storage } = opened;
  await assert.rejects(storage.put("a", text("1"), { signal }), { name: "StorageError" });
  await assert.rejects(storage.stat("a", { signal }), { name: "StorageError" });
});
