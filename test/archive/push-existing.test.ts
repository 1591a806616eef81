/** Pushing what the store holds already, in every state that it can be in. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fc } from "../support/property.ts";
import { compareWithStored } from "../../src/archive/comparison.ts";
import { inspectLocalWal } from "../../src/archive/local-wal.ts";
import { codecOf } from "../../src/codec/table.ts";
import { ObjectExistsError, OperationError, StorageError } from "../../src/errors.ts";
import { walkSegment } from "../../src/postgres/wal-record.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { fail, hang } from "./recorded-storage.ts";
import { flipBit, METHODS, openWorkbench, type Workbench } from "./workbench.ts";

const wal = await recordWal();
/** The last one ends with a switch record somewhere in the middle. */
const name = wal.segments.at(-1) ?? "";
const content = walFile(wal, name);
const { endOfRecords } = walkSegment(content, { name });
const key = `wal_005/${name}.zst`;
const { signal } = new AbortController();
const HISTORY = Buffer.from("1\t0/A000000\tno recovery target specified\n");

let bench: Workbench;
beforeEach(async () => {
  bench = await openWorkbench();
});
afterEach(() => bench[Symbol.asyncDispose]());

const hash12 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex").slice(0, 12);

async function store(bytes: Uint8Array): Promise<Buffer> {
  await bench.put(key, bytes);
  return Buffer.from(bytes);
}

/**
 * The same records up to a record boundary, then nothing: the segment as it was a little earlier.
 */
function earlier(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  return copy.fill(0, walkSegment(copy.fill(0, endOfRecords / 2), { name }).endOfRecords);
}

/** Other bytes where nobody reads. */
function withOtherTail(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes).fill(0xa5, endOfRecords);
}

test("the same file again is no write", async () => {
  const path = await bench.file(name, content);
  assert.equal(await bench.push(path), "archived");
  bench.storage.takeCalls();
  assert.equal(await bench.push(path), "already archived");
  assert.deepEqual(bench.storage.takeCalls(), [`put new ${key}`, `get ${key}`]);
});

test("copies that differ only behind the last record are the same (E11)", async () => {
  const stored = await store(await bench.compress("zstd", content));
  const path = await bench.file(name, withOtherTail(content));
  assert.equal(await bench.push(path), "already archived");
  assert.deepEqual(bench.memory.bytesOf(key), stored);
});

const conflicts = [
  { what: "a longer valid copy (E12)", stored: earlier(content), local: content },
  { what: "a shorter valid copy", stored: content, local: earlier(content) },
  { what: "a changed record", stored: content, local: flipBit(content, endOfRecords - 64) },
  { what: "a stored one with a changed record", stored: flipBit(content, 4096), local: content },
  { what: "no WAL at all", stored: Buffer.alloc(content.length, 7), local: content },
  { what: "a stored one that goes on", stored: Buffer.concat([content, HISTORY]), local: content },
];
for (const { what, stored, local } of conflicts) {
  test(`${what} is a conflict, and nothing changes`, async () => {
    const object = await store(await bench.compress("zstd", stored));
    const path = await bench.file(name, local);
    await assert.rejects(bench.push(path), (error) => {
      assert.ok(error instanceof OperationError);
      assert.equal(error.name, "ConflictError");
      const hashes = `(archived sha256 ${hash12(stored)}, local sha256 ${hash12(local)}`;
      const text = `WAL file ${name} is archived with other content as ${key} in memory://test `;
      assert.ok(error.message.startsWith(text + hashes), error.message);
      assert.match(error.hint ?? "", /^Nothing was overwritten/);
      return true;
    });
    assert.deepEqual(bench.memory.bytesOf(key), object);
  });
}

test("a history file is never overwritten (E10)", async () => {
  assert.equal(await bench.push(await bench.file("00000002.history", HISTORY)), "archived");
  const first = Buffer.from(bench.memory.bytesOf("wal_005/00000002.history.zst") ?? []);
  for (const changed of [
    Buffer.concat([HISTORY, HISTORY.subarray(0, 1), Buffer.from("#")]),
    HISTORY.subarray(0, -3),
    Buffer.from("1\t0/B000000\tno recovery target specified\n"),
  ]) {
    const path = await bench.file("00000002.history", changed);
    await assert.rejects(bench.push(path), { name: /ConflictError|FormatError/ });
  }
  assert.deepEqual(bench.memory.bytesOf("wal_005/00000002.history.zst"), first);
  assert.equal(await bench.push(await bench.file("00000002.history", HISTORY)), "already archived");
});

