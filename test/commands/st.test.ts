import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { brotliDecompressSync } from "node:zlib";
import { chooseWaves } from "../../src/commands/st-transfer.ts";
import { storageTools } from "../../src/commands/st.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { sentinelKey } from "../../src/layout/keys.ts";
import { globPattern, listFolder } from "../../src/storage/folder.ts";
import { transferObjects } from "../../src/storage/transfer.ts";
import { StorageError } from "../../src/errors.ts";
import { runCommand } from "../support/command-run.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { GcsEmulation } from "../support/gcs-emulation.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { runWalnut } from "../support/walnut.ts";
import { objectsOf, segmentName, storageOf, type WorldBackup } from "../retention/world.ts";

const signal = AbortSignal.timeout(60_000);

async function stored(...keys: readonly string[]): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  for (const key of keys) await storage.put(key, bytesSource(Buffer.from(key)), { signal });
  return storage;
}

/** An empty repository, and the tools on it. */
function bench(t: { after(fn: () => void): void }) {
  const root = mkdtempSync(join(tmpdir(), "walnut-st-"));
  t.after(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, "repo"));
  const env = { WALG_FILE_PREFIX: join(root, "repo"), WALG_COMPRESSION_METHOD: "brotli" };
  const st = (...words: readonly string[]) => runWalnut(["st", ...words], { env, cwd: root });
  return { root, st };
}

