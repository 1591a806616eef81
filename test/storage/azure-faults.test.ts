import assert from "node:assert/strict";
import { after, test } from "node:test";
import { StorageAccessError } from "../../src/errors.ts";
import { readAll } from "../../src/io/bytes.ts";
import type { RetryPolicy } from "../../src/io/retry.ts";
import type { AzureConfig } from "../../src/storage/azure-config.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { OpenOptions } from "../../src/storage/open.ts";
import { azureConfig, makeSas, startAzurite } from "../support/azurite.ts";
import type { Azurite } from "../support/azurite.ts";
import { patternBytes, patternSource } from "../support/bodies.ts";
import { FaultProxy, TcpFaultProxy, first } from "../support/fault-proxy.ts";
import {
  assertAllIsProxied,
  assertBusyIsRepeated,
  assertDeafnessEnds,
  assertGetGoesOn,
  assertLostAnswerIsOurs,
  assertResetsAreRepeated,
  assertRunLosesNothing,
  assertSilenceEnds,
  assertStored,
  farAway,
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

let started: Promise<Azurite> | undefined;
let count = 0;
after(async () => (await started)?.stop());

type Opening = Partial<OpenOptions> & { readonly config?: Partial<AzureConfig> };

/** A storage of its own for each test, behind a proxy that breaks requests. */
function faultTest(
  title: string,
  body: (parts: {
    readonly proxy: FaultProxy;
    readonly azurite: Azurite;
    readonly open: (options?: Opening) => ReturnType<typeof openStorage>;
  }) => Promise<void>,
): void {
  test(`azurite: ${title}`, async () => {
    const azurite = await (started ??= startAzurite());
    await using proxy = await FaultProxy.start(new URL(azurite.endpoint).origin);
    const endpoint = azurite.endpoint.replace(/^http:\/\/[^/]*/, proxy.endpoint);
    const prefix = `faults ${count++}`;
    const open = async ({ config = {}, ...options }: Opening = {}) =>
      await openStorage(azureConfig({ ...azurite, endpoint }, { prefix, ...config }), {
        signal,
        requestTimeoutMs: 20_000,
        uploadConcurrency: 3,
        retryPolicy: policy,
        ...options,
      });
    await body({ proxy, azurite, open });
  });
}

const isPut = (method: string) => method === "PUT";
const isGet = (method: string, url: string) => method === "GET" && !url.includes("comp=");
const isCommit = (method: string, url: string) => method === "PUT" && url.includes("blocklist");
const isList = (_: string, url: string) => url.includes("comp=list");
const busy = { answer: { status: 503, headers: { "x-ms-error-code": "ServerBusy" } } };

faultTest("503 twice, then stored", async ({ proxy, open }) => {
  const parts = { storage: await open(), proxy };
  await assertBusyIsRepeated(parts, { matches: isPut, busy, method: "PUT" });
});

faultTest("connections reset in the middle of bodies, then stored", async ({ proxy, open }) => {
  const parts = { storage: await open(), proxy };
  const sizes = [3 * MIB, 20 * MIB];
  await assertResetsAreRepeated(parts, { matches: isPut, times: 2, sizes });
});

faultTest("a lost answer to a create-only put: the object is ours", async ({ proxy, open }) => {
  await assertLostAnswerIsOurs({ storage: await open(), proxy }, isPut);
});

faultTest("lost answers to every step of an upload in blocks", async ({ proxy, open }) => {
  const storage = await open();
  for (const ifAbsent of [false, true]) {
    for (const step of ["comp=block&", "comp=blocklist"]) {
      const key = `lost ${step} ${ifAbsent}`;
      const isStep = (method: string, url: string) => method === "PUT" && url.includes(step);
      proxy.rule = first(1, isStep, { loseAnswer: true });
      await storage.put(key, patternSource(20 * MIB), { signal, ifAbsent });
      await assertStored(storage, key, 20 * MIB);
    }
  }
});

faultTest("whoever stores the same key first takes our blocks away", async (parts) => {
  const { proxy, open } = parts;
  const storage = await open();
  // Azurite keeps them; Azure does not.
  const gone = { answer: { status: 400, headers: { "x-ms-error-code": "InvalidBlockList" } } };
  proxy.rule = first(2, isCommit, gone);
  const put = storage.put("stolen", patternSource(20 * MIB), { signal });
  await assert.rejects(put, { name: "StorageError", hint: /Another writer/ });
  const source = {
    isReopenable: false,
    async *open() {
      yield* patternSource(20 * MIB).open();
      await storage.put("stolen", text("theirs"), { signal });
    },
  };
  const creation = storage.put("stolen", source, { signal, ifAbsent: true });
  await assert.rejects(creation, { name: "ObjectExistsError" });
  assert.equal(await textOf(storage, "stolen"), "theirs");
});

faultTest("Microsoft's client reads what we wrote, and we what it wrote", async (parts) => {
  const { azurite, open } = parts;
  const storage = await open({ config: { prefix: "" } });
  await storage.put("interop/ours é", patternSource(20 * MIB), { signal });
  const theirs = await azurite.client.getBlobClient("interop/ours é").downloadToBuffer();
  assert.ok(theirs.equals(patternBytes(20 * MIB)));
  const blob = azurite.client.getBlockBlobClient("interop/theirs + é");
  await blob.uploadData(patternBytes(3 * MIB), { maxSingleShotSize: MIB, blockSize: MIB });
  const ours = await readAll(storage.get("interop/theirs + é", { signal }));
  assert.ok(ours.equals(patternBytes(3 * MIB)));
});

faultTest("a get that is cut many times is continued byte for byte", async ({ proxy, open }) => {
  const ranges = await assertGetGoesOn({ storage: await open(), proxy }, isGet);
  assert.ok(ranges.every(({ headers }) => headers["if-match"] !== undefined));
});

faultTest("bytes that changed on their way are noticed, both ways", async ({ proxy, open }) => {
  const storage = await open();
  await assertChangesAreNoticed(storage, proxy, "MD5");
  assert.ok(
    proxy.requests.every(({ method, headers }) => method !== "PUT" || "content-md5" in headers),
  );
});

faultTest("a page that says 200 is no object", async ({ proxy, open }) => {
  await assertPagesAreNoObjects(await open(), proxy);
});

faultTest("an endpoint that never answers ends in time", async ({ proxy, open }) => {
  const storage = await open({ requestTimeoutMs: 200, callTimeoutMs: 1000 });
  await assertSilenceEnds({ storage, proxy });
});

faultTest("30 % ServerBusy on a run of 60 objects loses none", async ({ proxy, open }) => {
  const parts = { storage: await open(), proxy };
  await assertRunLosesNothing(parts, 60, (dice) => (dice < 30 ? busy : undefined));
});

faultTest("a list that was cut, or is none, is no empty container", async ({ proxy, open }) => {
  const storage = await open();
  await storage.put("a", text("x"), { signal });
  const login = { answer: { status: 200, body: "<html>Please log in</html>" } };
  for (const fault of [{ truncateAfterBytes: 200 }, login]) {
    proxy.rule = first(2, isList, fault);
    assert.deepEqual(await keysOf(storage, ""), ["a"]);
  }
  proxy.rule = first(1, () => true, { answer: { status: 404, body: "no such page" } });
  await assert.rejects(storage.stat("a", { signal }), {
    name: "StorageError",
    hint: /AZURE_ENDPOINT_SUFFIX/,
  });
});

faultTest("an expired SAS is named, and a new one taken up (P23)", async ({ azurite }) => {
  const expired = makeSas(azurite.container, { expiresOn: new Date(Date.now() - 60_000) });
  const valid = makeSas(azurite.container, { expiresOn: new Date(Date.now() + 600_000) });
  const { accessKey: _, ...keyless } = azureConfig(azurite);
  const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 3, retryPolicy: policy };
  const fixed = await openStorage({ ...keyless, sasToken: `?${expired}` }, options);
  await assert.rejects(fixed.put("sas/a", text("x"), { signal }), {
    name: "StorageAccessError",
    hint: /^The SAS token expired at 20.*Set a new one in AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING\.$/,
  });

  let current = expired;
  let readCount = 0;
  const rereadSasToken = async () => {
    readCount++;
    return current;
  };
  const renewed = await openStorage({ ...keyless, sasToken: expired, rereadSasToken }, options);
  await assert.rejects(renewed.put("sas/a", text("x"), { signal }), {
    name: "StorageAccessError",
    hint: /taken up without a restart/,
  });
  current = `?${valid}\n`;
  await renewed.put("sas/a", text("with a new one"), { signal });
  assert.equal(await textOf(renewed, "sas/a"), "with a new one");
  assert.deepEqual(await keysOf(renewed, "sas/"), ["sas/a"]);
  await renewed.put("sas/b + ü", patternSource(20 * MIB), { signal });
  await renewed.delete(["sas/a", "sas/b + ü"], { signal });
  assert.ok(readCount < 10, `${readCount} readings`);

  const readOnly = makeSas(azurite.container, {
    expiresOn: new Date(Date.now() + 600_000),
    permissions: "rl",
  });
  const reader = await openStorage({ ...keyless, sasToken: readOnly }, options);
  assert.deepEqual(await keysOf(reader, "sas/"), []);
  await assert.rejects(reader.put("sas/c", text("x"), { signal }), (error) => {
    assert.ok(error instanceof StorageAccessError);
    assert.match(error.hint ?? "", /has the permissions rl; .* needs rcwdl/);
    assert.ok(!`${error.message} ${error.hint}`.includes("sig="));
    return true;
  });
});

