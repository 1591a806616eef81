import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import { mkdir, readFile, truncate } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { readRepositoryIdentity } from "../../src/archive/identity.ts";
import { codecOf } from "../../src/codec/table.ts";
import { StorageError } from "../../src/errors.ts";
import { formatIdentity } from "../../src/layout/identity.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { collectingLog } from "../support/restoring.ts";
import { fail, hang, loseAnswer } from "./recorded-storage.ts";
import { METHODS, openWorkbench, type Workbench } from "./workbench.ts";

const wal = await recordWal();
const [firstName = "", name = ""] = wal.segments;
const content = walFile(wal, name);
const key = `wal_005/${name}.zst`;
const IDENTITY = "walnut_005/cluster.json";
const HISTORY = Buffer.from("1\t0/A000000\tno recovery target\n");
const foreignId = wal.systemId + 1n;

let bench: Workbench;
beforeEach(async () => {
  bench = await openWorkbench();
});
afterEach(() => bench[Symbol.asyncDispose]());

/** Lets the cache know this store, as after the first push of a server's life. */
async function warm(): Promise<void> {
  await bench.push(await bench.file(firstName, walFile(wal, firstName)));
  bench.storage.takeCalls();
}

async function assertFetchable(fileName: string, bytes: Uint8Array): Promise<void> {
  const destination = join(bench.directory, "fetched");
  await bench.fetch(fileName, destination);
  assert.ok((await readFile(destination)).equals(bytes), "other bytes came back");
}

test("the first push takes the repository and looks for the file under other extensions", async () => {
  assert.equal(await bench.push(await bench.file(name, content)), "archived");
  assert.deepEqual(bench.storage.takeCalls(), [
    `get ${IDENTITY}`,
    "list basebackups_005/",
    `put new ${IDENTITY}`,
    `list wal_005/${name}`,
    `put new ${key}`,
    `list wal_005/${name}`,
  ]);
  assert.equal(await readRepositoryIdentity(bench.memory, bench), wal.systemId);
  await assertFetchable(name, content);
});

test("each further push is one request, create-only", async () => {
  await warm();
  for (const next of wal.segments.slice(1)) {
    const path = await bench.file(next, walFile(wal, next));
    assert.equal(await bench.push(path), "archived");
    assert.deepEqual(bench.storage.takeCalls(), [`put new wal_005/${next}.zst`]);
  }
});

for (const method of METHODS) {
  test(`what ${method} stored comes back`, async () => {
    const codec = codecOf(method);
    assert.equal(await bench.push(await bench.file(name, content), { codec }), "archived");
    const suffix = codec.extension === "" ? "" : `.${codec.extension}`;
    assert.ok(bench.memory.keys.includes(`wal_005/${name}${suffix}`), bench.memory.keys.join());
    await assertFetchable(name, content);
  });
}

test("without a cache directory it only costs requests", async () => {
  const cacheDirectory = join(await bench.file("no-directory", Buffer.of()), "cache");
  for (const next of wal.segments.slice(0, 2)) {
    await bench.push(await bench.file(next, walFile(wal, next)), { cacheDirectory });
  }
  await assertFetchable(name, content);
});

const others = [
  { file: `${name}.00000028.backup`, bytes: Buffer.from("START WAL LOCATION: 0/2000028\n") },
  { file: "00000002.history", bytes: HISTORY },
  { file: `${name}.partial`, bytes: content },
  { file: "anything else", bytes: Buffer.from("as it is") },
  { file: name.toLowerCase().replace("0", "a"), bytes: Buffer.from("as it is") },
  { file: "empty", bytes: Buffer.of() },
];
for (const { file, bytes } of others) {
  test(`${file} is archived as well`, async () => {
    await warm();
    assert.equal(await bench.push(await bench.file(file, bytes)), "archived");
    // Others may push the same history with another compression: it is looked for.
    const look = file.endsWith(".history") ? [`list wal_005/${file}`] : [];
    const calls = [...look, `put new wal_005/${file}.zst`, ...look];
    const sumKey = `walnut_005/sums/${file}.json`;
    const isSummed = /\.(history|backup)$/.test(file);
    const sumPut = isSummed ? [`put over ${sumKey}`] : [];
    assert.deepEqual(bench.storage.takeCalls(), [...calls, ...sumPut]);
    await assertFetchable(file, bytes);
    if (!isSummed) return;
    const sum = bench.memory.bytesOf(sumKey)?.toString() ?? "";
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    assert.deepEqual(JSON.parse(sum), { wal: file, size: bytes.length, sha256 });
  });
}

