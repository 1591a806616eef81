import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { lstat, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, mock, test } from "node:test";
import { fc } from "../support/property.ts";
import { codecOf } from "../../src/codec/table.ts";
import { OperationError, StorageAccessError, StorageError } from "../../src/errors.ts";
import { walkSegment } from "../../src/postgres/wal-record.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { fail, hang } from "./recorded-storage.ts";
import { flipBit, METHODS, openWorkbench, type Workbench } from "./workbench.ts";

const wal = await recordWal();
const [firstName = "", name = ""] = wal.segments;
const content = walFile(wal, name);
const key = `wal_005/${name}.zst`;
const HISTORY = Buffer.from("1\t0/A000000\tno recovery target specified\n");
let bench: Workbench;
let destination: string;
beforeEach(async () => {
  bench = await openWorkbench();
  await mkdir(join(bench.directory, "pg_wal"));
  destination = join(bench.directory, "pg_wal", "RECOVERYXLOG");
});
afterEach(() => bench[Symbol.asyncDispose]());

const put = (objectKey: string, bytes: Uint8Array) => bench.put(objectKey, bytes);
/** Lets the cache know which extension the archive has. */
async function warm(): Promise<void> {
  await put(`wal_005/${firstName}.zst`, await bench.compress("zstd", walFile(wal, firstName)));
  await bench.fetch(firstName, join(bench.directory, "warm"));
  bench.storage.takeCalls();
}

async function assertFetched(bytes: Uint8Array = content): Promise<void> {
  assert.ok((await readFile(destination)).equals(bytes), "other bytes arrived");
  assert.deepEqual(await readdir(join(bench.directory, "pg_wal")), ["RECOVERYXLOG"]);
}

async function assertNothingFetched(): Promise<void> {
  assert.deepEqual(await readdir(join(bench.directory, "pg_wal")), []);
}

test("the first fetch lists, each further one is one request", async () => {
  await put(`wal_005/${firstName}.zst`, await bench.compress("zstd", walFile(wal, firstName)));
  await put(key, await bench.compress("zstd", content));
  await bench.fetch(firstName, destination);
  assert.deepEqual(bench.storage.takeCalls(), [
    `list wal_005/${firstName}`,
    `get wal_005/${firstName}.zst`,
  ]);
  await bench.fetch(name, destination);
  assert.deepEqual(bench.storage.takeCalls(), [`get ${key}`]);
  await assertFetched();
});

const stored = [
  ...METHODS.map((method) => ({ method, extension: codecOf(method).extension })),
  { method: "none", extension: "." },
] as const;
for (const { method, extension } of stored) {
  const suffix = extension === "" || extension === "." ? extension : `.${extension}`;
  test(`a segment stored as X${suffix} is found and whole`, async () => {
    await warm();
    await put(`wal_005/${name}${suffix}`, await bench.compress(method, content));
    await put(`wal_005/${name}.partial.zst`, Buffer.from("another file"));
    await put(`wal_005/${name}_delta.zst`, Buffer.from("another file"));
    await bench.fetch(name, destination);
    await assertFetched();
  });
}

test("files that are no segments come as they are", async () => {
  const files = [
    { file: "00000002.history", bytes: HISTORY },
    { file: `${name}.00000028.backup`, bytes: Buffer.from("START WAL LOCATION\n") },
    { file: `${name}.partial`, bytes: content },
    { file: "anything", bytes: Buffer.of() },
  ];
  for (const { file, bytes } of files) {
    await put(`wal_005/${file}.zst`, await bench.compress("zstd", bytes));
    await bench.fetch(file, destination);
    await assertFetched(bytes);
  }
});

