import { test } from "node:test";
import assert from "node:assert/strict";
import { fc } from "../support/property.ts";
import { loadLz4Addon, substitute } from "../../src/codec/lz4-addon.ts";
import { compressLz4Block, decompressLz4Block } from "../../src/codec/lz4-block.ts";
import { sampleContent } from "../support/content.ts";

const nothing = Buffer.alloc(0);

/** Repetitions near and far, long runs of one byte, noise. */
const contents = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.tuple(fc.nat({ max: 255 }), fc.nat({ max: 700 })).map(([byte, count]) => {
        return new Uint8Array(count).fill(byte);
      }),
      fc.nat({ max: 70_000 }).map((size) => sampleContent(size)),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Buffer.concat(parts));

test("the addon is there, and another one than its substitute", async () => {
  assert.notEqual(await loadLz4Addon(), substitute);
});

test("addon and substitute read each other's blocks", async () => {
  const addon = await loadLz4Addon();
  const property = fc.asyncProperty(contents, async (content) => {
    for (const writer of [addon, substitute]) {
      const prefixed = await writer.compress(content);
      assert.equal(prefixed.readUInt32LE(0), content.length);
      for (const reader of [addon, substitute]) {
        assert.equal(reader.uncompressSync(prefixed).equals(content), true);
      }
    }
  });
  await fc.assert(property, { numRuns: 150 });
});

test("blocks that are compressible become smaller", async () => {
  const content = sampleContent(500_000);
  const own = await substitute.compress(content);
  const others = await (await loadLz4Addon()).compress(content);
  assert.equal(own.length < others.length * 1.1, true);
});

test("no content, and content that can't be compressed", () => {
  assert.equal(compressLz4Block(nothing, 0).toString("hex"), "00");
  assert.equal(compressLz4Block(Buffer.from("abc"), 1).subarray(1).toString("hex"), "30616263");
  const noise = Buffer.from(Array.from({ length: 1000 }, (_, index) => (index * index * 7) >> 3));
  const block = compressLz4Block(noise, 0);
  assert.equal(decompressLz4Block(block, 1000, nothing).equals(noise), true);
});

test("a block refers to what was before it", () => {
  // A match of 10 bytes, 6 back: the last four of them are its own.
  const block = Buffer.from("060600506162636465", "hex");
  const content = decompressLz4Block(block, 100, Buffer.from("..12345678"));
  assert.equal(content.toString(), "3456783456abcde");
});

const bad = [
  { name: "empty", hex: "", message: "it ends without literals" },
  { name: "literals", hex: "30 6161", message: "literals go beyond it" },
  { name: "length of literals", hex: "f0 ff", message: "a length goes beyond it" },
  { name: "distance", hex: "10 61 01", message: "a distance goes beyond it" },
  { name: "distance of zero", hex: "10 61 0000", message: "a match lies 0 bytes back" },
  { name: "far distance", hex: "10 61 0200", message: "a match lies 2 bytes back" },
  { name: "length of a match", hex: "1f 61 0100 ff", message: "a length goes beyond it" },
  { name: "no last literals", hex: "10 61 0100", message: "it ends without literals" },
  { name: "long match", hex: "1f 61 0100 64 00", message: "it holds more than 20 bytes" },
  {
    name: "many literals",
    hex: `f0 06 ${"61".repeat(21)}`,
    message: "it holds more than 20 bytes",
  },
];

for (const { name, hex, message } of bad) {
  test(`a block is refused: ${name}`, () => {
    const block = Buffer.from(hex.replaceAll(" ", ""), "hex");
    assert.throws(() => decompressLz4Block(block, 20, nothing), { name: "RangeError", message });
  });
}

test("damaged blocks end in bytes or an error", () => {
  const block = compressLz4Block(sampleContent(3000), 0);
  for (let bit = 0; bit < block.length * 8; bit += 3) {
    const changed = Buffer.from(block);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    try {
      assert.equal(decompressLz4Block(changed, 3000, nothing).length <= 3000, true);
    } catch (error) {
      assert.equal(error instanceof RangeError, true);
    }
  }
});