test("a sum that can't be stored keeps no history file in pg_wal; the next push brings it", async () => {
  const name = "00000002.history";
  const path = await bench.file(name, HISTORY);
  const log = collectingLog();
  const away = new StorageError("403", { isRetryable: false });
  bench.storage.interceptOnce(/^put over walnut_005\/sums\//, fail(away));
  assert.equal(await bench.push(path, { log }), "archived");
  assert.equal(bench.memory.bytesOf(`walnut_005/sums/${name}.json`), undefined);
  assert.match(log.lines.join("\n"), /sum of a file could not be stored.*403/);
  assert.equal(await bench.push(path), "already archived");
  assert.ok(bench.memory.bytesOf(`walnut_005/sums/${name}.json`) !== undefined);
});

test("a file outside of any data directory has no cluster to ask for", async () => {
  assert.equal(
    await bench.push(await bench.file("00000002.history", Buffer.from("1\t0/A\n"))),
    "archived",
  );
  assert.equal(bench.memory.bytesOf(IDENTITY), undefined);
});

test("a history file in pg_wal belongs to the cluster of pg_control", async () => {
  await bench.file("global/pg_control", wal.control);
  const path = await bench.file("pg_wal/00000002.history", HISTORY);
  await bench.put(IDENTITY, Buffer.from(formatIdentity(foreignId)));
  await assert.rejects(bench.push(path), { name: "WrongClusterError" });
  assert.deepEqual(bench.memory.keys, [IDENTITY]);
});

test("another cluster's repository is refused before the first byte", async () => {
  await bench.put(IDENTITY, Buffer.from(formatIdentity(foreignId)));
  await assert.rejects(bench.push(await bench.file(name, content)), {
    name: "WrongClusterError",
    message:
      `this server is cluster ${wal.systemId}, but repository memory://test belongs to cluster ` +
      `${foreignId} (says ${IDENTITY})`,
  });
  assert.deepEqual(bench.storage.takeCalls(), [`get ${IDENTITY}`]);
});

test("the cache is not believed when it names another cluster", async () => {
  await warm();
  const foreign = Buffer.from(content);
  foreign.writeBigUInt64LE(foreignId, 24);
  await assert.rejects(bench.push(await bench.file(name, foreign)), { name: "WrongClusterError" });
  assert.deepEqual(bench.storage.takeCalls(), [`get ${IDENTITY}`]);
});

function patched(at: number, bytes: readonly number[]): Buffer {
  const copy = Buffer.from(content);
  copy.set(bytes, at);
  return copy;
}
const half = content.length / 2;
const wrongFiles = [
  { what: "empty", bytes: Buffer.of(), message: / has 0 bytes, its header alone needs 40$/ },
  { what: "39 bytes", bytes: content.subarray(0, 39), message: / has 39 bytes, its header/ },
  { what: "zeros", bytes: Buffer.alloc(content.length), message: /: magic 0x0$/ },
  { what: "no WAL", bytes: Buffer.alloc(content.length, "x"), message: /: magic 0x7878$/ },
  { what: "with a short header", bytes: patched(2, [0]), message: /has a short header$/ },
  {
    what: "another segment",
    bytes: walFile(wal, firstName),
    message: /holds WAL from 0\/800000 on, its name stands for 0\/900000$/,
  },
  {
    what: "of a later timeline",
    bytes: patched(4, [2]),
    message: /written on timeline 2, its name stands for timeline 1$/,
  },
  {
    what: "cut in half",
    bytes: content.subarray(0, half),
    message: new RegExp(`has ${half} bytes, its header says ${content.length}$`),
  },
  {
    what: "longer by a byte",
    bytes: Buffer.concat([content, Buffer.of(0)]),
    message: new RegExp(`has ${content.length + 1} bytes, its header says ${content.length}$`),
  },
  {
    what: "of another segment size",
    bytes: patched(32, [0, 0, 0x20, 0]),
    message:
      /WAL page at 0\/900000 has a long header but no segment of 2097152 bytes begins there$/,
  },
];
for (const { what, bytes, message } of wrongFiles) {
  for (const file of [name, `${name}.partial`]) {
    test(`${file.slice(24)} segment that is ${what}: refused without a request`, async () => {
      const path = await bench.file(file, bytes);
      await assert.rejects(bench.push(path), (error) => {
        assert.ok(error instanceof Error);
        assert.match(error.name, /^(FormatError|TruncatedError)$/);
        assert.match(error.message, message);
        return true;
      });
      assert.deepEqual(bench.storage.takeCalls(), []);
    });
  }
}

const wrongHistories = [
  { text: "1\t0/A\n3\t0/B\n", message: /^line 2 of the history of timeline 2 has timeline 3$/ },
  { text: "1\t0/A\n1\t0/B\n", message: /^line 2 of a timeline history has timeline 1 after 1$/ },
  {
    text: "1 no\n",
    message: /^line 1 of a timeline history is not "timeline, LSN, reason": "1 no"$/,
  },
  { text: "\0".repeat(40), message: /^line 1 of a timeline history is not/ },
  { text: " ".repeat(5 * 1024 * 1024), message: /is no timeline history: it has 5242880 bytes$/ },
];
for (const { text, message } of wrongHistories) {
  test(`a history that begins ${JSON.stringify(text.slice(0, 12))} is refused`, async () => {
    const path = await bench.file("00000002.history", Buffer.from(text));
    await assert.rejects(bench.push(path), { name: "FormatError", message });
    assert.deepEqual(bench.storage.takeCalls(), []);
  });
}

test("what is no readable file is a local error without a request", async () => {
  const missing = join(bench.directory, name);
  await assert.rejects(bench.push(missing), {
    name: "LocalFileError",
    message: `cannot read ${missing}: no such file or directory (ENOENT)`,
  });
  await mkdir(missing);
  await assert.rejects(bench.push(missing), {
    name: "LocalFileError",
    message: `cannot archive ${missing}: it is no regular file`,
  });
  const pipe = join(bench.directory, "pipe");
  execFileSync("mkfifo", [pipe]);
  await assert.rejects(bench.push(pipe), { name: "LocalFileError" });
  assert.deepEqual(bench.storage.takeCalls(), []);
});

for (const { what, sizeBytes } of [
  { what: "shrinks", sizeBytes: half },
  { what: "grows", sizeBytes: content.length + 1 },
]) {
  test(`nothing is stored of a file that ${what} meanwhile`, async () => {
    await warm();
    const path = await bench.file(name, content);
    bench.storage.interceptOnce(/^put/, async (next) => {
      await truncate(path, sizeBytes);
      await next();
    });
    await assert.rejects(bench.push(path), {
      name: "LocalFileError",
      message: /changed while it was read: it had 1048576 bytes, now (524288|it has more)$/,
    });
    assert.equal(bench.memory.bytesOf(key), undefined);
  });
}

test("a lost answer to our own put ends well, at once or in the next call", async () => {
  await warm();
  const path = await bench.file(name, content);
  const error = new StorageError("connection reset", { isRetryable: true });
  // What the retrying wrapper does with such an error: the same put again.
  bench.storage.interceptOnce(/^put/, async (next) => {
    await next();
    await next();
  });
  assert.equal(await bench.push(path), "already archived");

  await bench.memory.delete([key], bench);
  bench.storage.interceptOnce(/^put/, loseAnswer(error));
  await assert.rejects(bench.push(path), error);
  assert.equal(await bench.push(path), "already archived");
  await assertFetchable(name, content);
});

test("of two pushers of one file at once one stores and the other sees it", async () => {
  await warm();
  const path = await bench.file(name, content);
  const outcomes = await Promise.all([bench.push(path), bench.push(path)]);
  assert.deepEqual(outcomes.toSorted(), ["already archived", "archived"]);
});

test("every call to the store may fail: the push says so, and the next one ends well", async () => {
  const path = await bench.file(name, content);
  const steps = [
    `get ${IDENTITY}`,
    "list base",
    `put new ${IDENTITY}`,
    "list wal",
    `put new ${key}`,
  ];
  for (const step of steps) {
    const error = new StorageError(`503 at ${step}`, { isRetryable: true });
    bench.storage.interceptOnce(new RegExp(`^${step}`), fail(error));
    await assert.rejects(bench.push(path), error);
    assert.equal(bench.memory.bytesOf(key), undefined);
  }
  assert.equal(await bench.push(path), "archived");

  for (const step of [`put new ${key}`, `get ${key}`]) {
    const error = new StorageError(`503 at ${step}`, { isRetryable: true });
    bench.storage.interceptOnce(new RegExp(`^${step}`), fail(error));
    await assert.rejects(bench.push(path), error);
  }
  assert.equal(await bench.push(path), "already archived");
});

const waits = [
  { step: `get ${IDENTITY}`, text: "asking memory://test which cluster it belongs to" },
  { step: "list base", text: "asking memory://test which cluster it belongs to" },
  { step: "list wal", text: `listing the objects of ${name} in memory://test` },
  { step: `put new ${key}`, text: `storing ${key} in memory://test` },
];
for (const { step, text } of waits) {
  test(`a store that does not answer "${step.slice(0, 8)}" is a deadline, then all is well`, async () => {
    const path = await bench.file(name, content);
    bench.storage.interceptOnce(new RegExp(`^${step}`), hang);
    await assert.rejects(bench.push(path, { timeoutMs: 100 }), {
      name: "DeadlineError",
      message: `${text} did not finish within 100 ms`,
    });
    assert.equal(bench.memory.bytesOf(key), undefined);
    assert.equal(await bench.push(path), "archived");
  });
}
