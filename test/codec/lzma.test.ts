import { test } from "node:test";
import assert from "node:assert/strict";
import { IS_MATCH, LITERAL, newProbabilities } from "../../src/codec/lzma-model.ts";
import { RangeEncoder } from "../../src/codec/lzma-range-encoder.ts";
import { codecOf } from "../../src/codec/table.ts";
import { readAll } from "../../src/io/bytes.ts";
import { inChunks, sampleContent } from "../support/content.ts";

const options = { jobs: 1, signal: new AbortController().signal };
const lzma = codecOf("lzma");

async function compressed(bytes: Uint8Array, level?: number): Promise<Buffer> {
  const levelOption = level === undefined ? {} : { level };
  return await readAll(lzma.compress(inChunks(bytes, 50_000), { ...options, ...levelOption }));
}

async function decompressed(bytes: Uint8Array, chunkBytes = 1000): Promise<Buffer> {
  return await readAll(lzma.decompress(inChunks(bytes, chunkBytes), options));
}

/** `text` as literals only, without end marker: its size must stand in the header. */
function literalsOf(text: string): Buffer {
  const properties = { literalContextBits: 0, literalPositionBits: 0, positionBits: 0 };
  const range = new RangeEncoder(newProbabilities(properties));
  for (const byte of Buffer.from(text)) {
    range.bit(IS_MATCH, 0);
    range.tree(LITERAL, 8, byte);
  }
  range.flush();
  return Buffer.from(range.take());
}

function header(properties: number, dictionaryBytes: number, contentBytes: bigint): Buffer {
  const bytes = Buffer.alloc(13);
  bytes.writeUInt8(properties, 0);
  bytes.writeUInt32LE(dictionaryBytes, 1);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, contentBytes), 5);
  return bytes;
}

test("the header is WAL-G's: lc 3, lp 0, pb 2, 8 MiB, size unknown", async () => {
  const stored = await compressed(Buffer.from("a"));
  assert.equal(stored.toString("hex", 0, 13), "5d00008000ffffffffffffffff");
  const empty = await compressed(Buffer.alloc(0));
  assert.equal(empty.toString("hex", 13), "0083fffbffffc0000000");
});

test("every level comes back, and higher ones are smaller", async () => {
  const lines = Array.from({ length: 30_000 }, (_, row) => `${row} ${(row * row) % 9973} name`);
  const content = Buffer.from(lines.join("\n"));
  const sizes: number[] = [];
  for (let level = 0; level <= 9; level += 1) {
    const stored = await compressed(content, level);
    assert.equal((await decompressed(stored)).equals(content), true);
    sizes.push(stored.length);
  }
  assert.equal((sizes[9] ?? 0) < (sizes[0] ?? 0), true);
  await assert.rejects(compressed(content, 10), { message: "lzma has no level 10" });
});

test("content beyond the window comes back", async () => {
  const noise = sampleContent(150_000);
  const repeated = Buffer.concat(Array.from({ length: 60 }, () => noise));
  const stored = await compressed(repeated, 1);
  assert.equal(stored.length < 120_000, true);
  assert.equal((await decompressed(stored, 50_000)).equals(repeated), true);
});

test("content of several windows comes back", async () => {
  const lines = Array.from({ length: 400_000 }, (_, row) => `${row} ${(row * row) % 9973} name`);
  const content = Buffer.from(lines.join("\n"));
  assert.equal(content.length > 5_000_000, true);
  const stored = await compressed(content, 1);
  assert.equal((await decompressed(stored, 50_000)).equals(content), true);
});

test("the last byte counts, whatever the content", async () => {
  const content = sampleContent(150);
  for (let sizeBytes = 0; sizeBytes <= content.length; sizeBytes += 1) {
    const stored = await compressed(content.subarray(0, sizeBytes));
    const back = await decompressed(stored);
    assert.equal(back.equals(content.subarray(0, sizeBytes)), true);
    await assert.rejects(decompressed(stored.subarray(0, -1)), { name: "TruncatedError" });
    const changed = Buffer.from(stored);
    changed[changed.length - 1] = (changed[changed.length - 1] ?? 0) ^ 1;
    await assert.rejects(decompressed(changed), { name: "FormatError" });
  }
});

test("much content in few bytes is given in bounded pieces", async () => {
  const zeros = Buffer.alloc(20_000_000);
  const stored = await compressed(zeros, 1);
  assert.equal(stored.length < 10_000, true);
  let contentBytes = 0;
  for await (const chunk of lzma.decompress(inChunks(stored, stored.length), options)) {
    assert.equal(chunk.length <= 300_000, true);
    contentBytes += chunk.length;
  }
  assert.equal(contentBytes, zeros.length);
});

test("a stream of known size needs no end marker", async () => {
  const text = "known size";
  const bytes = Buffer.concat([header(0, 4096, BigInt(text.length)), literalsOf(text)]);
  assert.equal((await decompressed(bytes)).toString(), text);
  assert.equal((await decompressed(bytes, 1)).toString(), text);
  for (let cut = 0; cut < bytes.length; cut += 1) {
    await assert.rejects(decompressed(bytes.subarray(0, cut)), { name: "TruncatedError" });
  }
  const more = Buffer.concat([bytes, Buffer.alloc(30)]);
  await assert.rejects(decompressed(more), { name: "FormatError" });
});

test("a stream of known size may have an end marker", async () => {
  const stored = await compressed(Buffer.from("hello"));
  stored.writeBigUInt64LE(5n, 5);
  assert.equal((await decompressed(stored)).toString(), "hello");
  stored.writeBigUInt64LE(6n, 5);
  await assert.rejects(decompressed(stored), { message: /it declares 6 bytes and holds 5$/ });
  stored.writeBigUInt64LE(4n, 5);
  await assert.rejects(decompressed(stored), {
    message: /more than the 4 bytes that it declares$/,
  });
});

const UNKNOWN = -1n;
const bad = [
  {
    name: "properties",
    bytes: header(225, 4096, UNKNOWN),
    message: "not lzma data: it begins with 0xe1",
  },
  {
    name: "xz container",
    bytes: Buffer.from("fd377a585a000004e6d6b446020021", "hex"),
    message: "not lzma data: it begins with 0xfd",
  },
  {
    name: "huge dictionary",
    bytes: header(0x5d, 0xffffffff, UNKNOWN),
    message: "lzma data needs a dictionary of 4294967295 bytes, more than 134217728",
  },
  {
    name: "changed dictionary",
    bytes: header(0x5d, 0x00802000, UNKNOWN),
    message: "lzma data names a dictionary of 8396800 bytes: no writer does",
  },
  {
    name: "no dictionary",
    bytes: header(0x5d, 0, UNKNOWN),
    message: "lzma data names a dictionary of 0 bytes: no writer does",
  },
  {
    name: "first byte",
    bytes: Buffer.concat([header(0x5d, 4096, UNKNOWN), Buffer.alloc(40, 1)]),
    message: /after 0 bytes of its content: it does not begin with a zero$/,
  },
  {
    name: "match before the first byte",
    bytes: Buffer.concat([header(0x5d, 4096, UNKNOWN), Buffer.of(0), Buffer.alloc(40, 0xf0)]),
    message: /after 0 bytes of its content: /,
  },
];

for (const { name, bytes, message } of bad) {
  test(`bytes are refused: ${name}`, async () => {
    await assert.rejects(decompressed(bytes), { name: "FormatError", message });
  });
}