test("a history that was stored shorter without compression is a conflict, not a leftover", async () => {
  const codec = codecOf("none");
  await bench.put("wal_005/00000002.history", HISTORY.subarray(0, 11));
  const path = await bench.file("00000002.history", HISTORY);
  await assert.rejects(bench.push(path, { codec }), { name: "ConflictError" });
});

for (const method of METHODS) {
  const codec = codecOf(method);
  const extension = codec.extension === "" ? "" : `.${codec.extension}`;
  const objectKey = `wal_005/${name}${extension}`;

  for (const share of [0, 0.001, 0.5, 0.999]) {
    test(`${method}: a leftover of ${share * 100} % is replaced (E01)`, async () => {
      const whole = await bench.compress(method, content);
      await bench.put(objectKey, whole.subarray(0, Math.floor(whole.length * share)));
      const path = await bench.file(name, content);
      assert.equal(await bench.push(path, { codec }), "leftover replaced");
      assert.equal(await bench.push(path, { codec }), "already archived");
    });
  }

  test(`${method}: an empty history object is replaced`, async () => {
    await bench.put(`wal_005/00000002.history${extension}`, Buffer.of());
    const path = await bench.file("00000002.history", HISTORY);
    assert.equal(await bench.push(path, { codec }), "leftover replaced");
    assert.equal(await bench.push(path, { codec }), "already archived");
  });
}

test("a cut-off object with another beginning is a conflict, not a leftover", async () => {
  const other = await bench.compress("none", flipBit(content, 5000));
  await bench.put(`wal_005/${name}`, other.subarray(0, 10_000));
  const path = await bench.file(name, content);
  await assert.rejects(bench.push(path, { codec: codecOf("none") }), { name: "ConflictError" });
});

test("a cut-off object whose beginning can be read, and differs, is a conflict", async () => {
  const other = await bench.compress("brotli", flipBit(content, 5000));
  const cut = other.subarray(0, Math.floor(other.length * 0.8));
  await bench.put(`wal_005/${name}.br`, cut);
  const path = await bench.file(name, content);
  await assert.rejects(bench.push(path, { codec: codecOf("brotli") }), { name: "ConflictError" });
  assert.deepEqual(bench.memory.bytesOf(`wal_005/${name}.br`), cut);
});

test("an object that grows between two readings is not given up", async () => {
  const whole = await store(await bench.compress("zstd", content));
  for (const [pattern, length] of [
    [/^get wal_/, 1000],
    [/^stat wal_/, 2000],
  ] as const) {
    bench.storage.interceptOnce(pattern, async (next) => {
      await bench.put(key, whole.subarray(0, length));
      await next();
    });
  }
  await assert.rejects(bench.push(await bench.file(name, content)), {
    name: "DamagedError",
    message:
      `object ${key} in memory://test ended after 1000 bytes, then after 2000 bytes; ` +
      "the store says it has 2000",
  });
});

test("an object is not given up on one short reading", async () => {
  const whole = await store(await bench.compress("zstd", content));
  bench.storage.interceptOnce(/^get wal_/, async (next) => {
    await bench.put(key, whole.subarray(0, 1000));
    await next();
  });
  bench.storage.interceptOnce(/^stat/, async (next) => {
    await bench.put(key, whole);
    await next();
  });
  assert.equal(await bench.push(await bench.file(name, content)), "already archived");
  assert.deepEqual(bench.memory.bytesOf(key), whole);
});

test("a store that says that there is more than it gives is not believed", async () => {
  const whole = await store(await bench.compress("zstd", content));
  for (const pattern of [/^get wal_/, /^get wal_/, /^get wal_/]) {
    bench.storage.interceptOnce(pattern, async (next) => {
      await bench.put(key, whole.subarray(0, 1000));
      await next();
    });
  }
  bench.storage.interceptOnce(/^stat/, async (next) => {
    await bench.put(key, whole);
    await next();
  });
  await assert.rejects(bench.push(await bench.file(name, content)), {
    name: "DamagedError",
    message:
      `object ${key} in memory://test ended after 1000 bytes, then after 1000 bytes; ` +
      `the store says it has ${whole.length}`,
  });
});

