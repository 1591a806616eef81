import assert from "node:assert/strict";
import { after, test } from "node:test";
import { readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import type { RetryPolicy } from "../../src/io/retry.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { OpenOptions } from "../../src/storage/open.ts";
import { patternBytes, patternSource } from "../support/bodies.ts";
import { FaultProxy, TcpFaultProxy, first } from "../support/fault-proxy.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation, errorDocument } from "../support/s3-emulation.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import {
  assertBusyIsRepeated,
  assertDeafnessEnds,
  assertGetGoesOn,
  assertResetsAreRepeated,
  assertRunLosesNothing,
  assertSilenceEnds,
  assertStored,
} from "./contract-faults.ts";
import { assertPagesAreNoObjects, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const policy: RetryPolicy = { attempts: 12, baseMs: 1, capMs: 5, totalMs: 60_000 };

interface Target {
  readonly endpoint: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

const available = await availableS3Servers();
const preferred = (["versitygw", "moto", "swift"] as const).filter((kind) =>
  available.includes(kind),
);
const isLong = process.env["WALNUT_LONG"] !== undefined;

/** The emulation is always there; of the real servers one, or all in a long run. */
const starts: Readonly<Record<string, () => Promise<Target & AsyncDisposable>>> = {
  emulation: () => S3Emulation.start(),
  ...Object.fromEntries(
    preferred.slice(0, isLong ? 3 : 1).map((kind) => [kind, () => startS3Server(kind)]),
  ),
};

let count = 0;

async function open(target: Target, endpoint: string, options: Partial<OpenOptions> = {}) {
  const config = s3Config({ ...target, endpoint }, { prefix: `faults ${count++}` });
  return await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 3,
    retryPolicy: policy,
    ...options,
  });
}

const isPut = (method: string) => method === "PUT";
const isGet = (method: string, url: string) => method === "GET" && !url.includes("list-type");
const isCompletion = (method: string, url: string) => method === "POST" && url.includes("uploadId");
const slowDown = {
  answer: { status: 503, body: errorDocument("SlowDown", "Reduce your request rate.") },
};

for (const [name, start] of Object.entries(starts)) {
  let started: Promise<Target & AsyncDisposable> | undefined;
  after(async () => (await started)?.[Symbol.asyncDispose]());

  const faultTest = (title: string, body: (proxy: FaultProxy, target: Target) => Promise<void>) => {
    test(`${name}: ${title}`, async () => {
      const target = await (started ??= start());
      await using proxy = await FaultProxy.start(target.endpoint);
      await body(proxy, target);
    });
  };

  faultTest("503 twice, then stored", async (proxy, target) => {
    const storage = await open(target, proxy.endpoint);
    const what = { matches: isPut, busy: slowDown, method: "PUT" };
    await assertBusyIsRepeated({ storage, proxy }, what);
  });

  faultTest("connections reset in the middle of bodies, then stored", async (proxy, target) => {
    const storage = await open(target, proxy.endpoint);
    const sizes = [3 * MIB, 45 * MIB];
    await assertResetsAreRepeated({ storage, proxy }, { matches: isPut, times: 3, sizes });
  });

  faultTest(
    "an answer that is lost after a create-only put: the object is ours",
    async (proxy, target) => {
      const storage = await open(target, proxy.endpoint);
      proxy.rule = first(1, isPut, { loseAnswer: true });
      const put = storage.put("a", text("mine"), { signal, ifAbsent: true });
      // Swift refuses the condition, so the first PUT stored nothing and its repetition is the
      // first.
      if (name === "swift") await put;
      else await assert.rejects(put, { name: "ObjectExistsError" });
      assert.equal(await textOf(storage, "a"), "mine");
    },
  );

  faultTest("lost answers to every step of an upload in parts", async (proxy, target) => {
    const storage = await open(target, proxy.endpoint);
    for (const step of ["uploads", "partNumber=2", "uploadId"]) {
      const matches = (method: string, url: string) =>
        method !== "GET" && url.includes(step) && (step !== "uploadId" || method === "POST");
      proxy.rule = first(1, matches, { loseAnswer: true });
      await storage.put(`lost ${step}`, patternSource(45 * MIB), { signal });
      await assertStored(storage, `lost ${step}`, 45 * MIB);
    }
  });

  faultTest("a get that is cut many times is continued byte for byte", async (proxy, target) => {
    await assertGetGoesOn({ storage: await open(target, proxy.endpoint), proxy }, isGet);
  });

  faultTest("a small object that came changed is read again", async (proxy, target) => {
    const storage = await open(target, proxy.endpoint);
    await storage.put("a", patternSource(100_000), { signal });
    proxy.requests.length = 0;
    proxy.rule = first(1, isGet, { corruptByte: 50_000 });
    const received = await readAll(storage.get("a", { signal }));
    assert.ok(received.equals(patternBytes(100_000)));
    assert.equal(proxy.requests.length, 2);
  });

  faultTest(
    "one that comes changed in the same way is so in the store, or its ETag is no sum",
    async (proxy, target) => {
      const storage = await open(target, proxy.endpoint);
      await storage.put("a", patternSource(100_000), { signal });
      proxy.requests.length = 0;
      proxy.rule = () => ({ corruptByte: 50_000 });
      const received = await readAll(storage.get("a", { signal }));
      assert.equal(proxy.requests.length, 2);
      assert.ok((await readAll(storage.get("a", { signal }))).equals(received));
      assert.equal(proxy.requests.length, 3, "asked twice once only");
      assert.ok(!received.equals(patternBytes(100_000)), "its reader sees it");
    },
  );

  faultTest("a line that always changes something is named", async (proxy, target) => {
    const storage = await open(target, proxy.endpoint, {
      retryPolicy: { ...policy, attempts: 2 },
    });
    await storage.put("a", patternSource(100_000), { signal });
    let position = 0;
    proxy.rule = () => ({ corruptByte: position++ });
    await assert.rejects(readAll(storage.get("a", { signal })), {
      message: /object .* came back changed 4 times \(gave up after 2 attempts/,
      hint: /use https/,
    });
  });

  faultTest(
    "a large one passes with a wrong bit: its content is checked upstairs",
    async (proxy, target) => {
      const storage = await open(target, proxy.endpoint);
      await storage.put("a", patternSource(2 * MIB), { signal });
      proxy.rule = first(1, isGet, { corruptByte: 50_000 });
      const received = await readAll(storage.get("a", { signal }));
      assert.equal(received.length, 2 * MIB);
      assert.ok(!received.equals(patternBytes(2 * MIB)));
    },
  );

  faultTest(
    "an endpoint that takes requests and never answers ends in time",
    async (proxy, target) => {
      const storage = await open(target, proxy.endpoint, {
        requestTimeoutMs: 200,
        callTimeoutMs: 1000,
      });
      await assertSilenceEnds({ storage, proxy });
    },
  );

  faultTest("once a stalled endpoint recovers, the same put succeeds", async (proxy, target) => {
    const storage = await open(target, proxy.endpoint, { requestTimeoutMs: 2000 });
    proxy.rule = first(2, isPut, { hang: true });
    await storage.put("a", text("x"), { signal, ifAbsent: true });
    assert.equal(await textOf(storage, "a"), "x");
  });

  faultTest("30 % SlowDown on a run of 100 objects loses none", async (proxy, target) => {
    const storage = await open(target, proxy.endpoint);
    await assertRunLosesNothing({ storage, proxy }, 100, (dice) =>
      dice < 30 ? slowDown : undefined,
    );
    const answered = proxy.requests.length;
    assert.ok(answered > 240, `${answered} requests for 202 calls`);
  });

  faultTest("a page that says 200 is no object", async (proxy, target) => {
    await assertPagesAreNoObjects(await open(target, proxy.endpoint), proxy);
  });

  faultTest(
    "a completion that says 200 with an error in it is no success",
    async (proxy, target) => {
      const storage = await open(target, proxy.endpoint);
      const answer = {
        status: 200,
        body: errorDocument("InternalError", "We encountered an internal error."),
      };
      proxy.rule = first(1, isCompletion, { answer });
      await storage.put("once", patternSource(21 * MIB), { signal });
      assert.equal((await storage.stat("once", { signal })).sizeBytes, 21 * MIB);

      proxy.rule = first(1000, isCompletion, { answer });
      await assert.rejects(storage.put("ever", patternSource(21 * MIB), { signal }), {
        name: "StorageError",
        message: /InternalError.*gave up after 12 attempts/,
      });
      await assert.rejects(storage.stat("ever", { signal }), { name: "ObjectNotFoundError" });
    },
  );
}

test("an endpoint that takes connections and never reads ends in time", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isDeaf: true };
  const target = { bucket: "b", accessKeyId: "a", secretAccessKey: "s", endpoint: "" };
  const options = { requestTimeoutMs: 300, callTimeoutMs: 1500, clock: systemClock };
  const storage = await open(target, `http://127.0.0.1:${proxy.port}`, options);
  await assertDeafnessEnds(storage, [60 * MIB, 16 * MIB]);
});
