import { test } from "node:test";
import assert from "node:assert/strict";
import { loadLz4Addon } from "../../src/codec/lz4-addon.ts";
import { codecOf } from "../../src/codec/table.ts";
import { readAll } from "../../src/io/bytes.ts";
import { xxh32 } from "../../src/io/xxh32.ts";
import { inChunks, sampleContent } from "../support/content.ts";

const options = { jobs: 2, signal: new AbortController().signal };
const lz4 = codecOf("lz4");
const content = sampleContent(1_000_000);

async function decompressed(bytes: Uint8Array, chunkBytes = 10_000): Promise<Buffer> {
  return await readAll(lz4.decompress(inChunks(bytes, chunkBytes), options));
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

interface FrameOptions {
  readonly flags: number;
  readonly blockSize?: number;
  readonly contentSize?: Buffer;
  readonly blockBytes?: number;
  readonly isStored?: boolean;
}

/** A frame as other writers make it; lz4-napi's dictionary makes linked blocks. */
async function frameOf(bytes: Buffer, frame: FrameOptions): Promise<Buffer> {
  const { flags, blockSize = 0x40, contentSize = Buffer.alloc(0), blockBytes = 65_536 } = frame;
  const addon: unknown = await loadLz4Addon();
  assert(typeof addon === "object" && addon !== null && "compress" in addon);
  assert(typeof addon.compress === "function");
  const descriptor = Buffer.concat([Buffer.of(flags, blockSize), contentSize]);
  const parts = [word(0x184d2204), descriptor, Buffer.of((xxh32(descriptor) >> 8) & 0xff)];
  for (let at = 0; at < bytes.length; at += blockBytes) {
    const history = (flags & 0x20) === 0 ? bytes.subarray(Math.max(0, at - 65_536), at) : undefined;
    const raw = bytes.subarray(at, at + blockBytes);
    const prefixed: unknown = await addon.compress(raw, history);
    assert(prefixed instanceof Buffer);
    const block = frame.isStored === true ? raw : prefixed.subarray(4);
    parts.push(word(block.length | (frame.isStored === true ? 0x80000000 : 0)), block);
    if ((flags & 0x10) !== 0) parts.push(word(xxh32(block)));
  }
  parts.push(word(0));
  if ((flags & 0x04) !== 0) parts.push(word(xxh32(bytes)));
  return Buffer.concat(parts);
}

test("one frame as WAL-G writes it: independent blocks of up to 4 MiB, content checksum", async () => {
  const stored = await readAll(lz4.compress(inChunks(content, 1_000_000), options));
  assert.equal(stored.toString("hex", 0, 7), "04224d186470b9");
  assert.equal(stored.readUInt32LE(stored.length - 8), 0);
  assert.equal(stored.readUInt32LE(stored.length - 4), xxh32(content));
});

test("no content is a frame without blocks", async () => {
  const stored = await readAll(lz4.compress(inChunks(content.subarray(0, 0), 1), options));
  assert.equal(stored.toString("hex"), "04224d186470b900000000055dcc02");
});

test("what can't be compressed is stored", async () => {
  const noise = Buffer.alloc(1_000_000);
  let state = 1;
  for (let at = 0; at < noise.length; at += 1) {
    state = (Math.imul(state, 1103515245) + 12345) | 0;
    noise[at] = (state >>> 16) & 0xff;
  }
  const stored = await readAll(lz4.compress(inChunks(noise, 70_000), options));
  assert.equal(stored.length, 7 + noise.length + 2 * 4 + 8);
  assert.equal(stored.readUInt32LE(7), (0x80000000 | (512 * 1024)) >>> 0);
  assert.equal((await decompressed(stored)).equals(noise), true);
});

const size = Buffer.alloc(8);
size.writeBigUInt64LE(BigInt(content.length));
const readable: readonly ({ readonly name: string } & FrameOptions)[] = [
  { name: "linked blocks", flags: 0x40 },
  { name: "linked blocks with both checksums", flags: 0x54 },
  { name: "linked blocks of 5000 bytes", flags: 0x44, blockBytes: 5000 },
  { name: "linked blocks of 4 MiB", flags: 0x44, blockSize: 0x70, blockBytes: 900_000 },
  { name: "linked stored blocks", flags: 0x54, isStored: true },
  { name: "independent blocks, nothing checked", flags: 0x60 },
  { name: "256 KiB, block checksums", flags: 0x70, blockSize: 0x50, blockBytes: 262_144 },
  { name: "1 MiB, content size", flags: 0x6c, blockSize: 0x60, contentSize: size },
];

for (const { name, ...frame } of readable) {
  test(`a frame is read: ${name}`, async () => {
    const bytes = await frameOf(content, frame);
    assert.equal((await decompressed(bytes)).equals(content), true);
    const twice = Buffer.concat([bytes, Buffer.from("5a2a4d1802000000ffff", "hex"), bytes]);
    assert.equal((await decompressed(twice, 999_999)).length, 2 * content.length);
    for (const missing of [1, 3, 4, 5, 8, 9, 20]) {
      const part = bytes.subarray(0, bytes.length - missing);
      await assert.rejects(decompressed(part), { name: "TruncatedError" }, `${missing} missing`);
    }
  });
}

test("linked blocks refer to those before them", async () => {
  const noise = content.subarray(0, 60_000);
  const twice = Buffer.concat([noise, noise]);
  const frame = await frameOf(twice, { flags: 0x44, blockBytes: 60_000 });
  assert.equal(frame.length < 60_000 + 1000, true);
  assert.equal((await decompressed(frame)).equals(twice), true);
});

test("legacy frames are read, also before others", async () => {
  const addon = await loadLz4Addon();
  const large = sampleContent(8 * 1024 * 1024);
  const blocks = await Promise.all(
    [large, content].map(async (block) => {
      const compressed = (await addon.compress(block)).subarray(4);
      return Buffer.concat([word(compressed.length), compressed]);
    }),
  );
  const legacy = Buffer.concat([word(0x184c2102), ...blocks]);
  const both = Buffer.concat([large, content]);
  assert.equal((await decompressed(legacy, 1_000_000)).equals(both), true);
  assert.equal((await decompressed(word(0x184c2102))).length, 0);

  const frame = await frameOf(content, { flags: 0x64 });
  const row = Buffer.concat([legacy, frame, legacy, legacy]);
  const contents = Buffer.concat([both, content, both, both]);
  assert.equal((await decompressed(row, 1_000_000)).equals(contents), true);

  const cut = legacy.subarray(0, -1);
  await assert.rejects(decompressed(cut), { name: "TruncatedError" });
  const [, short = Buffer.alloc(0)] = blocks;
  const shortFirst = Buffer.concat([word(0x184c2102), short, short]);
  await assert.rejects(decompressed(shortFirst), { message: /a short block is not the last$/ });
  const huge = Buffer.concat([word(0x184c2102), word(9_000_000)]);
  await assert.rejects(decompressed(huge), { message: /at byte 4: a block of 9000000 bytes$/ });
});

const HEADER = "04224d186470b9";
const bad = [
  { name: "another magic number", hex: "04224d19", message: /^no lz4 frame begins at byte 0: / },
  { name: "dictionary", hex: "04224d186570", message: "lz4 frame needs a dictionary" },
  {
    name: "header checksum",
    hex: "04224d186470b8",
    message: "lz4 frame header is damaged: its checksum is 184, computed 185",
  },
  { name: "version", hex: descriptor(0xa4, 0x70), message: /flags 0xa4 and block size 0x70/ },
  { name: "reserved flag", hex: descriptor(0x66, 0x70), message: /flags 0x66 and block size 0x70/ },
  { name: "reserved bit", hex: descriptor(0x64, 0x71), message: /flags 0x64 and block size 0x71/ },
  { name: "small blocks", hex: descriptor(0x64, 0x30), message: /flags 0x64 and block size 0x30/ },
  {
    name: "large block",
    hex: `${HEADER}01004000`,
    message: "lz4 frame is damaged at byte 7: a block of 4194305 bytes",
  },
  {
    name: "no lz4 block",
    hex: `${HEADER}03000000ffffff00000000`,
    message: /^lz4 block at byte 11 is damaged: /,
  },
  {
    name: "content checksum",
    hex: `${HEADER}01000080610000000001020304`,
    message: /^lz4 content is damaged before byte 20: its checksum is 4030201, computed 550d7456$/,
  },
  {
    name: "block checksum",
    hex: `${descriptor(0x70, 0x70)}01000080610000000000000000`,
    message: /^lz4 block is damaged before byte 16: its checksum is 0, computed 550d7456$/,
  },
  {
    name: "content size",
    hex: `${descriptor(0x68, 0x70, "0200000000000000")}010000806100000000`,
    message: "lz4 frame is damaged: it declares 2 bytes and holds 1",
  },
];

function descriptor(flags: number, blockSize: number, contentSize = ""): string {
  const bytes = Buffer.concat([Buffer.of(flags, blockSize), Buffer.from(contentSize, "hex")]);
  return `04224d18${bytes.toString("hex")}${Buffer.of((xxh32(bytes) >> 8) & 0xff).toString("hex")}`;
}

for (const { name, hex, message } of bad) {
  test(`bytes are refused: ${name}`, async () => {
    const expected = { name: "FormatError", message };
    await assert.rejects(decompressed(Buffer.from(hex, "hex")), expected);
  });
}

test("damaged blocks never do more than fail", async () => {
  const frame = await frameOf(content.subarray(0, 200_000), { flags: 0x40 });
  for (let at = 11; at < frame.length; at += 101) {
    const changed = Buffer.from(frame);
    changed[at] = (changed[at] ?? 0) ^ (1 << (at & 7));
    const result = await decompressed(changed).catch((error: unknown) => error);
    if (result instanceof Error) assert.match(result.name, /^(Format|Truncated)Error$/);
  }
});