test("a damaged object is named and stays", async () => {
  const whole = await bench.compress("zstd", content);
  const stored = await store(flipBit(whole, Math.floor(whole.length / 2)));
  await assert.rejects(bench.push(await bench.file(name, content)), (error) => {
    assert.ok(error instanceof OperationError);
    assert.equal(error.name, "DamagedError");
    assert.match(error.message, /^object wal_005\/\S+ in memory:\/\/test is damaged: /);
    assert.match(error.hint ?? "", /^Nothing was overwritten/);
    return true;
  });
  assert.deepEqual(bench.memory.bytesOf(key), stored);
});

test("the same file under another extension is found once, then known", async () => {
  await bench.put(`wal_005/${name}.lz4`, await bench.compress("lz4", content));
  const path = await bench.file(name, content);
  assert.equal(await bench.push(path), "already archived");
  assert.ok(!bench.memory.keys.includes(key));
});

test("other content under another extension is a conflict", async () => {
  const other = flipBit(content, 5000);
  await bench.put(`wal_005/${name}.br`, await bench.compress("brotli", other));
  const path = await bench.file(name, content);
  await assert.rejects(bench.push(path), { name: "ConflictError", message: /\.br in memory/ });
  assert.ok(!bench.memory.keys.includes(key));
});

test("a leftover under another extension goes once the file is safe", async () => {
  await bench.put(`wal_005/${name}.lz4`, Buffer.of());
  await bench.put(`wal_005/${name}.`, content.subarray(0, 100));
  const path = await bench.file(name, content);
  assert.equal(await bench.push(path), "leftover replaced");
  const calls = bench.storage.takeCalls();
  const isPut = (call: string) => call === `put new ${key}`;
  assert.ok(calls.findIndex(isPut) < calls.findIndex((call) => call.startsWith("delete")));
  assert.deepEqual(
    bench.memory.keys.filter((stored) => stored.startsWith("wal_005/")),
    [key],
  );
});

test("an object in a compression that we can't read is no reason to store another", async () => {
  await bench.put(`wal_005/${name}.lzo`, Buffer.from("lzo"));
  const path = await bench.file(name, content);
  await assert.rejects(bench.push(path), {
    name: "RefusedError",
    message: `object wal_005/${name}.lzo in memory://test is compressed with lzo, which walnut cannot read`,
  });
});

test("an object that vanishes before it can be compared is stored after all", async () => {
  bench.storage.interceptOnce(/^put new wal_/, fail(new ObjectExistsError(key, "memory://test")));
  assert.equal(await bench.push(await bench.file(name, content)), "archived");
});

test("an object that comes and goes is an error in the end", async () => {
  for (let round = 1; round <= 3; round += 1) {
    bench.storage.interceptOnce(/^put new wal_/, fail(new ObjectExistsError(key, "memory://test")));
  }
  await assert.rejects(bench.push(await bench.file(name, content)), {
    name: "StorageError",
    message: `object ${key} in memory://test was there and gone again 3 times`,
  });
});

/** Why a push ends in which `step` hangs. A busy machine gets there with a longer limit only. */
async function errorOfHanging(step: string, path: string): Promise<unknown> {
  let isThere = false;
  bench.storage.interceptOnce(new RegExp(`^${step}`), (...words) => {
    isThere = true;
    return hang(...words);
  });
  for (let timeoutMs = 300; ; timeoutMs *= 4) {
    const [ended] = await Promise.allSettled([bench.push(path, { timeoutMs })]);
    if (ended.status === "fulfilled") assert.fail(`${step} did not happen`);
    if (isThere) return ended.reason;
  }
}

