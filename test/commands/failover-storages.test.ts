import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { inBackupStorage } from "../../src/commands/backup-storage.ts";
import { createContext } from "../../src/commands/context.ts";
import { info } from "../../src/commands/info.ts";
import { storageTools } from "../../src/commands/st.ts";
import { withStorage } from "../../src/commands/storage-choice.ts";
import { readCommandLine } from "../../src/commands/words.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { DatabaseError, StorageError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { parseHealth } from "../../src/storage/failover-memory.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { HEALTH_RULES } from "../support/failover-world.ts";
import { randomOf } from "../support/random.ts";
import { collectingLog } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { runWalnut } from "../support/walnut.ts";

const signal = AbortSignal.timeout(120_000);
const KILLS = process.env["WALNUT_LONG"] === undefined ? 6 : 200;

/** Three directories: "default", "b" and "c". */
function bench(root: string) {
  for (const name of ["default", "b", "c", "cache"]) mkdirSync(join(root, name));
  const store = (name: string) =>
    ({ name, config: { kind: "directory", path: join(root, name) } }) as const;
  const log = collectingLog();
  let stdout = "";
  const context = createContext({
    config: {
      ...defaultConfig({ cpuCount: 1 }),
      storage: store("default").config,
      failover: { stores: [store("b"), store("c")], health: HEALTH_RULES },
      cacheDirectory: join(root, "cache"),
      compressionMethod: "none",
    },
    log,
    clock: systemClock,
    signal,
    workingDirectory: root,
    write: async (text) => void (stdout += text),
    progress: { update: () => {}, end: () => {} },
  });
  const tools = storageTools({ configureFile: async () => context.config });
  const st = async (...words: readonly string[]): Promise<string> => {
    stdout = "";
    const line = readCommandLine(words, { names: () => [], find: () => undefined }, tools.flags);
    await tools.run(tools.parse(line.words), context);
    return stdout;
  };
  const names = (folder: string): readonly string[] =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8", withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => entry.name)
      .toSorted();
  const written = (): string => stdout;
  return { context, st, written, names, log };
}

describe("st on several storages", () => {
  test("looks at default, at one by name, or at all of them", async () => {
    using scratch = scratchDirectory();
    const { st, names } = bench(scratch.path);
    writeFileSync(join(scratch.path, "file"), "content");
    await st("put", "file", "a/one");
    await st("put", "file", "a/two", "-t", "b");
    await st("put", "file", "a/every", "--target=all");
    assert.deepEqual(["default", "b", "c"].map(names), [
      ["every", "one"],
      ["every", "two"],
      ["every"],
    ]);
    assert.match(await st("ls", "a"), /every\n.*one\n$/);
    assert.match(await st("ls", "a", "-t", "b"), /every\n.*two\n$/);
    assert.match(await st("ls", "a", "-t", "all"), /every\n.*one\n.*two\n$/);
    await assert.rejects(st("stat", "a/two"), { code: "not-found" });
    await st("stat", "a/two", "-t", "all");
    await assert.rejects(st("ls", "a", "-t", "d"), { code: "config", message: /no storage d$/ });
    await assert.rejects(st("check", "read", "a/two", "-t", "all"), StorageError);
    await st("check", "write", "-t", "all");

    await st("rm", "a/two", "-t", "all");
    await st("rm", "a", "-t", "all");
    await assert.rejects(st("rm", "/", "--target=all"), { code: "not-found" });
    await assert.rejects(st("put", "-s", "x", "-t", "all"), { code: "usage" });
  });

  test("each is tried and named, also when one of them is away", async () => {
    using scratch = scratchDirectory();
    const { context, st, written } = bench(scratch.path);
    rmSync(join(scratch.path, "b"), { recursive: true });
    await assert.rejects(st("check", "write", "-t", "all"), {
      code: "storage",
      message: /^1 of 3 storages failed: b: .*does not exist/,
    });
    assert.equal(written(), "default: Write check OK\nc: Write check OK\n");

    rmSync(join(scratch.path, "default"), { recursive: true });
    await info.run({ isJson: false, isOffline: true }, context);
    assert.match(
      written(),
      /^backups +0:[^]*WARNING: storage default does not answer: .*\nWARNING: storage b does not/m,
    );
    await info.run({ isJson: true, isOffline: true }, context);
    assert.match(written(), /"storages_away": \[\s*"default",\s*"b"\s*\]/);
  });

  test("objects are moved from one, or from all others", async () => {
    using scratch = scratchDirectory();
    const { st, names } = bench(scratch.path);
    writeFileSync(join(scratch.path, "file"), "content");
    for (const name of ["b", "c"]) await st("put", "file", `wal_005/${name}`, "-t", name);
    await st("transfer", "pg-wals", "--source", "b", "--preserve");
    assert.deepEqual(["default", "b", "c"].map(names), [["b"], ["b"], ["c"]]);
    await st("transfer", "files", "wal_005/", "--source", "all", "--overwrite");
    assert.deepEqual(["default", "b", "c"].map(names), [["b", "c"], [], []]);
    await st("put", "file", "folder/in", "-t", "b");
    await st("put", "file", "folder-beside/out", "-t", "b");
    await st("transfer", "files", "folder/", "--source", "b");
    assert.deepEqual(["default", "b"].map(names), [["b", "c", "in"], ["out"]]);
    await assert.rejects(st("transfer", "pg-wals", "--source", "default"), /are the same/);
    await assert.rejects(st("transfer", "pg-wals", "--source", "d"), /no storage d$/);
  });
});

