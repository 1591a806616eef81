import assert from "node:assert/strict";
import { after, test } from "node:test";
import { readAll } from "../../src/io/bytes.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { OpenOptions } from "../../src/storage/open.ts";
import type { Storage } from "../../src/storage/storage.ts";
import type { SwiftConfig } from "../../src/storage/swift-config.ts";
import { patternBytes, patternSource, sha256 } from "../support/bodies.ts";
import { FakeKeystone, keystoneConfig } from "../support/fake-keystone.ts";
import { FaultProxy, first } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import type { S3Server } from "../support/s3-server.ts";
import { swiftConfig } from "../support/swift-config.ts";
import { assertStored } from "./contract-faults.ts";
import {
  assertChangesAreNoticed,
  assertPagesAreNoObjects,
  keysOf,
  text,
  textOf,
} from "./contract-lists.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const policy = { attempts: 6, baseMs: 1, capMs: 5, totalMs: 60_000 };

async function open(config: SwiftConfig, options: Partial<OpenOptions> = {}): Promise<Storage> {
  return await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 3,
    retryPolicy: policy,
    ...options,
  });
}

test("one login serves many requests, and lists go over pages", async () => {
  await using keystone = await FakeKeystone.start();
  await using storage = await open(keystoneConfig(keystone));
  const keys = ["a", "b", "c", "d", "e", "f", "g"];
  await Promise.all(keys.map((key) => storage.put(key, text(key), { signal, ifAbsent: true })));
  assert.equal(await textOf(storage, "a"), "a");
  assert.deepEqual(await keysOf(storage, ""), keys);
  assert.deepEqual(await keysOf(storage, "", { startAfter: "c" }), ["d", "e", "f", "g"]);
  assert.deepEqual(keystone.logins, [{ auth: { identity: { methods: ["password"] } } }]);
  assert.equal(keystone.requests[0], "PUT /v1/AUTH_one_public/c/p/a");
});

test("the region and the kind of endpoint choose the store", async () => {
  await using keystone = await FakeKeystone.start();
  const settings = { region: "two", endpointType: "internal" };
  await using storage = await open(keystoneConfig(keystone, settings));
  await storage.put("a", text("x"), { signal, ifAbsent: true });
  assert.deepEqual(keystone.requests, ["PUT /v1/AUTH_two_internal/c/p/a"]);
  await using elsewhere = await open(keystoneConfig(keystone, { region: "three" }));
  await assert.rejects(elsewhere.stat("a", { signal }), {
    name: "StorageError",
    message: /^http:.*\/identity\/v3 names no object store in region three \(public\)$/,
  });
  await using told = await open(keystoneConfig(keystone, { storageUrl: `${keystone.url}/v1/me/` }));
  await told.put("a", text("x"), { signal, ifAbsent: true });
  assert.equal(keystone.requests.at(-1), "PUT /v1/me/c/p/a");
});

test("a token that the store refuses is replaced by a new one, once", async () => {
  await using keystone = await FakeKeystone.start();
  await using storage = await open(keystoneConfig(keystone));
  await storage.put("a", text("x"), { signal, ifAbsent: true });
  keystone.expireTokens();
  assert.equal(await textOf(storage, "a"), "x");
  assert.equal(keystone.logins.length, 2);

  keystone.expireTokens();
  keystone.loginAnswer = { status: 401, body: '{"error":{"message":"The password expired."}}' };
  await assert.rejects(textOf(storage, "a"), {
    name: "StorageAccessError",
    message: /\/identity\/v3 refuses the credentials for swift:\/\/c: 401: The password expired$/,
  });
});

test("a token is renewed before it ends", async () => {
  await using keystone = await FakeKeystone.start();
  keystone.tokenLifeMs = 0;
  await using storage = await open(keystoneConfig(keystone));
  await storage.put("a", text("x"), { signal, ifAbsent: true });
  keystone.tokenLifeMs = 3_600_000;
  assert.equal(await textOf(storage, "a"), "x");
  assert.equal(keystone.logins.length, 2);
  assert.equal(keystone.requests.length, 2, "no request was refused");
});