test("every further call may fail or hang: the push says so, and the next one ends well", async () => {
  const whole = await bench.compress("zstd", content);
  const path = await bench.file(name, content);
  const lz4Key = `wal_005/${name}.lz4`;
  const steps = [
    { step: `get ${lz4Key}`, text: `comparing ${lz4Key}` },
    { step: `stat ${lz4Key}`, text: `comparing ${lz4Key}` },
    { step: `get ${key}`, text: `comparing ${key}` },
    { step: `stat ${key}`, text: `comparing ${key}` },
    { step: `put over ${key}`, text: `storing ${key}` },
    { step: `delete ${lz4Key}`, text: `deleting ${lz4Key}` },
  ];
  for (const { step, text } of steps) {
    await bench.put(lz4Key, Buffer.of());
    await store(whole.subarray(0, 1000));
    const error = new StorageError(`503 at ${step}`, { isRetryable: true });
    bench.storage.interceptOnce(new RegExp(`^${step}`), fail(error));
    await assert.rejects(bench.push(path), error);
    const late = await errorOfHanging(step, path);
    assert.ok(late instanceof OperationError);
    assert.equal(late.name, "DeadlineError");
    assert.ok(late.message.startsWith(text), late.message);
    assert.match(await bench.push(path), /^(leftover replaced|already archived)$/);
    assert.deepEqual(bench.memory.bytesOf(key), whole);
    assert.equal(bench.memory.bytesOf(lz4Key), undefined);
    await rm(join(bench.directory, "cache"), { recursive: true });
  }
});

test("whatever state the object is in: a push that succeeds leaves the whole file there", async () => {
  const whole = await bench.compress("zstd", content);
  const plain = await bench.compress("none", content);
  const damage = fc.oneof(
    fc.record({ kind: fc.constant("flip" as const), at: fc.nat(), bit: fc.nat(7) }),
    fc.record({ kind: fc.constant("cut" as const), at: fc.nat() }),
    fc.record({ kind: fc.constant("zeros" as const), at: fc.nat() }),
  );
  const destination = join(bench.directory, "fetched");
  const path = await bench.file(name, content);
  await fc.assert(
    fc.asyncProperty(fc.constantFrom("zstd", "none"), damage, async (method, change) => {
      const good = method === "zstd" ? whole : plain;
      const objectKey = method === "zstd" ? key : `wal_005/${name}`;
      const at = change.at % good.length;
      const stored = { flip: flipBit(good, at), cut: good.subarray(0, at), zeros: good }[
        change.kind
      ];
      const bytes = change.kind === "zeros" ? Buffer.from(good).fill(0, at) : stored;
      await bench.put(objectKey, bytes);
      try {
        await bench.push(path, { codec: codecOf(method) });
      } catch (error) {
        assert.ok(error instanceof OperationError, String(error));
        assert.deepEqual(bench.memory.bytesOf(objectKey), Buffer.from(bytes));
        return;
      } finally {
        const kept = bench.memory.keys.filter((stored) => stored === objectKey);
        assert.deepEqual(kept, [objectKey]);
      }
      await bench.fetch(name, destination);
      const fetched = await readFile(destination);
      assert.ok(fetched.subarray(0, endOfRecords).equals(content.subarray(0, endOfRecords)));
      await bench.memory.delete([objectKey], bench);
    }),
    { numRuns: 60 },
  );
});

/** Compares the segment with `stored`, not compressed, of which some reads are changed on their way. */
async function compared(stored: Uint8Array, corrupt: Readonly<Record<number, number>> = {}) {
  const plain = { key: `wal_005/${name}`, extension: "" };
  await bench.put(plain.key, stored);
  const line = new FaultyStorage(bench.memory);
  for (const [call, byte] of Object.entries(corrupt)) {
    line.fault("get", Number(call), { kind: "corrupt", byte });
  }
  const path = await bench.file(name, content);
  const local = await inspectLocalWal({ path, name }, { signal });
  return await compareWithStored(line, { stored: plain, local }, { codecJobs: 1, signal });
}

test("a segment that came changed is no collision; one that is another is", async () => {
  assert.equal((await compared(content, { 1: 9000 })).kind, "same");
  assert.equal((await compared(content, { 1: 9000, 2: 9001 })).kind, "same");
  await assert.rejects(compared(content, { 1: 9000, 2: 9001, 3: 9002 }), {
    name: "DamagedError",
    message: /came with other content when it was read again$/,
  });
  assert.equal((await compared(flipBit(content, 9000))).kind, "different");
});
