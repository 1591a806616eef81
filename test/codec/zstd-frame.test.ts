import { test } from "node:test";
import assert from "node:assert/strict";
import { constants, zstdCompressSync } from "node:zlib";
import { fc } from "../support/property.ts";
import { ZstdFrameWalker } from "../../src/codec/zstd-frame.ts";
import { sampleContent } from "../support/content.ts";

const MAGIC = "28b52ffd";
/** A raw block, the last one, of the byte "a". */
const LAST_BLOCK = "09000061";

function walked(hex: string): ZstdFrameWalker {
  const walker = new ZstdFrameWalker(0);
  walker.walk(Buffer.from(hex, "hex"), 0);
  return walker;
}

const headers = [
  {
    name: "window, no content size, no checksum",
    hex: `${MAGIC}0068`,
    header: { kind: "content", windowBytes: 8 * 1024 * 1024, hasChecksum: false },
  },
  {
    name: "window with a fraction, checksum",
    hex: `${MAGIC}0403`,
    header: { kind: "content", windowBytes: 1024 + 3 * 128, hasChecksum: true },
  },
  {
    name: "single segment, content size of 1 byte",
    hex: `${MAGIC}2019`,
    header: { kind: "content", windowBytes: 25, contentBytes: 25, hasChecksum: false },
  },
  {
    name: "content size of 2 bytes",
    hex: `${MAGIC}6000ff`,
    header: { kind: "content", windowBytes: 65536, contentBytes: 65536, hasChecksum: false },
  },
  {
    name: "content size of 4 bytes",
    hex: `${MAGIC}844800004000`,
    header: { kind: "content", windowBytes: 2 ** 19, contentBytes: 2 ** 22, hasChecksum: true },
  },
  {
    name: "content size of 8 bytes",
    hex: `${MAGIC}c0480100000001000000`,
    header: {
      kind: "content",
      windowBytes: 2 ** 19,
      contentBytes: 2 ** 32 + 1,
      hasChecksum: false,
    },
  },
  {
    name: "dictionary id of 4 bytes that is zero",
    hex: `${MAGIC}034800000000`,
    header: { kind: "content", windowBytes: 2 ** 19, hasChecksum: false },
  },
  {
    name: "the bit that decoders ignore",
    hex: `${MAGIC}3019`,
    header: { kind: "content", windowBytes: 25, contentBytes: 25, hasChecksum: false },
  },
  { name: "skippable", hex: "5f2a4d1803000000", header: { kind: "skippable" } },
];

for (const { name, hex, header } of headers) {
  test(`a header is read: ${name}`, () => {
    const walker = walked(hex);
    assert.deepEqual(walker.header, header);
    assert.equal(walker.isComplete, false);
    assert.equal(walked(hex.slice(0, -2)).header, undefined);
  });
}

const bad = [
  { name: "no magic number", hex: "29", message: "no zstd frame begins at byte 0: found 29" },
  { name: "its last byte", hex: "28b52ffc", message: /found 28b52ffc$/ },
  { name: "old format", hex: "27b52ffd", message: /found 27$/ },
  { name: "skippable, last byte", hex: "502a4d19", message: /found 502a4d19$/ },
  { name: "reserved bit", hex: `${MAGIC}0848`, message: /byte 0: its header sets a reserved bit$/ },
  { name: "dictionary", hex: `${MAGIC}014807`, message: "zstd frame at byte 0 needs a dictionary" },
  { name: "reserved block", hex: `${MAGIC}0048070000`, message: /a block has the reserved type$/ },
  { name: "large block", hex: `${MAGIC}0048080010`, message: /a block has 131073 bytes$/ },
  { name: "empty block", hex: `${MAGIC}0048050000`, message: /a compressed block has no bytes$/ },
];

for (const { name, hex, message } of bad) {
  test(`bytes are refused: ${name}`, () => {
    assert.throws(() => walked(hex), { name: "FormatError", message });
  });
}

const frames = [
  { name: "one raw block", hex: `${MAGIC}0048${LAST_BLOCK}` },
  { name: "checksum", hex: `${MAGIC}0448${LAST_BLOCK}00112233` },
  { name: "an empty last block", hex: `${MAGIC}0048010000` },
  { name: "an empty block, then the last", hex: `${MAGIC}0048000000${LAST_BLOCK}` },
  { name: "a repeated byte is stored once", hex: `${MAGIC}004803000061` },
  { name: "a long repetition", hex: `${MAGIC}004802001061${LAST_BLOCK}` },
  { name: "skippable and empty", hex: "502a4d1800000000" },
  { name: "skippable", hex: "502a4d1805000000aabbccddee" },
];

for (const { name, hex } of frames) {
  test(`a frame's end is found: ${name}`, () => {
    const frame = Buffer.from(hex, "hex");
    const whole = Buffer.concat([Buffer.of(1, 2, 3), frame, Buffer.of(9, 9, 9)]);
    const walker = new ZstdFrameWalker(3);
    assert.equal(walker.walk(whole, 3), 3 + frame.length);
    assert.equal(walker.isComplete, true);

    const bytewise = new ZstdFrameWalker(0);
    for (const [index, byte] of frame.entries()) {
      assert.equal(bytewise.isComplete, false, `before byte ${index}`);
      bytewise.walk(Buffer.of(byte), 0);
    }
    assert.equal(bytewise.isComplete, true);
  });
}

test("what zstd writes ends where it ends, however it is cut", () => {
  const content = sampleContent(600_000);
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 600_000 }),
      fc.integer({ min: 1, max: 19 }),
      fc.boolean(),
      fc.array(fc.integer({ min: 1, max: 100_000 }), { minLength: 1 }),
      (sizeBytes, level, hasChecksum, cuts) => {
        const frame = zstdCompressSync(content.subarray(0, sizeBytes), {
          params: {
            [constants.ZSTD_c_compressionLevel]: level,
            [constants.ZSTD_c_checksumFlag]: hasChecksum ? 1 : 0,
          },
        });
        const bytes = Buffer.concat([frame, frame]);
        const walker = new ZstdFrameWalker(0);
        let at = 0;
        for (let index = 0; !walker.isComplete; index += 1) {
          const cut = cuts[index % cuts.length] ?? 1;
          at += walker.walk(bytes.subarray(at, at + cut), 0);
        }
        assert.equal(at, frame.length);
      },
    ),
    { numRuns: 40 },
  );
});