test("an identity service that is busy is asked again", async () => {
  await using keystone = await FakeKeystone.start();
  await using proxy = await FaultProxy.start(keystone.url);
  proxy.rule = ({ number }) => (number <= 2 ? { answer: { status: 503 } } : undefined);
  const login = { kind: "v3", url: `${proxy.endpoint}/identity/v3`, body: {} } as const;
  await using storage = await open(keystoneConfig(keystone, { login }));
  await storage.put("a", text("x"), { signal, ifAbsent: true });
  assert.equal(proxy.requests.length, 3);
});

test("a token from elsewhere can't be renewed, and says so", async () => {
  await using keystone = await FakeKeystone.start();
  const login = { kind: "token", token: "geheim" } as const;
  const storageUrl = `${keystone.url}/v1/me`;
  await using storage = await open(keystoneConfig(keystone, { login, storageUrl }));
  await assert.rejects(storage.stat("a", { signal }), (error: Error) => {
    assert.equal(error.name, "StorageAccessError");
    assert.equal(error.message, "cannot stat p/a in swift://c: 401");
    assert.match("hint" in error ? String(error.hint) : "", /^OS_AUTH_TOKEN has expired/);
    assert.ok(!JSON.stringify(error).includes("geheim"));
    return true;
  });
  assert.equal(keystone.requests.length, 1);
});

test("an identity service that never answers ends in time", async () => {
  await using keystone = await FakeKeystone.start();
  await using proxy = await FaultProxy.start(keystone.url);
  proxy.rule = () => ({ hang: true });
  const login = { kind: "v3", url: `${proxy.endpoint}/identity/v3`, body: {} } as const;
  const limits = { requestTimeoutMs: 100, callTimeoutMs: 500 };
  await using storage = await open(keystoneConfig(keystone, { login }), limits);
  await assert.rejects(storage.stat("a", { signal }), { name: "DeadlineError" });
});

const isObject = (verb: string) => (method: string, url: string) =>
  method === verb && url.includes("/faults");
const isManifest = (method: string, url: string) =>
  method === "PUT" && url.includes("multipart-manifest");

