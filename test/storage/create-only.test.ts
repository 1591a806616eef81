import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { isOtherServer } from "../../src/storage/create-only.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { StorageConfig } from "../../src/storage/open.ts";
import { patternSource } from "../support/bodies.ts";
import { GcsEmulation, gcsConfig } from "../support/gcs-emulation.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation, errorDocument } from "../support/s3-emulation.ts";
import type { S3Quirks } from "../support/s3-emulation.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const DAY_MS = 86_400_000;
const PROBE = "pre/fix/main/walnut_005/create-only.json";

/** A host with a cache directory, whose processes open the store one after the other. */
function makeHost(config: StorageConfig, cacheDirectory: string) {
  const warnings: string[] = [];
  let aheadMs = 0;
  return {
    warnings,
    wait: (ms: number) => void (aheadMs += ms),
    open: async () =>
      await openStorage(config, {
        signal,
        folder: "main",
        clock: { ...systemClock, now: () => systemClock.now() + aheadMs },
        log: { ...silentLog, warning: (message) => void warnings.push(message) },
        retryPolicy: { attempts: 2, baseMs: 1, capMs: 1, totalMs: 10_000 },
        createOnly: { cacheDirectory, key: "walnut_005/create-only.json" },
        requestTimeoutMs: 10_000,
        uploadConcurrency: 2,
      }),
  };
}

