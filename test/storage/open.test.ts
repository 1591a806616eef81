import assert from "node:assert/strict";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, test } from "node:test";
import { OperationError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import type { LogFields } from "../../src/io/log.ts";
import { type Audience, openStorage } from "../../src/storage/open.ts";
import { StorageTraffic } from "../../src/storage/traffic.ts";
import { patternSource } from "../support/bodies.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation } from "../support/s3-emulation.ts";
import { until } from "../support/until.ts";
import { keysOf, text, textOf } from "./contract-lists.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;
const scratch = await mkdtemp(join(tmpdir(), "walnut-open-"));
after(() => rm(scratch, { recursive: true }));
const options = { signal, requestTimeoutMs: 10_000, uploadConcurrency: 4 };

storageContract("directory with all wrappers", async () => {
  const path = await mkdtemp(join(scratch, "root-"));
  const limits = { callTimeoutMs: 60_000, rateLimitBytesPerSecond: 2e9 };
  const storage = await openStorage({ kind: "directory", path }, { ...options, ...limits });
  return { storage, close: async () => await storage[Symbol.asyncDispose]() };
});

test("a directory that does not exist is said at once", async () => {
  const path = join(scratch, "none");
  await assert.rejects(openStorage({ kind: "directory", path }, options), {
    name: "StorageError",
    message: `storage directory ${path} does not exist`,
  });
});

test("an aborted signal opens nothing", async () => {
  const aborted = { ...options, signal: AbortSignal.abort(new Error("told to stop")) };
  await assert.rejects(openStorage({ kind: "directory", path: scratch }, aborted), /told to stop/);
});

test("an S3 prefix is a part of every key and of the name", async () => {
  await using server = await S3Emulation.start();
  const config = s3Config(server, { prefix: "main/cluster one" });
  const storage = await openStorage(config, options);
  assert.match(storage.name, /^s3:\/\/127\.0\.0\.1:\d+\/emulated\/main\/cluster one$/);
  await storage.put("wal_005/a", text("x"), { signal });
  assert.deepEqual([...server.objects.keys()], ["main/cluster one/wal_005/a"]);
  const whole = await openStorage({ ...config, prefix: "" }, options);
  assert.deepEqual(await keysOf(whole, ""), ["main/cluster one/wal_005/a"]);
});

const half = () => 0.5;

test("each repetition is logged, with the reason and without secrets", async () => {
  await using server = await S3Emulation.start();
  const lines: [string, LogFields | undefined][] = [];
  const log = {
    ...silentLog,
    warning: (line: string, fields?: LogFields) => lines.push([line, fields]),
  };
  const retryPolicy = { attempts: 3, baseMs: 10, capMs: 10, totalMs: 1000 };
  const storage = await openStorage(s3Config(server), {
    ...options,
    log,
    retryPolicy,
    random: half,
  });
  server.intercept = ({ number }) => (number === 1 ? { status: 503 } : undefined);
  await storage.put("a", text("x"), { signal });
  assert.equal(lines.length, 1);
  const [line, fields] = lines[0] ?? [];
  assert.equal(line, "storage request failed and will be repeated");
  assert.match(String(fields?.["error"]), /^cannot put a in s3:\/\/[\d.:]+\/emulated: 503/);
  assert.deepEqual([fields?.["failures"], fields?.["delayMs"]], [1, 5]);
  assert.ok(!JSON.stringify(lines).includes(server.secretAccessKey));
});

test("the rate limit and the limit of a call hold", async () => {
  const path = await mkdtemp(join(scratch, "slow-"));
  const limits = { rateLimitBytesPerSecond: 2_000_000, callTimeoutMs: 1500, clock: systemClock };
  const storage = await openStorage({ kind: "directory", path }, { ...options, ...limits });
  await storage.put("a", patternSource(700_000), { signal });
  await assert.rejects(storage.put("b", patternSource(20_000_000), { signal }), {
    name: "DeadlineError",
  });
  assert.deepEqual(await keysOf(storage, ""), ["a"]);
  assert.equal((await textOf(storage, "a", 0, 10)).length > 0, true);
});

test("a rate that is set anew counts for what is under way", async () => {
  const path = await mkdtemp(join(scratch, "rated-"));
  const clock = new FakeClock();
  const shared = { ...options, clock, traffic: new StorageTraffic(clock) };
  const config = { kind: "directory", path } as const;
  const slow = await openStorage(config, { ...shared, rateLimitBytesPerSecond: 1 });
  const putting = slow.put("a", patternSource(1_000_000), { signal });
  await clock.advance(1000);
  assert.deepEqual(await keysOf(slow, ""), []);

  // As after a reload of the settings: opened once more, while the old one is still in use.
  const fast = await openStorage(config, { ...shared, rateLimitBytesPerSecond: 1e9 });
  await clock.advance(1000);
  await putting;
  assert.deepEqual(await keysOf(fast, ""), ["a"]);
});

test("what passes is counted, for all storages that share it", async () => {
  await using server = await S3Emulation.start();
  const traffic = new StorageTraffic(systemClock);
  const retryPolicy = { attempts: 3, baseMs: 1, capMs: 1, totalMs: 1000 };
  server.intercept = ({ number }) => (number === 2 ? { status: 503 } : undefined);
  for (const key of ["a", "b"]) {
    const storage = await openStorage(s3Config(server), { ...options, traffic, retryPolicy });
    await storage.put(key, text("12345"), { signal });
    assert.equal(await textOf(storage, key), "12345");
    await storage[Symbol.asyncDispose]();
  }
  const { stores, retries } = traffic.counts;
  const [[name, store] = ["", undefined]] = Object.entries(stores);
  assert.match(name, /^s3:\/\/127\.0\.0\.1:\d+\/emulated$/);
  assert.deepEqual(store?.calls, {
    get: 3,
    put: 2,
    stat: 0,
    list: 0,
    delete: 0,
    putBytes: 10,
    gotBytes: 10,
  });
  assert.deepEqual(store.requests, { PUT: 2, GET: 3 });
  assert.equal(store.slowDowns, 1);
  assert.equal(retries, 1);
});

/** A store that takes every request and answers none, asked while time is told by hand. */
async function askSilent(audience: Audience | undefined, key = "a") {
  const server = await S3Emulation.start();
  const way = await FaultProxy.start(server.endpoint);
  const clock = new FakeClock();
  const lines: string[] = [];
  const warning = (line: string, fields?: LogFields): void =>
    void lines.push(`${line} ${JSON.stringify(fields)}`);
  const config = { ...s3Config(server), endpoint: way.endpoint };
  const log = { ...silentLog, warning };
  const limits = { ...options, requestTimeoutMs: 30_000 };
  const storage = await openStorage(config, { ...limits, clock, log, audience, random: half });
  if (key !== "a") await storage.put(key, text("x"), { signal });
  const before = way.requests.length;
  way.rule = () => ({ hang: true });
  const asked = (count: number) =>
    until(
      "it is asked",
      () => way.requests.length >= before + count,
      () => lines.join("\n"),
    );
  let failure: unknown;
  void storage.stat(key, { signal }).catch((error: unknown) => (failure = error));
  const close = async () => {
    await storage[Symbol.asyncDispose]();
    await way[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  };
  const failed = () => until("it fails", () => failure);
  return { clock, lines, way, asked, failed, [Symbol.asyncDispose]: close };
}

test("a reader is told soon that the store is silent, and that it did not answer at last", async () => {
  await using silent = await askSilent("reader");
  const { clock, lines, way } = silent;
  await silent.asked(1);
  await clock.advance(9_900);
  assert.deepEqual(lines, []);
  await clock.advance(200);
  assert.deepEqual(lines, [
    `the store does not answer; it is waited for {"store":"${way.endpoint}","silentSeconds":10}`,
  ]);
  await clock.advance(20_000);
  await until("it is repeated", () => lines.length === 2);
  assert.match(lines[1] ?? "", /will be repeated .*silent for 30 s.*"givesUpInSeconds":30/);
  await clock.advance(100);
  await silent.asked(2);
  await clock.advance(30_100);
  const failure = await silent.failed();
  assert.ok(failure instanceof OperationError);
  assert.match(
    failure.message,
    /^http:\/\/127\.0\.0\.1:\d+ was silent for 30 s \(gave up after 2 attempts in 60\.\d s\)$/,
  );
  assert.match(failure.hint ?? "", /firewalls and proxies .* WALNUT_REQUEST_TIMEOUT/);
});

for (const [audience, key] of [
  [undefined, "a"],
  ["watcher", "a"],
  ["reader", "of a store that has answered before"],
] as const) {
  test(`${audience}: an outage is outlasted that comes upon ${key}`, async () => {
    await using silent = await askSilent(audience, key);
    const { clock, lines, way } = silent;
    for (let count = 1; count <= 4; count += 1) {
      await silent.asked(count);
      await clock.advance(30_000);
      await until("it is repeated", () => lines.join().split("will be repeated").length > count);
      await clock.advance(20_000);
    }
    assert.equal(lines.join().includes("does not answer"), audience !== undefined);
    assert.equal(/givesUpInSeconds":[78]\d\d/.test(lines.join()), audience !== undefined);
    way.rule = () => undefined;
    await silent.asked(5);
  });
}

test("only the S3 store imports the SDK, and only on demand", async () => {
  const source = join(import.meta.dirname, "..", "..", "src");
  const files = (await readdir(source, { recursive: true })).filter((name) => name.endsWith(".ts"));
  const users: string[] = [];
  for (const file of files) {
    const code = await readFile(join(source, file), "utf8");
    if (/^import (?!type)[^;]*from "@aws-sdk\//m.test(code)) users.push(file);
    const isS3 = file.startsWith("storage/s3");
    if (!isS3) assert.ok(!/^import (?!type)[^;]*from "[^"]*\/s3[\w-]*\.ts"/m.test(code), file);
  }
  assert.ok(users.length > 0 && users.every((file) => file.startsWith("storage/s3")), users.join());
});

const identityModules = [
  ["@azure/", "storage/azure-identity.ts"],
  ["google-auth-library", "storage/gcs-federation.ts"],
] as const;

for (const [library, user] of identityModules) {
  test(`only ${user} imports ${library}, and nobody imports that but on demand`, async () => {
    const source = join(import.meta.dirname, "..", "..", "src");
    const files = (await readdir(source, { recursive: true })).filter((one) => one.endsWith(".ts"));
    const name = basename(user).replaceAll(".", String.raw`\.`);
    const users: string[] = [];
    for (const file of files) {
      const code = await readFile(join(source, file), "utf8");
      if (new RegExp(`^import (?!type)[^;]*from "${library}`, "m").test(code)) users.push(file);
      assert.ok(!new RegExp(`^import (?!type)[^;]*/${name}"`, "m").test(code), file);
    }
    assert.deepEqual(users, [user]);
  });
}