describe("st by the program itself", () => {
  test("put, ls, cat, get, stat, rm (storage_tool_tests)", async (t) => {
    const { root, st } = bench(t);
    writeFileSync(join(root, "file"), "content of the file\n");
    const empty = await st("ls");
    assert.equal(empty.stdout, "type size last modified name\n");
    assert.equal((await st("ls", "nothing/here", "-r")).stdout, empty.stdout);

    assert.equal((await st("put", "file", "a/b/testfile")).code, 0);
    const bytes = readFileSync(join(root, "repo/a/b/testfile.br"));
    assert.equal(brotliDecompressSync(bytes).toString(), "content of the file\n");
    assert.equal((await st("put", "file", "/a/b/testfile")).code, 11);
    assert.equal((await st("put", "file", "a/b/testfile", "--force")).code, 0);
    assert.equal((await st("put", "file", "a/raw", "--no-compress", "--no-encrypt")).code, 0);

    const listed = await st("ls", "/a/");
    assert.match(
      listed.stdout,
      new RegExp(
        /^type size last modified +name\ndir +0 +0001-01-01 00:00:00 \+0000 UTC +b\/\n/.source +
          /obj +20 +\d{4}-\d\d-\d\d [\d:.]+ \+0000 UTC +raw\n$/.source,
      ),
    );
    assert.match((await st("ls", "-r")).stdout, /UTC +a\/b\/testfile\.br\nobj .* a\/raw\n$/);
    assert.match(
      (await st("ls", "--glob", "a/*/test*")).stdout,
      /^type[^\n]*\nobj [^\n]*a\/b\/testfile\.br\n$/,
    );
    assert.match((await st("stat", "a/raw")).stdout, /obj +20 .*a\/raw\n$/);

    assert.equal((await st("cat", "a/raw")).stdout, "content of the file\n");
    assert.equal(
      (await st("cat", "a/b/testfile.br", "--decompress")).stdout,
      "content of the file\n",
    );
    assert.notEqual((await st("cat", "a/b/testfile.br")).stdout, "content of the file\n");
    assert.equal((await st("get", "a/b/testfile.br", "got")).code, 0);
    assert.equal(readFileSync(join(root, "got"), "utf8"), "content of the file\n");
    assert.equal((await st("get", "a/b/testfile.br", "raw.br", "--no-decompress")).code, 0);
    assert.deepEqual(readFileSync(join(root, "raw.br")), bytes);

    assert.equal((await st("rm", "a/b/test")).code, 10, "a beginning of a name is no name");
    assert.equal((await st("rm", "a/b/testfile.br")).code, 0);
    assert.equal((await st("rm", "a/")).code, 0);
    assert.equal((await st("rm", "/", "--target=all")).code, 10);
    assert.equal((await st("ls", "-r")).stdout, empty.stdout);
  });

  test("check answers by its exit code; a missing object is exactly 1", async (t) => {
    const { root, st } = bench(t);
    writeFileSync(join(root, "repo/there"), "x");
    assert.deepEqual(
      [
        await st("check", "write"),
        await st("check", "read"),
        await st("check", "read", "there"),
      ].map(({ code, stdout }) => [code, stdout]),
      [
        [0, "Write check OK\n"],
        [0, "Read check OK\n"],
        [0, "Read check OK\n"],
      ],
    );
    const missing = await st("check", "read", "there", "absent");
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /objects are missing in .*: absent/);
    const unsaid = await st("check");
    assert.equal(unsaid.code, 2);
    assert.match(unsaid.stderr, /what to check is missing\nHINT: .*st check read .*st check write/);
  });

  test("check write, and config check, where nothing may be removed (P22)", async () => {
    using scratch = scratchDirectory();
    await using bucket = await GcsEmulation.start({ isRetained: true });
    const env = {
      WALG_GS_PREFIX: `gs://${bucket.bucket}/main`,
      STORAGE_EMULATOR_HOST: bucket.endpoint,
      WALNUT_CACHE_DIR: join(scratch.path, "cache"),
    };
    const results = [];
    for (const words of [
      ["st", "check", "write"],
      ["config", "check"],
    ]) {
      results.push(await runWalnut(words, { cwd: scratch.path, env }));
    }
    for (const { code, stderr } of results) {
      assert.equal(code, 0, stderr);
      assert.match(stderr, /WARNING: .*lets nothing be removed.*retentionPolicyNotMet/);
    }
    assert.match(results[1]?.stderr ?? "", /takes, gives and lists objects/);
  });

  test("config check where nothing may be written says that alone", async () => {
    using scratch = scratchDirectory();
    await using server = createServer((_, response) => response.writeHead(403).end());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    assert.ok(typeof address === "object" && address !== null);
    const env = {
      WALG_S3_PREFIX: "s3://bucket/main",
      AWS_ENDPOINT: `http://127.0.0.1:${address.port}`,
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_REGION: "eu",
      AWS_ACCESS_KEY_ID: "id",
      AWS_SECRET_ACCESS_KEY: "key",
      WALNUT_CACHE_DIR: join(scratch.path, "cache"),
    };
    const { code, stderr } = await runWalnut(["config", "check"], { cwd: scratch.path, env });
    assert.equal(code, 12, stderr);
    assert.match(stderr, /^ERROR: /);
    assert.doesNotMatch(stderr, /removed/);
  });

  test("copy between configurations needs no key that works", async (t) => {
    const { root, st } = bench(t);
    writeFileSync(join(root, "repo/one"), "1");
    mkdirSync(join(root, "repo/sub"));
    writeFileSync(join(root, "repo/sub/two"), "2");
    mkdirSync(join(root, "other"));
    const configure = (name: string, folder: string): string => {
      const config = { WALG_FILE_PREFIX: join(root, folder), WALE_GPG_KEY_ID: "bogus" };
      writeFileSync(join(root, name), JSON.stringify(config));
      return name;
    };
    const words = ["--from", configure("from.json", "repo"), "--to", configure("to.json", "other")];
    const part = await st("copy", ...words, "-p", "sub");
    assert.equal(part.code, 0, part.stderr);
    assert.equal(readFileSync(join(root, "other/sub/two"), "utf8"), "2");
    assert.equal((await st("copy", ...words)).code, 0);
    assert.equal(readFileSync(join(root, "other/one"), "utf8"), "1");
  });
});

test("refuses words that it does not know", async () => {
  const command = storageTools({ configureFile: () => Promise.reject(new Error("not asked for")) });
  const storage = await stored("a");
  for (const words of [[], ["lsl"], ["put", "x"], ["cat", "/"], ["transfer", "files", "a"]]) {
    await assert.rejects(runCommand(command, storage, words), { name: "UsageError" });
  }
  for (const words of [
    ["ls", "--target", "elsewhere"],
    ["transfer", "files", "a", "--source", "elsewhere"],
  ]) {
    await assert.rejects(runCommand(command, storage, words), { name: "ConfigError" });
  }
  assert.deepEqual(storage.keys, ["a"]);
});

