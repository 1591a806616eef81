import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fc } from "../support/property.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import type { ByteStream } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { patternSource } from "../support/bodies.ts";
import { keysOf, putAll, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const scratch = await mkdtemp(join(tmpdir(), "walnut-directory-"));
after(() => rm(scratch, { recursive: true }));

async function openNew(): Promise<{ root: string; storage: DirectoryStorage }> {
  const root = await mkdtemp(join(scratch, "root-"));
  return { root, storage: new DirectoryStorage(root, systemClock) };
}

const putProgram = join(import.meta.dirname, "..", "support", "put-program.ts");
const leftover = "a.zst.tmp.20261121T064500Z-0123456789abcdef";

test("a root that is missing or no directory is an error for every call, and is never made", async () => {
  const file = join(scratch, "a file");
  await writeFile(file, "x");
  const rows = [
    [join(scratch, "missing"), "does not exist", /Create it once by hand, or mount it/],
    [file, "is no directory", /^Name the directory/],
  ] as const;
  for (const [root, what, hint] of rows) {
    const storage = new DirectoryStorage(root, systemClock);
    const expected = {
      name: "StorageError",
      message: `storage directory ${root} ${what}`,
      hint,
      isRetryable: false,
    };
    await assert.rejects(storage.requireRoot(), expected);
    await assert.rejects(storage.put("wal_005/a", text("x"), { signal }), expected);
    await assert.rejects(textOf(storage, "wal_005/a"), expected);
    await assert.rejects(storage.stat("wal_005/a", { signal }), expected);
    await assert.rejects(keysOf(storage, "wal_005/"), expected);
  }
  assert.deepEqual(await readdir(scratch).then((names) => names.includes("missing")), false);
});

test("files and folders are open to the umask, folders as WAL-G makes them", async () => {
  const { root, storage } = await openNew();
  await storage.put("wal_005/a", text("x"), { signal });
  const umask = process.umask();
  assert.equal((await stat(join(root, "wal_005"))).mode & 0o777, 0o755 & ~umask);
  assert.equal((await stat(join(root, "wal_005/a"))).mode & 0o777, 0o644 & ~umask);
});

test("what is no object is not listed: temporary files, broken links, pipes, foreign names", async () => {
  const { root, storage } = await openNew();
  await putAll(storage, ["wal_005/a.zst", "wal_005/b.zst"]);
  await writeFile(join(root, "wal_005", leftover), "half");
  await writeFile(join(root, "wal_005", "a.tmp.20261121T064500Z-0123456789abcde"), "no such name");
  await symlink("nowhere", join(root, "wal_005", "broken"));
  spawnSync("mkfifo", [join(root, "wal_005", "pipe")]);
  await writeFile(
    Buffer.concat([Buffer.from(`${root}/wal_005/`), Buffer.from([0xff, 0x41])]),
    "latin",
  );
  await mkdir(join(root, "empty"));
  assert.deepEqual(await keysOf(storage, ""), [
    "wal_005/a.tmp.20261121T064500Z-0123456789abcde",
    "wal_005/a.zst",
    "wal_005/b.zst",
  ]);
  await assert.rejects(textOf(storage, `wal_005/${leftover}`), /looks like a temporary file/);
  for (const key of ["wal_005", "empty", "wal_005/broken"]) {
    await assert.rejects(textOf(storage, key), { name: "ObjectNotFoundError" });
  }
});

test("links to files and folders elsewhere are followed", async () => {
  const { root, storage } = await openNew();
  const elsewhere = await mkdtemp(join(scratch, "elsewhere-"));
  await writeFile(join(elsewhere, "x"), "linked");
  await symlink(elsewhere, join(root, "wal_005"));
  await symlink(join(elsewhere, "x"), join(root, "y"));
  assert.deepEqual(await keysOf(storage, ""), ["wal_005/x", "y"]);
  assert.equal(await textOf(storage, "wal_005/x"), "linked");
  await storage.put("wal_005/z", text("through"), { signal });
  assert.equal(await textOf(storage, "wal_005/z"), "through");
});

test("a link to a folder that holds it is named; other links to folders are followed", async () => {
  for (const [place, target] of [
    ["wal_005/loop", ".."],
    ["wal_005/sub/loop", "../../wal_005"],
    ["self", "."],
  ] as const) {
    const { root, storage } = await openNew();
    await mkdir(join(root, "wal_005", "sub"), { recursive: true });
    await symlink(target, join(root, place));
    await assert.rejects(keysOf(storage, ""), {
      name: "StorageError",
      message: `${join(root, place)} is a symbolic link that leads back to ${join(root, place, "..", target)}`,
      hint: /^Remove the link/,
    });
  }
});

test("a key can't be both an object and a folder", async () => {
  const { storage } = await openNew();
  await putAll(storage, ["a", "b/c"]);
  await assert.rejects(storage.put("a/b", text("x"), { signal }), {
    name: "StorageError",
    message: /cannot write .*\/a\/b: a part of the path is not a directory \(ENOTDIR\)$/,
  });
  await assert.rejects(storage.put("b", text("x"), { signal }), /it is a directory \(EISDIR\)/);
  assert.deepEqual(await keysOf(storage, ""), ["a", "b/c"]);
});

test("delete takes emptied folders with it, but no folder that holds anything", async () => {
  const { root, storage } = await openNew();
  await putAll(storage, ["a/b/c/1", "a/b/2", "d/3"]);
  await storage.delete(["a/b/c/1"], { signal });
  assert.deepEqual((await readdir(join(root, "a/b"))).toSorted(), ["2"]);
  await storage.delete(["a/b/2", "d/3"], { signal });
  assert.deepEqual(await readdir(root), []);

  await putAll(storage, ["a/1"]);
  await writeFile(join(root, "a", leftover), "half");
  await storage.delete(["a/1"], { signal });
  assert.deepEqual(await readdir(join(root, "a")), [leftover]);
});

test("deletes beside puts in the same folder lose nothing", async () => {
  const { storage } = await openNew();
  for (let round = 0; round < 100; round++) {
    await storage.put("f/g/old", text("x"), { signal });
    await Promise.all([
      storage.delete(["f/g/old"], { signal }),
      storage.put("f/g/new", text(`round ${round}`), { signal }),
    ]);
    assert.equal(await textOf(storage, "f/g/new"), `round ${round}`);
    await storage.delete(["f/g/new"], { signal });
  }
});

test("delete goes on after a key that it can't remove, and names it", async () => {
  const storage = new DirectoryStorage("/", systemClock);
  const { root, storage: own } = await openNew();
  await putAll(own, ["a", "b"]);
  const inside = root.slice(1);
  const call = storage.delete([`${inside}/a`, "proc/version", "proc/uptime", `${inside}/b`], {
    signal,
  });
  await assert.rejects(call, {
    name: "StorageAccessError",
    message:
      /^cannot delete \/proc\/version and 1 other objects: (operation not permitted|permission denied) \(E(PERM|ACCES)\)$/,
  });
  assert.deepEqual(await readdir(root).catch(() => []), []);
});

test("a repository that goes away is no answer about its objects", async () => {
  const { root, storage } = await openNew();
  await putAll(storage, ["wal_005/a"]);
  await rename(root, `${root} unmounted`);
  await assert.rejects(textOf(storage, "wal_005/a"), {
    name: "StorageError",
    message: /does not exist/,
  });
});

test("a file cut short under a reader is an error, not an end", async () => {
  const { root, storage } = await openNew();
  await storage.put("a", patternSource(5_000_000), { signal });
  const read = async () => {
    for await (const _ of storage.get("a", { signal })) await truncate(join(root, "a"), 2_000_000);
  };
  await assert.rejects(read(), /object a in .* was changed while it was read/);
});

test("a killed put leaves nothing visible, and the next one needs no help", async () => {
  const { root, storage } = await openNew();
  const words = [putProgram, root, "wal_005/a.zst", "3000000", "endless"];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
  const [began] = await once(child.stdout, "data");
  assert.equal(String(began), "began\n");
  while ((await readdir(root, { recursive: true })).length < 2) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  child.kill("SIGKILL");
  await once(child, "close");
  assert.deepEqual(await keysOf(storage, ""), []);
  const [name = ""] = await readdir(join(root, "wal_005"));
  assert.match(name, /^a\.zst\.tmp\.\d{8}T\d{6}Z-[0-9a-f]{16}$/);

  await storage.put("wal_005/a.zst", text("whole"), { signal, ifAbsent: true });
  assert.equal(await textOf(storage, "wal_005/a.zst"), "whole");
});

test("a file system that takes only a part makes the put fail and leaves nothing", async () => {
  const { root } = await openNew();
  const limited = `trap "" XFSZ; ulimit -f 100; exec "$0" "$@"`;
  const words = ["-c", limited, process.execPath, putProgram, root, "wal_005/a", "3000000"];
  const run = spawnSync("bash", words);
  assert.match(
    run.stdout.toString(),
    /^began\nStorageError: cannot write .*\/wal_005\/a: the file is larger than .* \(EFBIG\)\n$/,
  );
  assert.deepEqual(await readdir(join(root, "wal_005")), []);
});

test("a put of 1 GiB is written as it comes, in little memory", async () => {
  const { storage } = await openNew();
  const chunk = Buffer.alloc(1024 * 1024, 7);
  async function* body(): ByteStream {
    for (let index = 0; index < 1024; index++) yield chunk;
  }
  const before = process.memoryUsage().rss;
  await storage.put("large", { isReopenable: false, open: body }, { signal });
  const grownMiB = (process.memoryUsage().rss - before) / 1024 / 1024;
  assert.ok(grownMiB < 64, `${grownMiB} MiB`);
  assert.equal((await storage.stat("large", { signal })).sizeBytes, 1024 ** 3);
  await storage.delete(["large"], { signal });
});

test("lists are in byte order whatever the folders, prefixes and positions", async () => {
  const segment = fc
    .string({
      unit: fc.constantFrom("a", "b", "-", ".", "0", " ", "é", "\u{1f418}", "\uffee"),
      minLength: 1,
      maxLength: 3,
    })
    .filter((name) => name !== "." && name !== "..");
  const key = fc
    .array(segment, { minLength: 1, maxLength: 3 })
    .map((segments) => segments.join("/"));
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(key, { maxLength: 25 }),
      key,
      key,
      async (keys, prefix, startAfter) => {
        const { root, storage } = await openNew();
        // No key may be a folder of another.
        const stored = keys.filter((one) => !keys.some((other) => other.startsWith(`${one}/`)));
        await putAll(storage, stored);
        const sorted = stored.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        assert.deepEqual(await keysOf(storage, ""), sorted);
        assert.deepEqual(
          await keysOf(storage, prefix),
          sorted.filter((one) => one.startsWith(prefix)),
        );
        const later = sorted.filter(
          (one) => Buffer.compare(Buffer.from(one), Buffer.from(startAfter)) > 0,
        );
        assert.deepEqual(await keysOf(storage, "", { startAfter }), later);
        await rm(root, { recursive: true });
      },
    ),
    { numRuns: 60 },
  );
});

test("the bytes of a small object are one chunk", async () => {
  const { storage } = await openNew();
  await storage.put("a", bytesSource(Buffer.alloc(1000)), { signal });
  assert.equal((await Array.fromAsync(storage.get("a", { signal }))).length, 1);
  assert.equal((await readAll(storage.get("a", { signal }))).length, 1000);
});