for (const isWarm of [false, true]) {
  test(`what is not there is proved by a list${isWarm ? ", also with a warm cache" : ""}`, async () => {
    if (isWarm) await warm();
    await put(`wal_005/${name}.00000028.backup.zst`, Buffer.from("another file"));
    await assert.rejects(bench.fetch(name, destination), {
      name: "NotInArchiveError",
      message: `WAL file ${name} is not in the archive memory://test`,
    });
    const get = isWarm ? [`get ${key}`] : [];
    assert.deepEqual(bench.storage.takeCalls(), [
      ...get,
      `list wal_005/${name}`,
      "stat walnut_005/cluster.json",
      "list basebackups_005/",
      "list wal_005/",
      `stat walnut_005/gaps/${name}.json`,
      `list wal_005/${name.slice(0, 8)}`,
    ]);
    await assertNothingFetched();

    // Nothing is remembered of it: the next request looks again (E07).
    await put(key, await bench.compress("zstd", content));
    await bench.fetch(name, destination);
    await assertFetched();
  });
}

test("an empty place proves nothing: it may be a file system that is not mounted", async () => {
  await assert.rejects(bench.fetch(name, destination), {
    name: "StorageError",
    message: "memory://test holds no repository: neither WAL nor backups",
    hint: /mounted/,
  });
  await put("walnut_005/cluster.json", Buffer.from("{}"));
  await assert.rejects(bench.fetch(name, destination), { name: "NotInArchiveError" });
});

for (const method of ["get", "list"]) {
  for (const error of [
    new StorageError("the store answered 503", { isRetryable: true }),
    new StorageAccessError("the store answered 403"),
  ]) {
    test(`a ${method} that fails with ${error.name} never counts as "not there"`, async () => {
      await warm();
      bench.storage.interceptOnce(new RegExp(`^${method}`), fail(error));
      await assert.rejects(bench.fetch(name, destination), error);
      await assertNothingFetched();
    });
  }

  test(`a ${method} that is never answered is a deadline, and the next call is well`, async () => {
    await warm();
    bench.storage.interceptOnce(new RegExp(`^${method}`), hang);
    await assert.rejects(bench.fetch(name, destination, { timeoutMs: 100 }), {
      name: "DeadlineError",
      message: /^(fetching|listing the objects of) \S+ (from|in) memory:\/\/test did not finish/,
    });
    await assertNothingFetched();
    await put(key, await bench.compress("zstd", content));
    await bench.fetch(name, destination);
    await assertFetched();
  });
}

test("an object that is listed but does not exist is no proof of absence", async () => {
  await put(key, await bench.compress("zstd", content));
  bench.storage.interceptOnce(/^get/, async (next) => {
    await bench.memory.delete([key], bench);
    await next();
  });
  await assert.rejects(bench.fetch(name, destination), {
    name: "StorageError",
    message: `memory://test lists object ${key} but says that it does not exist`,
  });
});

function patched(at: number, bytes: readonly number[]): Buffer {
  const copy = Buffer.from(content);
  copy.set(bytes, at);
  return copy;
}
const half = content.length / 2;
const wrong = [
  { what: "empty", bytes: Buffer.of(), message: /has 0 bytes, its header alone needs 40$/ },
  { what: "39 bytes long", bytes: content.subarray(0, 39), message: /has 39 bytes, its header/ },
  { what: "zeros", bytes: Buffer.alloc(content.length), message: /magic 0x0$/ },
  {
    what: "another segment",
    bytes: walFile(wal, firstName),
    message: /holds WAL from 0\/800000 on, its name stands for 0\/900000$/,
  },
  { what: "of a later timeline", bytes: patched(4, [9]), message: /written on timeline 9/ },
  { what: "cut in half", bytes: content.subarray(0, half), message: /has 524288 bytes, its/ },
  {
    what: "too long",
    bytes: Buffer.concat([content, HISTORY]),
    message: /has more than the 1048576 bytes that its header says$/,
  },
];
for (const { what, bytes, message } of wrong) {
  for (const file of [name, `${name}.partial`]) {
    test(`an object of ${file.slice(24) || "a segment"} that is ${what} is damage`, async () => {
      await put(`wal_005/${file}.zst`, await bench.compress("zstd", bytes));
      await assert.rejects(bench.fetch(file, destination), { name: "DamagedError", message });
      await assertNothingFetched();
    });
  }
}

test("a history that is none is damage", async () => {
  await put("wal_005/00000002.history.zst", await bench.compress("zstd", Buffer.from("2 0/A x")));
  await assert.rejects(bench.fetch("00000002.history", destination), { name: "DamagedError" });
  await assertNothingFetched();
});

