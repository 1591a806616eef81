import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import type { RetryPolicy } from "../../src/io/retry.ts";
import type { GcsConfig } from "../../src/storage/gcs-config.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { OpenOptions } from "../../src/storage/open.ts";
import { patternSource, sha256 } from "../support/bodies.ts";
import { FaultProxy, TcpFaultProxy, first } from "../support/fault-proxy.ts";
import { GcsEmulation, errorJson, gcsConfig } from "../support/gcs-emulation.ts";
import {
  assertBusyIsRepeated,
  assertDeafnessEnds,
  assertGetGoesOn,
  assertLostAnswerIsOurs,
  assertResetsAreRepeated,
  assertRunLosesNothing,
  assertSilenceEnds,
  assertStored,
} from "./contract-faults.ts";
import {
  assertChangesAreNoticed,
  assertPagesAreNoObjects,
  keysOf,
  text,
  textOf,
} from "./contract-lists.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const policy: RetryPolicy = { attempts: 12, baseMs: 1, capMs: 5, totalMs: 60_000 };
const common = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 3, retryPolicy: policy };

let started: Promise<GcsEmulation> | undefined;
let count = 0;
after(async () => await (await started)?.[Symbol.asyncDispose]());

type Opening = Partial<OpenOptions> & { readonly config?: Partial<GcsConfig> };

/** A storage of its own for each test, behind a proxy that breaks requests. */
function faultTest(
  title: string,
  body: (parts: {
    readonly proxy: FaultProxy;
    readonly server: GcsEmulation;
    readonly open: (options?: Opening) => ReturnType<typeof openStorage>;
  }) => Promise<void>,
): void {
  test(`gcs: ${title}`, async () => {
    const server = await (started ??= GcsEmulation.start());
    await using proxy = await FaultProxy.start(server.endpoint);
    const { endpoint } = proxy;
    const prefix = `faults ${count++}`;
    const open = async ({ config = {}, ...options }: Opening = {}) => {
      const settings = { prefix, chunkBytes: 4 * MIB, ...config };
      return await openStorage(gcsConfig({ bucket: server.bucket, endpoint }, settings), {
        ...common,
        ...options,
      });
    };
    await body({ proxy, server, open });
  });
}

const isInsert = (method: string, url: string) => method === "POST" && url.includes("=multipart");
const isBegin = (method: string, url: string) => method === "POST" && url.includes("=resumable");
const isChunk = (method: string) => method === "PUT";
const isUpload = (method: string) => method !== "GET";
const isList = (_: string, url: string) => url.includes("maxResults");
const isGet = (method: string, url: string) => method === "GET" && url.includes("alt=media");
const busy = {
  answer: { status: 503, body: errorJson(503, "backendError", "Backend Error") },
};

faultTest(
  "a name that was changed on its way is no success, and nothing stays there",
  async ({ proxy, server, open }) => {
    const storage = await open();
    const before = server.objects.size;
    // Behind the first part's boundary, its header and `{"name":"`.
    proxy.rule = first(1, isInsert, { corruptRequestByte: 95 });
    await storage.put("a", patternSource(1000), { signal, ifAbsent: true });
    assert.equal(proxy.requests.filter(({ method }) => method === "POST").length, 2);
    assert.deepEqual(await keysOf(storage, ""), ["a"]);
    assert.equal(server.objects.size, before + 1);
  },
);

faultTest(
  "a name that was changed in the answer takes nobody's object",
  async ({ proxy, open }) => {
    const storage = await open();
    await storage.put("`", patternSource(10), { signal });
    const told = '{"kind":"storage#object","name":"faults 1/';
    // "a", behind a prefix whose number has one digit, becomes "`".
    proxy.rule = first(1, isInsert, { corruptByte: told.length });
    await storage.put("a", patternSource(1000), { signal });
    assert.deepEqual(
      proxy.requests.map(({ method }) => method),
      ["POST", "POST", "DELETE", "POST"],
    );
    assert.deepEqual(await keysOf(storage, ""), ["`", "a"]);
  },
);