faultTest("a wrong key and a missing container are told apart", async ({ azurite, open }) => {
  const wrong = await open({ config: { accessKey: Buffer.from("wrong").toString("base64") } });
  await assert.rejects(textOf(wrong, "a"), {
    name: "StorageAccessError",
    hint: /AZURE_STORAGE_ACCESS_KEY/,
  });
  const nowhere = await open({ config: { container: "nowhere" } });
  for (const call of [
    () => textOf(nowhere, "a"),
    () => nowhere.stat("a", { signal }),
    () => keysOf(nowhere, ""),
    () => nowhere.put("a", text("x"), { signal }),
  ]) {
    await assert.rejects(call(), { name: "StorageError", message: /404 ContainerNotFound/ });
  }
  assert.ok(azurite.container !== "nowhere");
});

test("an endpoint that takes connections and never reads ends in time", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isDeaf: true };
  const target = { container: "c", account: "a", accessKey: "a2V5" };
  const endpoint = `http://127.0.0.1:${proxy.port}/a`;
  const options = { signal, requestTimeoutMs: 300, callTimeoutMs: 1500, uploadConcurrency: 2 };
  const storage = await openStorage(azureConfig({ ...target, endpoint }), options);
  await assertDeafnessEnds(storage, [6 * MIB, 40 * MIB]);
});

test("azurite: all that is sent goes through an HTTP proxy", async () => {
  const azurite = await (started ??= startAzurite());
  const endpoint = farAway(azurite.endpoint);
  await assertAllIsProxied(azureConfig({ ...azurite, endpoint }, { prefix: "proxied" }));
});