test("damage is named with its object and a way out, after a second reading", async () => {
  const whole = await bench.compress("zstd", content);
  await put(key, flipBit(whole, Math.floor(whole.length / 2)));
  await assert.rejects(bench.fetch(name, destination), (error) => {
    assert.ok(error instanceof OperationError);
    assert.match(error.message, new RegExp(`^object ${key} in memory://test is damaged: `));
    assert.match(error.hint ?? "", /^It was read twice, /);
    return true;
  });
  const gets = bench.storage.takeCalls().filter((call) => call === `get ${key}`);
  assert.equal(gets.length, 2);
});

test("damage on the way is overcome by the second reading", async () => {
  const whole = await bench.compress("zstd", content);
  await put(key, flipBit(whole, 5000));
  bench.storage.interceptOnce(/^get/, (next) => next());
  bench.storage.interceptOnce(/^get/, async (next) => {
    await put(key, whole);
    await next();
  });
  await bench.fetch(name, destination);
  await assertFetched();
});

test("a damaged object does not hide a whole one under another extension", async () => {
  await warm();
  await put(key, Buffer.from("rubbish"));
  await put(`wal_005/${name}.br`, await bench.compress("brotli", content));
  const onFound = mock.fn(() => assert.ok(!existsSync(destination)));
  await bench.fetch(name, destination, { onFound });
  await assertFetched();
  assert.equal(onFound.mock.callCount(), 1);
});

test("every bit of every compression counts: whole and right, or an error", async () => {
  await bench.file("global/pg_control", wal.control);
  // As during recovery, which keeps what it has replayed.
  for (const file of wal.segments) await bench.file(`pg_wal/${file}`, walFile(wal, file));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...METHODS),
      // What the one before the first left open is not known.
      fc.constantFrom(...wal.segments.slice(1)),
      fc.nat(),
      fc.nat(7),
      async (method, file, place, bit) => {
        const whole = await bench.compress(method, walFile(wal, file));
        const { extension } = codecOf(method);
        const objectKey = `wal_005/${file}${extension === "" ? "" : `.${extension}`}`;
        await put(objectKey, flipBit(whole, place % whole.length, bit));
        try {
          await bench.fetch(file, destination);
        } catch (error) {
          assert.ok(error instanceof OperationError, String(error));
          // The latter for a bit of the system identifier.
          assert.match(error.name, /^(Damaged|WrongCluster)Error$/);
          return;
        } finally {
          await bench.memory.delete([objectKey], bench);
        }
        const fetched = await readFile(destination);
        if (!isHarmless(file, fetched)) await assertNextIsRefused(file, fetched);
      },
    ),
    { numRuns: process.env["WALNUT_LONG"] === "1" ? 1000 : 50 },
  );
});

/** A change behind the last record, in the gap between two of them, or of XLP_BKP_REMOVABLE. */
function isHarmless(file: string, fetched: Buffer): boolean {
  const bytes = walFile(wal, file);
  const changedAt = bytes.findIndex((byte, at) => byte !== fetched[at]);
  if (changedAt < 0 || changedAt >= walkSegment(bytes, { name: file }).endOfRecords) return true;
  const changed = bytes.readUInt8(changedAt) ^ fetched.readUInt8(changedAt);
  if (changedAt % 8192 === 2 && changed === 4) return true;
  const gap = bytes.subarray(changedAt, (Math.floor(changedAt / 8) + 1) * 8);
  return gap.length < 8 && gap.every((byte) => byte === 0);
}

/**
 * A record that begins at the very end is whole only with the next segment: recovery stops there.
 */
async function assertNextIsRefused(file: string, fetched: Buffer): Promise<void> {
  const next = wal.segments[wal.segments.indexOf(file) + 1];
  assert.ok(next !== undefined, `a change of ${file} was not seen`);
  await bench.file(`pg_wal/${file}`, fetched);
  await put(`wal_005/${next}`, walFile(wal, next));
  await assert.rejects(bench.fetch(next, destination), {
    name: "DamagedError",
    message: /: end of a record of the previous segment with a wrong CRC at offset 0$/,
  });
  await bench.memory.delete([`wal_005/${next}`], bench);
  await bench.file(`pg_wal/${file}`, walFile(wal, file));
}

