import assert from "node:assert/strict";
import { type FileHandle, mkdtemp, open, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { writeFileDurably } from "../../src/io/durable.ts";
import { WriteBehind } from "../../src/io/write-behind.ts";
import { patternBytes } from "../support/bodies.ts";

const MIB = 1024 * 1024;
const scratch = await mkdtemp(join(tmpdir(), "walnut-write-behind-"));
after(() => rm(scratch, { recursive: true }));

/** `sizes` of `bytes`, all in one memory that has other bytes as soon as the next is wanted. */
async function* inOneMemory(bytes: Uint8Array, sizes: readonly number[]) {
  const memory = Buffer.alloc(Math.max(...sizes));
  let start = 0;
  for (const size of sizes) {
    memory.set(bytes.subarray(start, start + size));
    start += size;
    yield memory.subarray(0, size);
    memory.fill(0xee);
  }
}

function withMethods(handle: FileHandle, methods: Readonly<Record<string, unknown>>): FileHandle {
  return new Proxy(handle, {
    get: (target, name) =>
      typeof name === "string" && name in methods ? methods[name] : Reflect.get(target, name),
  });
}

test("chunks of any length arrive behind what is there, and alongside in order", async () => {
  const path = join(scratch, "lengths");
  const bytes = patternBytes(5 * MIB + 17);
  const sizes = [1, MIB, MIB + 1, 3, 2 * MIB - 5, 700_000];
  sizes.push(bytes.length - sizes.reduce((sum, size) => sum + size, 0));
  const handle = await open(path, "w");
  await handle.write(Buffer.from("before"));
  // Takes less than it is given, as a file system may.
  const short = withMethods(handle, {
    write: (piece: Uint8Array, offset: number, length: number, place: number) =>
      handle.write(piece, offset, Math.min(length, 100_000), place),
  });
  const handed: Buffer[] = [];
  const alongside = (piece: Uint8Array) => void handed.push(Buffer.from(piece));
  const rest = new WriteBehind(short, { alongside, position: 6 });
  let sentBytes = 0;
  for await (const chunk of inOneMemory(bytes, sizes)) {
    await rest.write(chunk);
    sentBytes += chunk.length;
    const handedBytes = handed.reduce((sum, piece) => sum + piece.length, 0);
    assert.equal(handedBytes, sentBytes, "who gives the bytes may ask at the end what they were");
  }
  await rest.end();
  await handle.close();
  assert.ok((await readFile(path)).equals(Buffer.concat([Buffer.from("before"), bytes])));
  assert.ok(Buffer.concat(handed).equals(bytes));
});

test("a long body arrives whole; one that breaks leaves nothing", async () => {
  const path = join(scratch, "long");
  const bytes = patternBytes(20 * MIB + 1);
  const sizes = [7 * MIB, 9 * MIB - 1, 1, MIB + 1, 3 * MIB];
  const signal = new AbortController().signal;
  await writeFileDurably(path, inOneMemory(bytes, sizes), { signal });
  assert.ok((await readFile(path)).equals(bytes));
  await rm(path);

  const broken = (async function* () {
    yield* inOneMemory(bytes, sizes.slice(0, -1));
    throw new Error("the body breaks");
  })();
  await assert.rejects(writeFileDurably(path, broken, { signal }), /the body breaks/);
  assert.deepEqual(await readdir(scratch), ["lengths"]);
});

/** Takes nothing to a disk; `calls` is told what was asked for. */
async function pretended(calls: string[]): Promise<FileHandle> {
  const handle = await open(join(scratch, "pretended"), "w");
  await handle.close();
  return withMethods(handle, {
    write: async (_: Uint8Array, __: number, length: number) => ({ bytesWritten: length }),
    datasync: async () => void calls.push("datasync"),
  });
}

async function writeMebibytes(rest: WriteBehind, count: number): Promise<void> {
  const chunk = Buffer.alloc(MIB);
  for (let index = 0; index < count; index++) await rest.write(chunk);
}

test("the disk takes what was written while more comes, once at a time", async () => {
  const calls: string[] = [];
  const gate = Promise.withResolvers<void>();
  const handle = withMethods(await pretended(calls), {
    datasync: async () => {
      calls.push("begun");
      await gate.promise;
      calls.push("ended");
    },
  });
  const rest = new WriteBehind(handle, { position: 0 });
  await writeMebibytes(rest, 32);
  assert.equal(calls.length, 0);
  await writeMebibytes(rest, 50);
  assert.deepEqual(calls, ["begun"]);
  const ending = rest.end().then(() => void calls.push("all"));
  await new Promise((resolve) => setImmediate(resolve));
  gate.resolve();
  await ending;
  assert.deepEqual(calls, ["begun", "ended", "all"]);
});

test("a disk that fails meanwhile fails the file, though Linux tells it once", async () => {
  const handle = withMethods(await pretended([]), {
    datasync: async () => {
      throw new Error("EIO");
    },
  });
  const rest = new WriteBehind(handle, { position: 0 });
  await writeMebibytes(rest, 33);
  await assert.rejects(writeMebibytes(rest, 1), /EIO/);
  await assert.rejects(rest.end(), /EIO/);
});

test("a write that fails is told, and its memory is free only after the others", async () => {
  const gate = Promise.withResolvers<void>();
  const write = async (_: Uint8Array, __: number, length: number, place: number) => {
    if (place === 0) throw new Error("ENOSPC");
    await gate.promise;
    return { bytesWritten: length };
  };
  const rest = new WriteBehind(withMethods(await pretended([]), { write }), { position: 0 });
  await writeMebibytes(rest, 1);
  let isSettled = false;
  const settling = rest.settled().then(() => (isSettled = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isSettled, false);
  gate.resolve();
  await settling;
  await assert.rejects(rest.end(), /ENOSPC/);
});

function refuse(): never {
  throw new Error("a wrong record");
}

test("what fails alongside ends it", async () => {
  const rest = new WriteBehind(await pretended([]), { alongside: refuse, position: 0 });
  await assert.rejects(rest.write(Buffer.from("x")), /a wrong record/);
});