async function s3Host(quirks: S3Quirks = {}) {
  const server = await S3Emulation.start(quirks);
  const scratch = scratchDirectory();
  const config = s3Config(server, { prefix: "pre/fix", maxPartBytes: 5 * MIB });
  const host = makeHost(config, scratch.path);
  return {
    ...host,
    server,
    cache: scratch.path,
    /** The requests of a process that creates one object. */
    async push(key: string): Promise<readonly string[]> {
      const first = server.requests.length;
      await using storage = await host.open();
      await storage.put(key, text("1"), { signal, ifAbsent: true });
      const seen = server.requests.slice(first);
      return seen.map((one) => `${one.operation} ${one.key === PROBE ? "probe" : "object"}`);
    },
    async [Symbol.asyncDispose]() {
      scratch[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** The look, the look again that proves that the bucket is there, the write. */
const LOOKED_FOR = ["HeadObject object", "GetObject object", "PutObject object"];
const EXISTS = { name: "ObjectExistsError" };

test("a server that obeys costs two requests once, and one where somebody asked before", async () => {
  await using host = await s3Host();
  assert.deepEqual(await host.push("a"), [
    "PutObject probe",
    "PutObject probe",
    "PutObject object",
  ]);
  assert.deepEqual(await host.push("b"), ["PutObject object"]);
  assert.deepEqual(host.warnings, []);
  assert.match(host.server.objects.get(PROBE)?.bytes.toString() ?? "", /^\{"walnut":1,.*\}\n$/);

  await writeFile(join(host.cache, (await readdir(host.cache))[0] ?? ""), "torn{");
  assert.deepEqual(await host.push("c"), ["PutObject probe", "PutObject object"]);
  host.wait(8 * DAY_MS);
  assert.deepEqual(await host.push("d"), ["PutObject probe", "PutObject object"], "after a week");
  host.wait(-9 * DAY_MS);
  assert.deepEqual(await host.push("e"), ["PutObject probe", "PutObject object"], "of the future");
});

test("a server that ignores the condition is looked at before each write, and named once", async () => {
  await using host = await s3Host({ ignoresConditions: true });
  await host.push("a");
  assert.deepEqual(host.warnings, ["the store ignores create-only puts: a second writer replaces"]);
  assert.deepEqual(await host.push("b"), LOOKED_FOR);
  await assert.rejects(host.push("b"), EXISTS);
  assert.equal(host.warnings.length, 1, "a process that knows it says nothing");

  await using storage = await host.open();
  const large = patternSource(6 * MIB);
  await assert.rejects(storage.put("b", large, { signal, ifAbsent: true }), EXISTS);
  assert.equal(await textOf(storage, "b"), "1");
  await storage.put("b", text("2"), { signal });
  assert.equal(await textOf(storage, "b"), "2", "what may replace does");
});

test("an upload in parts looks again before it is completed", async () => {
  for (const quirks of [{ ignoresConditionOnComplete: true }, { ignoresConditions: true }]) {
    await using host = await s3Host(quirks);
    await using storage = await host.open();
    host.server.intercept = (request) => {
      if (request.operation !== "UploadPart") return undefined;
      host.server.objects.set("pre/fix/main/a", { bytes: Buffer.from("other"), etag: '"o"' });
      return undefined;
    };
    const put = storage.put("a", patternSource(6 * MIB), { signal, ifAbsent: true });
    await assert.rejects(put, EXISTS);
    assert.equal(await textOf(storage, "a"), "other");
    assert.equal(host.server.uploads.size, 0);
  }
});

test("a server that refuses the condition is known by the next process", async () => {
  await using host = await s3Host({ refusesConditions: true });
  await host.push("a");
  assert.deepEqual(await host.push("b"), LOOKED_FOR);
  await assert.rejects(host.push("b"), EXISTS);
  assert.deepEqual(host.warnings, []);
});

test("a role that may write WAL only pushes as before, and asks once a day", async () => {
  await using host = await s3Host({ ignoresConditions: true });
  host.server.intercept = ({ key, operation }) =>
    key === PROBE || operation === "HeadObject"
      ? { status: 403, body: errorDocument("AccessDenied") }
      : undefined;
  assert.deepEqual(await host.push("a"), ["PutObject probe", "PutObject object"]);
  assert.deepEqual(await host.push("b"), ["PutObject object"]);
  host.wait(1.1 * DAY_MS);
  assert.deepEqual(await host.push("c"), ["PutObject probe", "PutObject object"]);
});

test("who may not look is not kept from writing where the condition is ignored", async () => {
  await using host = await s3Host({ ignoresConditions: true });
  await host.push("a");
  host.server.intercept = ({ operation }) =>
    operation === "HeadObject" ? { status: 403, body: errorDocument("AccessDenied") } : undefined;
  assert.deepEqual((await host.push("b")).at(-1), "PutObject object");
});

test("a store that fails at that moment is asked by the next process, and the push goes on", async () => {
  await using host = await s3Host();
  host.server.intercept = ({ key }) =>
    key === PROBE ? { status: 503, body: errorDocument("SlowDown") } : undefined;
  assert.deepEqual(await host.push("a"), ["PutObject probe", "PutObject object"]);
  await using storage = await host.open();
  await storage.put("b", text("1"), { signal, ifAbsent: true });
  await storage.put("c", text("1"), { signal, ifAbsent: true });
  assert.equal(host.server.requests.filter(({ key }) => key === PROBE).length, 2);
  assert.deepEqual(await readdir(host.cache), []);
});

test("many puts at once ask together; reading and replacing ask nothing", async () => {
  await using host = await s3Host();
  await using storage = await host.open();
  await storage.put("z", text("1"), { signal });
  await storage.delete(["z"], { signal });
  assert.equal(host.server.requests.filter(({ key }) => key === PROBE).length, 0);
  const keys = ["a", "b", "c", "d"];
  await Promise.all(keys.map((key) => storage.put(key, text("1"), { signal, ifAbsent: true })));
  assert.equal(host.server.requests.filter(({ key }) => key === PROBE).length, 2);
});

test("a cache that can't be written costs requests and fails nothing", async () => {
  await using server = await S3Emulation.start({ ignoresConditions: true });
  const config = s3Config(server, { prefix: "pre/fix" });
  await using storage = await makeHost(config, "/dev/null/cache").open();
  await storage.put("a", text("1"), { signal, ifAbsent: true });
  await assert.rejects(storage.put("a", text("2"), { signal, ifAbsent: true }), EXISTS);
});

test("a GCS server that ignores conditions is looked at, one that obeys is not", async () => {
  for (const ignoresConditions of [true, false]) {
    await using server = await GcsEmulation.start({ ignoresConditions });
    using scratch = scratchDirectory();
    const config = gcsConfig(server, { prefix: "pre/fix", chunkBytes: MIB });
    const host = makeHost(config, scratch.path);
    await using storage = await host.open();
    await storage.put("a", text("1"), { signal, ifAbsent: true });
    await assert.rejects(storage.put("a", text("2"), { signal, ifAbsent: true }), EXISTS);
    assert.equal(server.count("stat"), ignoresConditions ? 2 : 0);
    const large = patternSource(3 * MIB);
    await assert.rejects(storage.put("a", large, { signal, ifAbsent: true }), EXISTS);
    assert.equal(await textOf(storage, "a"), "1");
    await storage.put("large", patternSource(3 * MIB), { signal, ifAbsent: true });
    assert.equal(host.warnings.length, ignoresConditions ? 1 : 0);
    const [file = ""] = await readdir(scratch.path);
    assert.match(
      await readFile(join(scratch.path, file), "utf8"),
      ignoresConditions ? /"ignored"/ : /"obeyed"/,
    );
  }
});

test("the services themselves are believed without a question", () => {
  for (const [endpoint, isOther] of [
    [undefined, false],
    ["https://s3.eu-west-1.amazonaws.com", false],
    ["https://s3.amazonaws.com:443/", false],
    ["https://amazonaws.com.example", true],
    ["http://127.0.0.1:9000", true],
    ["https://storage.googleapis.com", true],
  ] as const) {
    assert.equal(isOtherServer(endpoint, "amazonaws.com"), isOther, `${endpoint}`);
  }
});