test("records are not followed when that is turned off", async () => {
  await put(`wal_005/${name}`, flipBit(content, 20_000));
  await assert.rejects(bench.fetch(name, destination), {
    name: "DamagedError",
    message: /the records of WAL segment \w+ break off after byte \d+: .* at offset \d+$/,
  });
  await bench.fetch(name, destination, { checkRecords: false });
  await assertFetched(flipBit(content, 20_000));
});

test("an unfinished segment may end anywhere", async () => {
  const partial = Buffer.from(content).fill(0, half);
  await put(`wal_005/${name}.partial`, partial);
  await bench.fetch(`${name}.partial`, destination);
  await assertFetched(partial);
});

test("another cluster's segment is refused for this data directory", async () => {
  await bench.file("global/pg_control", wal.control);
  await put(key, await bench.compress("zstd", content));
  await bench.fetch(name, destination);
  await assertFetched();

  const foreign = Buffer.from(content);
  foreign.writeBigUInt64LE(wal.systemId + 1n, 24);
  await put(key, await bench.compress("zstd", foreign));
  await assert.rejects(bench.fetch(name, destination), {
    name: "WrongClusterError",
    message:
      `archived WAL segment ${name} is of cluster ${wal.systemId + 1n}, ` +
      `the data directory of cluster ${wal.systemId}`,
  });
  await assertFetched();
});

test("what stands under the final name is replaced, never taken for the file (E09)", async () => {
  await put(key, await bench.compress("zstd", content));
  await writeFile(destination, walFile(wal, firstName));
  await bench.fetch(name, destination);
  await assertFetched();
});

test("a failure leaves what stood under the final name", async () => {
  await writeFile(destination, "old");
  await put(key, Buffer.from("rubbish"));
  await assert.rejects(bench.fetch(name, destination), { name: "DamagedError" });
  await assertFetched(Buffer.from("old"));
});

test("what a killed run left is taken over (E13)", async () => {
  await writeFile(`${destination}.tmp-0123456789abcdef`, content.subarray(0, half));
  await put(key, await bench.compress("zstd", content));
  await bench.fetch(name, destination);
  await assertFetched();
});

test("a symbolic link to the destination stays one", async () => {
  const link = join(bench.directory, "link");
  await writeFile(destination, "old");
  await symlink(destination, link);
  await put(key, await bench.compress("zstd", content));
  await bench.fetch(name, link);
  assert.ok((await lstat(link)).isSymbolicLink());
  await assertFetched();
});

test("two fetches of one file at once never mix", async () => {
  await put(key, await bench.compress("zstd", content));
  const results = await Promise.allSettled([
    bench.fetch(name, destination),
    bench.fetch(name, destination),
  ]);
  assert.ok(results.some(({ status }) => status === "fulfilled"));
  await assertFetched();
});

test("nothing is under the final name while the content arrives (E06)", async () => {
  await put(`wal_005/${name}`, content);
  const seen: string[][] = [];
  const get = bench.storage.get.bind(bench.storage);
  bench.storage.get = async function* (objectKey, options) {
    for await (const chunk of get(objectKey, options)) {
      for (let at = 0; at < chunk.length; at += 128 * 1024) {
        yield chunk.subarray(at, at + 128 * 1024);
        seen.push(await readdir(join(bench.directory, "pg_wal")));
      }
    }
  };
  await bench.fetch(name, destination);
  assert.equal(seen.length, 8);
  for (const names of seen) assert.match(names.join(), /^RECOVERYXLOG\.tmp-[0-9a-f]{16}$/);
  await assertFetched();
});

test("a destination that can't be written is a local error", async () => {
  await put(key, await bench.compress("zstd", content));
  const nowhere = join(bench.directory, "none", "RECOVERYXLOG");
  await assert.rejects(bench.fetch(name, nowhere), { name: "LocalFileError" });
  await mkdir(destination);
  await assert.rejects(bench.fetch(name, destination), { name: "LocalFileError" });
  assert.deepEqual(await readdir(join(bench.directory, "pg_wal")), ["RECOVERYXLOG"]);
});
