import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import {
  type FileHandle,
  mkdir,
  mkdtemp,
  open,
  readFile,
  readdir,
  rm,
  stat,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { LocalFileError } from "../../src/errors.ts";
import { createFileDurably, fsyncDirectory, writeFileDurably } from "../../src/io/durable.ts";
import { WRITE_BYTES, writeAll } from "../../src/io/write-all.ts";
import { patternBytes, patternSource } from "../support/bodies.ts";
import { leaveOut } from "../support/left-out.ts";

const signal = new AbortController().signal;
const scratch = await mkdtemp(join(tmpdir(), "walnut-durable-"));
after(() => rm(scratch, { recursive: true }));

async function makeDirectory(name: string): Promise<string> {
  const path = join(scratch, name);
  await mkdir(path);
  return path;
}

test("bytes and streams arrive whole, replace what was there, and leave nothing beside", async () => {
  const directory = await makeDirectory("whole");
  const path = join(directory, "file");
  await writeFileDurably(path, Buffer.from("first"), { signal });
  assert.equal(await readFile(path, "utf8"), "first");
  assert.equal((await stat(path)).mode & 0o777, 0o600);

  await writeFileDurably(path, patternSource(3_000_000).open(), { signal, mode: 0o640 });
  assert.ok((await readFile(path)).equals(patternBytes(3_000_000)));
  assert.equal((await stat(path)).mode & 0o777, 0o640);
  assert.deepEqual(await readdir(directory), ["file"]);
});

test("a file is created once", async () => {
  const directory = await makeDirectory("once");
  const path = join(directory, "file");
  const texts = Array.from({ length: 8 }, (_, index) => `writer ${index}`);
  const results = await Promise.all(
    texts.map((text) => createFileDurably(path, Buffer.from(text), { signal })),
  );
  assert.equal(results.filter(Boolean).length, 1);
  assert.equal(await readFile(path, "utf8"), texts[results.indexOf(true)]);
  assert.deepEqual(await readdir(directory), ["file"]);
});

test("directories below the root are made, the root never", async () => {
  const root = await makeDirectory("root");
  await writeFileDurably(join(root, "a/b/c"), Buffer.from("x"), { signal, root });
  assert.equal(await readFile(join(root, "a/b/c"), "utf8"), "x");

  const missing = join(scratch, "missing root");
  const write = writeFileDurably(join(missing, "a/b"), Buffer.from("x"), { signal, root: missing });
  await assert.rejects(write, { name: "LocalFileError", message: /no such file or directory/ });
  await assert.rejects(stat(missing), { code: "ENOENT" });
  const alone = writeFileDurably(join(missing, "b"), Buffer.from("x"), { signal });
  await assert.rejects(alone, { name: "LocalFileError" });
});

test("a failing body, and an abort, leave the old file and nothing else", async () => {
  const directory = await makeDirectory("failing");
  const path = join(directory, "file");
  await writeFileDurably(path, Buffer.from("old"), { signal });
  const failure = new Error("source broke");
  async function* body() {
    yield Buffer.alloc(2_000_000);
    throw failure;
  }
  await assert.rejects(writeFileDurably(path, body(), { signal }), (error) => error === failure);

  const controller = new AbortController();
  async function* stalled() {
    yield Buffer.alloc(10);
    controller.abort(failure);
    await new Promise<never>(() => {});
  }
  const aborted = writeFileDurably(path, stalled(), { signal: controller.signal });
  await assert.rejects(aborted, (error) => error === failure);
  assert.equal(await readFile(path, "utf8"), "old");
  assert.deepEqual(await readdir(directory), ["file"]);
});

test("an abort before the rename comes in time", async () => {
  const directory = await makeDirectory("abort");
  const controller = new AbortController();
  const write = writeFileDurably(join(directory, "file"), Buffer.alloc(1_000_000), {
    signal: controller.signal,
  });
  controller.abort(new Error("told to stop"));
  await assert.rejects(write, /told to stop/);
  assert.deepEqual(await readdir(directory), []);
});

test("errors of the file system name the path, the cause and a way out", async () => {
  const directory = await makeDirectory("errors");
  await mkdir(join(directory, "sub"));
  const rows = [
    { path: join(directory, "sub"), message: /cannot write .*\/sub: it is a directory \(EISDIR\)/ },
    { path: join(directory, "no/file"), message: /cannot create .*no such file or directory/ },
    { path: join(directory, "x".repeat(250)), message: /the name is too long/ },
  ];
  for (const { path, message } of rows) {
    const write = writeFileDurably(path, Buffer.from("x"), { signal });
    await assert.rejects(
      write,
      (error) => error instanceof LocalFileError && message.test(error.message),
    );
  }
  assert.deepEqual(await readdir(directory), ["sub"]);
  await assert.rejects(
    fsyncDirectory(join(directory, "none")),
    /cannot fsync directory .*none: no such/,
  );
});

test("a refused write names the path and what is needed", async () => {
  // Refused to root as well: denied, or mounted read-only in a container.
  const write = writeFileDurably("/sys/kernel/walnut-test", Buffer.from("x"), { signal });
  await assert.rejects(write, {
    name: "LocalFileError",
    message: /cannot create \/sys\/kernel\/walnut-test.*(\(EACCES\)|\(EROFS\)|\(EPERM\))$/,
    hint: /permission|for writing/,
  });
});

test("whoever waits for the content learns of it before the file has its name", async () => {
  const directory = await makeDirectory("written");
  const path = join(directory, "file");
  const found: (readonly [string, number])[] = [];
  await writeFileDurably(path, patternSource(3_000_000).open(), {
    signal,
    isNameDurable: false,
    onWritten() {
      for (const name of readdirSync(directory)) {
        found.push([name, statSync(join(directory, name)).size]);
      }
    },
  });
  const [[name, sizeBytes] = ["", 0], ...others] = found;
  assert.match(name, /^file\.tmp-/);
  assert.equal(sizeBytes, 3_000_000);
  assert.deepEqual(others, []);
  assert.deepEqual(await readdir(directory), ["file"]);

  const broken = (async function* () {
    yield Buffer.from("x");
    throw new Error("the body breaks");
  })();
  const options = { signal, onWritten: () => assert.fail("not all was written") };
  await assert.rejects(writeFileDurably(path, broken, options), /the body breaks/);
});

test("whoever works alongside is given every byte once, in order, also where writes are short", async () => {
  const path = join(await makeDirectory("alongside"), "file");
  const handed: Buffer[] = [];
  const alongside = (piece: Uint8Array) => void handed.push(Buffer.from(piece));
  await writeFileDurably(path, patternSource(3_000_000).open(), { signal, alongside });
  assert.ok(Buffer.concat(handed).equals(patternBytes(3_000_000)));
  assert.ok((await readFile(path)).equals(patternBytes(3_000_000)));

  handed.length = 0;
  const real = await open(path, "w");
  await writeAll(shortWriting(real, []), patternBytes(2500), { alongside });
  await real.close();
  assert.ok(Buffer.concat(handed).equals(patternBytes(2500)));
  assert.ok((await readFile(path)).equals(patternBytes(2500)));
});

test("a blocking write gives others a turn, and ends with what it was given", async () => {
  const path = join(await makeDirectory("blocking"), "file");
  const handed: Buffer[] = [];
  const alongside = (piece: Uint8Array) => void handed.push(Buffer.from(piece));
  let [turnCount, isOver] = [0, false];
  const count = (): void => {
    turnCount += 1;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  const options = { signal, alongside, isBlocking: true };
  await writeFileDurably(path, patternSource(3_000_000).open(), options);
  const countMeanwhile = turnCount;
  isOver = true;
  assert.ok(countMeanwhile >= 3_000_000 / WRITE_BYTES, String(countMeanwhile));
  assert.ok(Buffer.concat(handed).equals(patternBytes(3_000_000)));
  assert.ok((await readFile(path)).equals(patternBytes(3_000_000)));

  await using real = await open(path, "r+");
  await writeAll(real, Buffer.from("placed"), { isBlocking: true, position: 2_999_998 });
  assert.equal((await readFile(path)).subarray(2_999_998).toString(), "placed");
  const refused = { signal, isBlocking: true, alongside: refuse };
  await assert.rejects(writeFileDurably(path, patternBytes(1), refused), /a wrong record/);
  await using closed = await open(path, "r");
  await assert.rejects(writeAll(closed, Buffer.from("x"), { isBlocking: true }), { code: "EBADF" });
});

function refuse(): never {
  throw new Error("a wrong record");
}

test("what fails alongside ends the write, once the disk has let go of the memory", async () => {
  const directory = await makeDirectory("alongside-fails");
  const real = await open(join(directory, "slow"), "w");
  const gate = Promise.withResolvers<void>();
  let isEnded = false;
  const slow = new Proxy(real, {
    get: (target, name) =>
      name === "write"
        ? async (bytes: Uint8Array, offset: number, length: number) => {
            await gate.promise;
            return await target.write(bytes, offset, length);
          }
        : Reflect.get(target, name),
  });
  const writing = writeAll(slow, patternBytes(100), { alongside: refuse }).finally(
    () => (isEnded = true),
  );
  writing.catch(() => {});
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isEnded, false);
  gate.resolve();
  await assert.rejects(writing, /a wrong record/);
  await real.close();

  const path = join(directory, "file");
  const options = { signal, alongside: refuse };
  await assert.rejects(writeFileDurably(path, patternBytes(100), options), /a wrong record/);
  assert.deepEqual(await readdir(directory), ["slow"]);
});

test("no call writes so much that Linux looks for memory in large blocks", async () => {
  const path = join(await makeDirectory("pieces"), "file");
  const real = await open(path, "w");
  const lengths: number[] = [];
  const watched = new Proxy(real, {
    get(target, name) {
      if (name !== "write") return Reflect.get(target, name);
      return (bytes: Uint8Array, offset: number, length: number) => {
        lengths.push(length);
        return target.write(bytes, offset, length);
      };
    },
  });
  await writeAll(watched, patternBytes(2_100_000));
  await real.close();
  assert.ok(Math.max(...lengths) <= 256 * 1024, lengths.join());
  assert.ok((await readFile(path)).equals(patternBytes(2_100_000)));
});

/** Takes at most 1000 bytes in a call; `lengths` is told how many. */
function shortWriting(real: FileHandle, lengths: number[]): FileHandle {
  return new Proxy(real, {
    get: (target, name) =>
      name === "write"
        ? async (bytes: Uint8Array, offset: number, length: number) => {
            const result = await target.write(bytes, offset, Math.min(length, 1000));
            lengths.push(result.bytesWritten);
            return result;
          }
        : Reflect.get(target, name),
  });
}

test("short writes are continued, and a disk that takes nothing is an error", async () => {
  const path = join(scratch, "short");
  const real = await open(path, "w");
  const lengths: number[] = [];
  await writeAll(shortWriting(real, lengths), patternBytes(2500));
  await real.close();
  assert.deepEqual(lengths, [1000, 1000, 500]);
  assert.ok((await readFile(path)).equals(patternBytes(2500)));

  const full = new Proxy(real, {
    get: (target, name) =>
      name === "write" ? async () => ({ bytesWritten: 0 }) : Reflect.get(target, name),
  });
  await assert.rejects(writeAll(full, Buffer.from("x")), { name: "LocalFileError" });
});

/** The system calls of one put of 100,000 bytes, as "name path" in their order. */
async function traced(root: string, key: string): Promise<string[]> {
  const program = join(import.meta.dirname, "..", "support", "put-program.ts");
  const output = join(root, "..", "trace");
  const calls = "openat,fsync,rename,link,unlink,mkdir,newfstatat,statx,stat,lstat,access";
  const words = ["-f", "-y", "-qq", "-e", `trace=${calls}`, "-e", "signal=none", "-o", output];
  const run = spawnSync("strace", [...words, process.execPath, program, root, key, "100000"]);
  assert.match(run.stdout.toString(), /done/, run.stderr.toString());
  const lines = (await readFile(output, "utf8")).split("\n");
  const wanted = lines.filter((line) => line.includes(root) && !line.includes("unfinished"));
  return wanted.map((line) => {
    const [, name] = /(\w+)(?:\(| resumed)/.exec(line) ?? [];
    const paths = [...line.matchAll(/["<](\/[^">]*)[">]/g)].map(([, path = ""]) => path);
    const path = paths.findLast((path) => path.startsWith(root)) ?? "";
    return `${name} ${path.slice(root.length).replace(/\.tmp\.[\w-]+/, ".tmp")}`;
  });
}

if (spawnSync("strace", ["-V"]).status !== 0) {
  leaveOut("order of system calls of a put", "strace is not installed");
} else {
  test("a put asks nothing needless, and syncs file, name and new directories in order", async () => {
    const root = await makeDirectory("traced");
    const isRoot = process.getuid?.() === 0;
    assert.deepEqual(await traced(root, "wal_005/a"), [
      "openat /wal_005/a.tmp",
      "mkdir /wal_005",
      // Root looks whose directory it is in.
      ...(isRoot ? ["openat /wal_005", "statx "] : []),
      "openat /wal_005/a.tmp",
      ...(isRoot ? ["statx /wal_005"] : []),
      "fsync /wal_005/a.tmp",
      "link /wal_005/a",
      "unlink /wal_005/a.tmp",
      "openat /wal_005",
      "fsync /wal_005",
      "statx /wal_005",
      "openat ",
      "fsync ",
    ]);
  });
}