faultTest("503 twice, then stored", async ({ proxy, open }) => {
  const parts = { storage: await open(), proxy };
  await assertBusyIsRepeated(parts, { matches: isInsert, busy, method: "POST" });
});

faultTest("connections reset in the middle of bodies, then stored", async ({ proxy, open }) => {
  const parts = { storage: await open(), proxy };
  const sizes = [3 * MIB, 13 * MIB];
  await assertResetsAreRepeated(parts, { matches: isUpload, times: 3, sizes });
});

faultTest("a lost answer to a create-only put: the object is ours", async ({ proxy, open }) => {
  await assertLostAnswerIsOurs({ storage: await open(), proxy }, isInsert);
});

faultTest("lost answers to every step of an upload in chunks (P22)", async ({ proxy, open }) => {
  const storage = await open({ config: { chunkBytes: MIB } });
  for (const sizeBytes of [3 * MIB, 3 * MIB + 100_000, 3 * MIB + 600_000]) {
    for (const lost of [0, 1, 2, 3, 4]) {
      const key = `answer ${lost} of ${sizeBytes}`;
      let seen = -1;
      proxy.rule = ({ method, url }) => {
        if (!isBegin(method, url) && !isChunk(method)) return undefined;
        seen++;
        return seen === lost ? { loseAnswer: true } : undefined;
      };
      await storage.put(key, patternSource(sizeBytes), { signal, ifAbsent: true });
      await assertStored(storage, key, sizeBytes);
    }
  }
});

faultTest("a get that is cut many times is continued byte for byte", async ({ proxy, open }) => {
  const ranges = await assertGetGoesOn({ storage: await open(), proxy }, isGet);
  assert.ok(ranges.every(({ url }) => url.includes("ifGenerationMatch=")));
});

faultTest("bytes that changed on their way are noticed", async ({ proxy, open }) => {
  const storage = await open();
  await assertChangesAreNoticed(storage, proxy, "CRC32C");
});

faultTest("a page that says 200 is no object", async ({ proxy, open }) => {
  await assertPagesAreNoObjects(await open(), proxy);
});

faultTest("an endpoint that never answers ends in time", async ({ proxy, open }) => {
  const storage = await open({ requestTimeoutMs: 200, callTimeoutMs: 1000 });
  const large = () => storage.put("a", patternSource(9 * MIB), { signal });
  await assertSilenceEnds({ storage, proxy }, [large]);
});

faultTest("30 % failures on a run of 60 objects lose none", async ({ proxy, open }) => {
  const body = errorJson(403, "rateLimitExceeded", "Slow down");
  const limited = { answer: { status: 403, body } };
  await assertRunLosesNothing({ storage: await open(), proxy }, 60, (dice) => {
    if (dice < 15) return busy;
    return dice < 30 ? limited : undefined;
  });
});

faultTest("a list that was cut, or is none, is no empty bucket", async ({ proxy, open }) => {
  const storage = await open();
  await storage.put("a", text("x"), { signal });
  const login = { answer: { status: 200, body: "<html>Please log in</html>" } };
  const other = { answer: { status: 200, body: "{}" } };
  for (const fault of [{ truncateAfterBytes: 60 }, login, other]) {
    proxy.rule = first(2, isList, fault);
    assert.deepEqual(await keysOf(storage, ""), ["a"]);
  }
});

faultTest("a 404 proves a missing object only if the bucket answers", async ({ proxy, open }) => {
  const storage = await open();
  proxy.rule = () => ({ answer: { status: 404, body: "<html>no such page</html>" } });
  for (const call of [() => storage.stat("a", { signal }), () => textOf(storage, "a")]) {
    await assert.rejects(call(), { name: "StorageError", hint: /endpoint/ });
  }
  const nowhere = await open({ config: { bucket: "nowhere" } });
  proxy.rule = () => undefined;
  for (const call of [
    () => nowhere.stat("a", { signal }),
    () => textOf(nowhere, "a"),
    () => keysOf(nowhere, ""),
    () => nowhere.put("a", text("x"), { signal }),
  ]) {
    await assert.rejects(call(), { name: "StorageError", message: /bucket does not exist/ });
  }
});