function describeFaults(): void {
  let started: Promise<S3Server> | undefined;
  let count = 0;
  after(async () => (await started)?.stop());

  const faultTest = (
    title: string,
    body: (storage: Storage, proxy: FaultProxy) => Promise<void>,
    options: Partial<OpenOptions> = {},
  ) => {
    test(`swift: ${title}`, async () => {
      const server = await (started ??= startS3Server("swift"));
      await using proxy = await FaultProxy.start(server.endpoint);
      const config = swiftConfig({ ...server, endpoint: proxy.endpoint });
      const prefix = `faults ${count++}`;
      const settings = { prefix, maxPartBytes: 5 * MIB };
      await using storage = await open({ ...config, ...settings }, options);
      await body(storage, proxy);
    });
  };

  faultTest("resets and 503 in the middle of bodies, then stored", async (storage, proxy) => {
    proxy.rule = first(2, isObject("PUT"), { resetAfterBytes: MIB });
    await storage.put("a", patternSource(12 * MIB), { signal });
    proxy.rule = first(2, isObject("PUT"), { answer: { status: 503 } });
    await storage.put("b", text("b"), { signal, ifAbsent: true });
    proxy.rule = () => undefined;
    await assertStored(storage, "a", 12 * MIB);
    assert.deepEqual(await keysOf(storage, ""), ["a", "b"]);
  });

  faultTest(
    "a manifest whose answer was lost is stored, also create-only",
    async (storage, proxy) => {
      proxy.rule = first(1, isManifest, { loseAnswer: true });
      await storage.put("a", patternSource(12 * MIB), { signal, ifAbsent: true });
      assert.equal((await storage.stat("a", { signal })).sizeBytes, 12 * MIB);
    },
  );

  faultTest("a get that is cut is continued byte for byte", async (storage, proxy) => {
    await storage.put("a", patternSource(9 * MIB), { signal });
    proxy.rule = first(4, isObject("GET"), { truncateAfterBytes: 1_500_000 });
    assert.ok((await readAll(storage.get("a", { signal }))).equals(patternBytes(9 * MIB)));
  });

  faultTest("a page that says 200 is no object", assertPagesAreNoObjects);

  faultTest("bytes that changed on their way are noticed", async (storage, proxy) => {
    await assertChangesAreNoticed(storage, proxy, "MD5");
  });

  faultTest(
    "segments without a manifest are told and removed; those of objects never",
    async (storage, proxy) => {
      await storage.put("a", patternSource(12 * MIB), { signal });
      const isDelete = isObject("DELETE");
      proxy.rule = ({ method, url }) =>
        isManifest(method, url) || isDelete(method, url) ? { answer: { status: 500 } } : undefined;
      await assert.rejects(storage.put("b", patternSource(12 * MIB), { signal }), /gave up after/);
      proxy.rule = () => undefined;
      assert.deepEqual(await keysOf(storage, ""), ["a"]);

      const { upkeep } = storage;
      assert.ok(upkeep !== undefined);
      const found = await Array.fromAsync(upkeep.listUnfinished("", { signal }));
      assert.deepEqual(
        found.map(({ key }) => key),
        ["b"],
      );
      for (const put of found) await upkeep.removeUnfinished(put, { signal });
      assert.deepEqual(await Array.fromAsync(upkeep.listUnfinished("", { signal })), []);
      assert.equal((await sha256(storage.get("a", { signal }))).length, 64);

      // What an object is made of goes when it is replaced, or deleted.
      const deleted = () => proxy.requests.filter(({ method }) => method === "DELETE").length;
      const before = deleted();
      await storage.put("a", text("small"), { signal });
      assert.equal(deleted() - before, 3);
      await storage.put("a", patternSource(12 * MIB), { signal });
      await storage.delete(["a"], { signal });
      assert.equal(deleted() - before, 3 + 4);
    },
  );

  faultTest(
    "a store that takes requests and never answers ends in time",
    async (storage, proxy) => {
      proxy.rule = ({ url }) => (url.includes("/v1/AUTH") ? { hang: true } : undefined);
      const calls = [
        () => storage.put("a", text("x"), { signal, ifAbsent: true }),
        () => textOf(storage, "a"),
        () => keysOf(storage, ""),
        () => storage.delete(["a"], { signal }),
      ];
      for (const call of calls) await assert.rejects(call(), { name: "DeadlineError" });
    },
    { requestTimeoutMs: 50, callTimeoutMs: 150 },
  );

  test("swift: a container that is missing is an error, never an empty store", async () => {
    const server = await (started ??= startS3Server("swift"));
    await using storage = await open(swiftConfig(server, { container: "nothing", prefix: "p" }));
    const message = /^the container of swift:\/\/nothing does not exist$/;
    const calls = [
      () => storage.put("a", text("x"), { signal }),
      () => textOf(storage, "a"),
      () => storage.stat("a", { signal }),
      () => keysOf(storage, ""),
    ];
    for (const call of calls) await assert.rejects(call(), { name: "StorageError", message });
  });

  test("swift: a wrong key is a refusal, tried once", async () => {
    const server = await (started ??= startS3Server("swift"));
    await using proxy = await FaultProxy.start(server.endpoint);
    const login = {
      kind: "v1",
      url: `${proxy.endpoint}/auth/v1.0`,
      user: "test:tester",
      key: "no",
    } as const;
    await using storage = await open(swiftConfig(server, { login }));
    await assert.rejects(storage.stat("a", { signal }), {
      name: "StorageAccessError",
      message: /\/auth\/v1\.0 refuses the credentials for swift:\/\/walnut-test: 401/,
    });
    assert.equal(proxy.requests.length, 1);
  });
}

if ((await availableS3Servers()).includes("swift")) describeFaults();
else leaveOut("Swift store's faults", "Debian's python3-swift is not installed");