test("one storage is what a target makes of the configuration", () => {
  using scratch = scratchDirectory();
  const { config } = bench(scratch.path).context;
  assert.deepEqual(withStorage(config, "all"), config);
  const only = withStorage(config, "c");
  assert.equal(only.failover, undefined);
  assert.deepEqual(only.storage, { kind: "directory", path: join(scratch.path, "c") });
});

async function put(storage: Storage, key: string): Promise<void> {
  await storage.put(key, bytesSource(Buffer.from("part")), { signal });
}

describe("a backup", () => {
  test("is begun once more where another storage is alive, and nowhere twice", async () => {
    using scratch = scratchDirectory();
    const { context, names, log } = bench(scratch.path);
    const begun: string[] = [];
    const push = async (storage: Storage): Promise<string> => {
      begun.push(storage.name.split("/").at(-1) ?? "");
      await put(storage, "basebackups_005/base_000000010000000000000002/part_001");
      if (begun.length < 3) rmSync(join(scratch.path, begun.at(-1) ?? ""), { recursive: true });
      await put(storage, "basebackups_005/base_000000010000000000000002/part_002");
      return "written";
    };
    assert.equal(await inBackupStorage(context, push), "written");
    assert.deepEqual(begun, ["default", "b", "c"]);
    assert.deepEqual(names("c"), ["part_001", "part_002"]);
    assert.equal(log.lines.filter((line) => line.includes("begun once more")).length, 2);
    rmSync(join(scratch.path, "c"), { recursive: true });
    await assert.rejects(inBackupStorage(context, push), /no storage is alive: default, b, c/);
  });

  test("in the one that was chosen sees WAL in all, and writes nowhere else", async () => {
    using scratch = scratchDirectory();
    const { context, st, names } = bench(scratch.path);
    writeFileSync(join(scratch.path, "file"), "content");
    await st("put", "file", "wal_005/one");
    await st("put", "file", "wal_005/two", "-t", "b");
    await st("put", "file", "other/three");
    const config = { ...context.config, targetStorage: "c" };
    await inBackupStorage(createContext({ ...context, config }), async (storage) => {
      const keys: string[] = [];
      for (const folder of ["wal_005/", "other/"]) {
        for await (const { key } of storage.list(folder, { signal })) keys.push(key);
      }
      assert.deepEqual(keys, ["wal_005/one", "wal_005/two"]);
      assert.equal((await readAll(storage.get("wal_005/two", { signal }))).toString(), "content");
      assert.equal((await storage.stat("wal_005/one", { signal })).sizeBytes, 7);
      await storage.put("basebackups_005/x", bytesSource(Buffer.from("x")), { signal });
      await storage.put("wal_005/four", bytesSource(Buffer.from("x")), { signal });
    });
    assert.deepEqual(["default", "b", "c"].map(names), [["one", "three"], ["two"], ["four", "x"]]);
  });

  test("is not begun once more for what no other storage helps against", async () => {
    using scratch = scratchDirectory();
    const { context } = bench(scratch.path);
    for (const error of [
      new DatabaseError("the server went away"),
      new StorageError("too many parts", { isRetryable: false }),
    ]) {
      let count = 0;
      const push = async (): Promise<void> => {
        count += 1;
        throw error;
      };
      await assert.rejects(inBackupStorage(context, push), error);
      assert.equal(count, 1);
    }
  });
});

test("a process killed at any moment leaves nothing that stops the next one", async () => {
  using scratch = scratchDirectory();
  const { path } = scratch;
  for (const name of ["b", "cache"]) mkdirSync(join(path, name));
  const random = randomOf(7);
  // The first storage is not there: it is found dead, and that is remembered.
  const env = {
    WALG_FILE_PREFIX: join(path, "away"),
    WALG_FAILOVER_STORAGES: JSON.stringify({ b: { WALG_FILE_PREFIX: join(path, "b") } }),
    WALG_FAILOVER_STORAGES_CACHE_LIFETIME: "0s",
    WALNUT_CACHE_DIR: join(path, "cache"),
    WALG_COMPRESSION_METHOD: "none",
  };
  const files = (): readonly string[] =>
    readdirSync(join(path, "cache")).filter((name) => /^stores-\w+\.json$/.test(name));
  for (let round = 0; round < KILLS; round++) {
    writeFileSync(join(path, `file${round}`), `content ${round}`);
    const words = ["wal-push", join(path, `file${round}`)];
    const killed = await runWalnut(words, {
      env,
      cwd: path,
      killAfterMs: 50 + random.next() * 500,
    });
    for (const name of files()) {
      parseHealth(readFileSync(join(path, "cache", name), "utf8"), Date.now());
    }
    if (killed.signal === null) assert.equal(killed.code, 0, killed.stderr);
    const { code, stderr } = await runWalnut(words, { env, cwd: path });
    assert.equal(code, 0, stderr);
    assert.equal(readFileSync(join(path, "b/wal_005", `file${round}`), "utf8"), `content ${round}`);
  }
  const [name = ""] = files();
  assert.match(readFileSync(join(path, "cache", name), "utf8"), /"alive":false/);
});
