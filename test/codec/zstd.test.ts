import { test } from "node:test";
import assert from "node:assert/strict";
import { constants, createZstdCompress, zstdDecompressSync } from "node:zlib";
import { once } from "node:events";
import { codecOf } from "../../src/codec/table.ts";
import { ZstdFrameWalker } from "../../src/codec/zstd-frame.ts";
import { readAll } from "../../src/io/bytes.ts";
import { inChunks, sampleContent } from "../support/content.ts";

const MIB = 1024 * 1024;
const options = { jobs: 2, signal: new AbortController().signal };
const zstd = codecOf("zstd");
const content = sampleContent(10 * MIB);

async function compressed(bytes: Uint8Array, level?: number): Promise<Buffer> {
  const levelOption = level === undefined ? {} : { level };
  return await readAll(zstd.compress(inChunks(bytes, MIB), { ...options, ...levelOption }));
}

async function decompressed(bytes: Uint8Array, chunkBytes = 100_000): Promise<Buffer> {
  return await readAll(zstd.decompress(inChunks(bytes, chunkBytes), options));
}

/** As WAL-G writes: one frame, content checksum, no content size. */
async function oneFrame(bytes: Uint8Array): Promise<Buffer> {
  const engine = createZstdCompress({ params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  const output: Buffer[] = [];
  engine.on("data", (chunk: Buffer) => output.push(chunk));
  engine.write(bytes.subarray(0, 1000));
  engine.end(bytes.subarray(1000));
  await once(engine, "end");
  // node:zlib adds an empty frame.
  const [frame] = framesOf(Buffer.concat(output));
  assert(frame !== undefined);
  return frame;
}

function framesOf(bytes: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  let at = 0;
  while (at < bytes.length) {
    const walker = new ZstdFrameWalker(at);
    const end = walker.walk(bytes, at);
    frames.push(bytes.subarray(at, end));
    at = end;
  }
  return frames;
}

function headerOf(frame: Buffer): unknown {
  const walker = new ZstdFrameWalker(0);
  walker.walk(frame, 0);
  return walker.header;
}

const sizes = [0, 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 5 * MIB];
for (const sizeBytes of sizes) {
  test(`${sizeBytes} bytes are frames of 2 MiB that tell their size and hold a checksum`, async () => {
    const original = content.subarray(0, sizeBytes);
    const frames = framesOf(await compressed(original, 1));
    assert.equal(frames.length, Math.max(1, Math.ceil(sizeBytes / (2 * MIB))));
    const contents = frames.map((frame) => {
      const contentOfFrame = zstdDecompressSync(frame);
      const header = headerOf(frame);
      assert(typeof header === "object" && header !== null);
      assert("contentBytes" in header && "hasChecksum" in header);
      assert.equal(header.contentBytes, contentOfFrame.length);
      assert.equal(header.hasChecksum, true);
      return contentOfFrame;
    });
    assert.equal(Buffer.concat(contents).equals(original), true);
  });
}

test("the checksum is the content's: another decoder refuses each changed bit of it", async () => {
  const frame = await compressed(content.subarray(0, 50_000));
  for (let bit = 0; bit < 32; bit += 1) {
    const changed = Buffer.from(frame);
    const at = changed.length - 4 + (bit >> 3);
    changed[at] = (changed[at] ?? 0) ^ (1 << (bit & 7));
    assert.throws(() => zstdDecompressSync(changed));
    await assert.rejects(decompressed(changed), { name: "FormatError" });
  }
});

test("no level needs a window of more than 8 MiB", async () => {
  for (const level of [1, 22]) {
    const header = headerOf(await compressed(content.subarray(0, 4 * MIB), level));
    assert(typeof header === "object" && header !== null && "windowBytes" in header);
    assert.equal(Number(header.windowBytes) <= 8 * MIB, true, `level ${level}`);
  }
});

test("levels differ in size", async () => {
  const original = content.subarray(0, 2 * MIB);
  const large = await compressed(original, 1);
  const small = await compressed(original, 19);
  assert.equal(small.length < large.length, true);
});

test("one frame of unknown size is read in bounded pieces, whatever the chunks", async () => {
  const frame = await oneFrame(content);
  for (const chunkBytes of [1000, 65_537, frame.length]) {
    assert.equal((await decompressed(frame, chunkBytes)).equals(content), true);
  }
  for await (const chunk of zstd.decompress(inChunks(frame, 50_000), options)) {
    assert.equal(chunk.length <= MIB, true);
  }
});

test("one frame of unknown size, cut off anywhere, is refused", async () => {
  const frame = await oneFrame(content.subarray(0, 3 * MIB));
  for (let cut = 0; cut < frame.length; cut += Math.ceil(frame.length / 60)) {
    await assert.rejects(decompressed(frame.subarray(0, cut)), { name: "TruncatedError" });
  }
  for (let missing = 1; missing < 20; missing += 1) {
    const part = frame.subarray(0, frame.length - missing);
    await assert.rejects(decompressed(part), { name: "TruncatedError" });
  }
});

test("one frame of unknown size with a changed bit is refused", async () => {
  const frame = await oneFrame(content.subarray(0, 300_000));
  for (let at = 6; at < frame.length; at += 997) {
    const changed = Buffer.from(frame);
    changed[at] = (changed[at] ?? 0) ^ 0x10;
    await assert.rejects(decompressed(changed), /Format|Truncated/);
  }
});

test("frames of all kinds in a row are one content", async () => {
  const large = await oneFrame(content.subarray(0, 9 * MIB));
  const small = await compressed(content.subarray(0, 5 * MIB));
  const empty = await compressed(Buffer.alloc(0));
  const skippable = Buffer.from("532a4d1804000000deadbeef", "hex");
  const frames = [skippable, small, large, empty, skippable, large, small, skippable];
  const whole = Buffer.concat(frames);
  const parts = [5, 9, 9, 5].map((mebibytes) => content.subarray(0, mebibytes * MIB));
  assert.equal((await decompressed(whole, 3 * MIB)).equals(Buffer.concat(parts)), true);

  for (const end of [whole.length - 3, whole.length - skippable.length - 1]) {
    await assert.rejects(decompressed(whole.subarray(0, end)), { name: "TruncatedError" });
  }
});

test("a frame that needs more than 128 MiB of memory is refused with a way out", async () => {
  const frame = Buffer.from("28b52ffd00900900006100", "hex");
  await assert.rejects(decompressed(frame), {
    name: "FormatError",
    message: "zstd frame needs a window of 268435456 bytes, more than 134217728",
    hint: /--long=31/,
  });
});

test("a frame that says that it is large is given in pieces, also when it comes at once", async () => {
  // 24 MiB in blocks of one repeated byte, and an empty last one.
  const header = Buffer.from("28b52ffd806800008001", "hex");
  const blocks = Array.from({ length: 192 }, () => Buffer.from("02001061", "hex"));
  const frame = Buffer.concat([header, ...blocks, Buffer.from("010000", "hex")]);
  let contentBytes = 0;
  for await (const chunk of zstd.decompress(inChunks(frame, frame.length), options)) {
    assert.equal(chunk.length <= MIB, true);
    contentBytes += chunk.length;
  }
  assert.equal(contentBytes, 24 * MIB);
});

test("a frame whose content has another size than it says is refused", async () => {
  // Content size 2, then one raw block of one byte.
  await assert.rejects(decompressed(Buffer.from("28b52ffd200209000061", "hex")), {
    name: "FormatError",
    message: "zstd frame is damaged",
  });
  assert.equal((await decompressed(Buffer.from("28b52ffd200109000061", "hex"))).toString(), "a");
});

test("frames that only grow are streamed: nobody makes us hold them", async () => {
  // Content size 1, then 4,000,000 empty blocks, then one with the content.
  const begin = Buffer.from("28b52ffd2001", "hex");
  const frame = Buffer.concat([begin, Buffer.alloc(12_000_000), Buffer.from("09000061", "hex")]);
  assert.equal((await decompressed(frame)).toString(), "a");
});