faultTest("a refusal names the permission that is missing", async ({ proxy, open }) => {
  const storage = await open();
  const message =
    "a@b.iam does not have storage.objects.create access to the Google Cloud Storage object. " +
    "Permission 'storage.objects.create' denied on resource (or it may not exist).";
  proxy.rule = () => ({ answer: { status: 403, body: errorJson(403, "forbidden", message) } });
  await assert.rejects(storage.put("a", text("x"), { signal }), {
    name: "StorageAccessError",
    hint: /^The permission storage\.objects\.create is missing\. The role "Storage Object User"/,
  });
  assert.equal(proxy.requests.length, 1, "never repeated");
});

test("gcs: a bucket whose objects are protected needs only the right to create (P22)", async () => {
  await using server = await GcsEmulation.start({ isRetained: true, storedChunkBytes: 3 * MIB });
  await using proxy = await FaultProxy.start(server.endpoint);
  const target = { endpoint: proxy.endpoint, bucket: server.bucket };
  const storage = await openStorage(gcsConfig(target, { chunkBytes: 4 * MIB }), common);
  await storage.put("small", text("x"), { signal });
  await storage.put("large", patternSource(18 * MIB + 7), { signal });
  const stored = await sha256(storage.get("large", { signal }));
  assert.equal(stored, await sha256(patternSource(18 * MIB + 7).open()), "chunks stored by halves");
  proxy.rule = first(1, isInsert, { loseAnswer: true });
  await storage.put("lost", text("the answer was lost"), { signal });
  assert.deepEqual(await keysOf(storage, ""), ["large", "lost", "small"]);
  assert.equal(server.count("delete"), 0);
  await assert.rejects(storage.put("small", text("y"), { signal }), {
    name: "StorageAccessError",
    hint: /retention policy/,
  });
});

test("gcs: a failed upload is cancelled, and another server's 404 is understood", async () => {
  await using server = await GcsEmulation.start({ hasPlain404: true });
  const storage = await openStorage(gcsConfig(server, { chunkBytes: 4 * MIB }), common);
  await assert.rejects(textOf(storage, "a"), { name: "ObjectNotFoundError" });
  await assert.rejects(storage.stat("a", { signal }), { name: "ObjectNotFoundError" });
  await storage.delete(["a"], { signal });
  const source = {
    isReopenable: false,
    async *open() {
      yield* patternSource(9 * MIB).open();
      throw new Error("gone");
    },
  };
  await assert.rejects(storage.put("a", source, { signal }), /gone/);
  assert.equal(server.sessions.size, 0);
  assert.equal(server.objects.size, 0);
});

test("gcs: objects of a customer's key are read with it only", async () => {
  await using server = await GcsEmulation.start();
  const encryptionKey = randomBytes(32).toString("base64");
  const config = gcsConfig(server, { chunkBytes: 4 * MIB });
  const storage = await openStorage({ ...config, encryptionKey }, common);
  await storage.put("a", text("secret"), { signal });
  await storage.put("b", patternSource(9 * MIB), { signal });
  assert.equal(await textOf(storage, "a"), "secret");
  await assertStored(storage, "b", 9 * MIB);
  const keyless = await openStorage(config, common);
  await assert.rejects(textOf(keyless, "a"), {
    name: "StorageError",
    hint: /GCS_ENCRYPTION_KEY/,
  });
});

test("gcs: an endpoint that takes connections and never reads ends in time", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isDeaf: true };
  const endpoint = `http://127.0.0.1:${proxy.port}`;
  const options = { ...common, requestTimeoutMs: 300, callTimeoutMs: 1500 };
  const storage = await openStorage(gcsConfig({ bucket: "b", endpoint }), options);
  await assertDeafnessEnds(storage, [6 * MIB, 40 * MIB]);
});