test("a folder with thousands of objects is passed over, also beside names like it", async () => {
  const keys = ["a", "b-", "b/1", "b/2", "b0", "c/d/e", "b/3/4"];
  const storage = await stored(...keys);
  const root = await listFolder(storage, "", { signal });
  assert.deepEqual(root.folders, ["b/", "c/"]);
  assert.deepEqual(
    root.objects.map(({ key }) => key),
    ["a", "b-", "b0"],
  );
  const inner = await listFolder(storage, "b", { signal });
  assert.deepEqual([inner.folders, inner.objects.map(({ key }) => key)], [["3/"], ["b/1", "b/2"]]);
});

test("patterns match whole keys, and no slash by a star", () => {
  const pattern = globPattern("wal_005/*[0-9].zst?");
  assert.ok(pattern.test("wal_005/a7.zst1"));
  assert.ok(!pattern.test("wal_005/a/7.zst1"));
  assert.ok(!pattern.test("wal_005/ax.zst1"));
  assert.ok(!globPattern("a.b").test("axb"));
});

describe("transfer", () => {
  const clock = new SkippingClock();
  const options = {
    isOverwriting: false,
    isPreserving: false,
    isFailingFast: false,
    jobs: 2,
    appearanceChecks: 3,
    appearanceIntervalMs: 1000,
    clock,
    signal,
  };

  test("moves; leaves what is there at both sides unless told to overwrite", async () => {
    const source = await stored("a", "b", "c");
    const target = await stored("b");
    await target.put("b", bytesSource(Buffer.from("other")), { signal });
    const counts = await transferObjects(source, target, [["a", "b", "c"]], options);
    assert.deepEqual([counts.transferred, counts.skipped], [2, 1]);
    assert.deepEqual([source.keys, target.keys], [["b"], ["a", "b", "c"]]);
    assert.equal(target.bytesOf("b")?.toString(), "other");
    await transferObjects(source, target, [["b"]], { ...options, isOverwriting: true });
    assert.equal(target.bytesOf("b")?.toString(), "b");
    assert.deepEqual(source.keys, []);
    await transferObjects(target, source, [["a"]], { ...options, isPreserving: true });
    assert.deepEqual([source.keys, target.keys], [["a"], ["a", "b", "c"]]);
  });

  test("what fails stays at the source, and nothing that builds on it comes", async () => {
    const source = await stored("a", "b", "z");
    const inner = new MemoryStorage();
    const error = new StorageError("full", { isRetryable: false });
    const target = new FaultyStorage(inner).fault("put", 1, { kind: "fail", error });
    const counts = await transferObjects(source, target, [["a", "b"], ["z"]], options);
    assert.deepEqual(counts.failures, [{ key: "a", reason: "full" }]);
    assert.deepEqual([source.keys, inner.keys], [["a", "z"], ["b"]]);
    const again = new FaultyStorage(inner).fault("put", 1, { kind: "fail", error });
    const fast = { ...options, isFailingFast: true };
    await assert.rejects(transferObjects(source, again, [["a"], ["z"]], fast), { message: "full" });
  });

  test("a backup's sentinel is a wave of its own, after its folder; bases come first", async () => {
    const names = [segmentName(1, 10), segmentName(1, 20)];
    const backups = names.map((name, index): WorldBackup => ({
      name: `base_${name}`,
      timeline: 1,
      segment: 10 + 10 * index,
      lastSegment: 10 + 10 * index,
      base: undefined,
      startMs: 0,
      finishMs: 1,
      isPermanent: false,
      corruptPages: 0,
      hasControl: true,
      isSentinelThere: true,
    }));
    const storage = await storageOf(objectsOf({ timelines: [], backups }));
    const words = {
      positionals: [],
      has: () => false,
      value: (flag: string) => (flag === "max-backups" ? "1" : undefined),
      values: () => [],
    };
    const waves = await chooseWaves(storage, { kind: "backups", prefix: undefined, words, signal });
    assert.equal(waves.length, 2);
    assert.deepEqual(waves[1], [sentinelKey(`base_${names[0]}`)]);
    assert.ok(waves[0]?.every((key) => key.startsWith(`basebackups_005/base_${names[0]}/`)));
  });
});
