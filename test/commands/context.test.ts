import assert from "node:assert/strict";
import { test } from "node:test";
import { createContext } from "../../src/commands/context.ts";
import type { Config } from "../../src/config/config.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { type Clock, systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { freePort } from "../support/postgres-programs.ts";
import { s3Config } from "../support/s3-config.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

function contextWith(config: Partial<Config>, clock: Clock = systemClock) {
  return createContext({
    config: { ...defaultConfig({ cpuCount: 1 }), ...config },
    log: silentLog,
    clock,
    signal: new AbortController().signal,
    workingDirectory: "/",
    write: () => Promise.resolve(),
    progress: { update: () => {}, end: () => {} },
  });
}

test("without a configured storage there is an error that says how to configure one", async () => {
  await assert.rejects(contextWith({}).openStorage(), {
    code: "config",
    message: "no storage is configured",
    hint: /WALNUT_S3_PREFIX=s3:\/\/bucket\/folder or WALNUT_FILE_PREFIX=/,
  });
});

test("everything goes into the configured folder below the prefix", async () => {
  using directory = scratchDirectory();
  const signal = new AbortController().signal;
  const storage = { kind: "directory", path: directory.path } as const;
  {
    await using inFolder = await contextWith({ storage, storageFolder: "a/b" }).openStorage();
    await inFolder.put("key", bytesSource(Buffer.from("x")), { signal });
  }
  await using whole = await contextWith({ storage }).openStorage();
  const keys = await Array.fromAsync(whole.list("", { signal }), ({ key }) => key);
  assert.deepEqual(keys, ["a/b/key"]);
});

test("a check of a store that is away ends soon, and other work does not", async () => {
  const server = { bucket: "b", accessKeyId: "a", secretAccessKey: "s" };
  const storage = s3Config({ ...server, endpoint: `http://127.0.0.1:${await freePort()}` });
  const failAfterMs = async (use: "check" | "all") => {
    const clock = new SkippingClock();
    const startMs = clock.monotonicMs();
    await using away = await contextWith({ storage }, clock).openStorage(use);
    const { signal } = new AbortController();
    await assert.rejects(Array.fromAsync(away.list("", { signal })), { code: "storage" });
    return clock.monotonicMs() - startMs;
  };
  assert.ok((await failAfterMs("check")) < 100_000);
  assert.ok((await failAfterMs("all")) > 600_000);
});
