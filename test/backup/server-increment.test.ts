import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { formatIncrementHeader, readIncrementHeader } from "../../src/backup/increment-header.ts";
import {
  convertServerIncrement,
  readServerIncrementHeader,
} from "../../src/backup/server-increment.ts";
import { ByteCursor } from "../../src/io/byte-cursor.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";

const PAGE = 8192;

/** Bytes of an INCREMENTAL.* file; page n is filled with its block number. */
function serverIncrement(blocks: readonly number[], truncation: number): Buffer {
  const head = Buffer.alloc(12 + 4 * blocks.length);
  head.writeUInt32LE(0xd3ae1f0d, 0);
  head.writeUInt32LE(blocks.length, 4);
  head.writeUInt32LE(truncation, 8);
  for (const [index, block] of blocks.entries()) head.writeUInt32LE(block, 12 + 4 * index);
  const padding = blocks.length === 0 ? 0 : (PAGE - (head.length % PAGE)) % PAGE;
  return Buffer.concat([head, Buffer.alloc(padding), ...blocks.map(pageOf)]);
}

function pageOf(block: number): Buffer {
  return Buffer.alloc(PAGE, (block % 255) + 1);
}

async function convert(bytes: Buffer, baseBlocks: number) {
  const converted = await convertServerIncrement(
    bytesSource(bytes).open(),
    bytes.length,
    baseBlocks * PAGE,
  );
  return { ...converted, bytes: await readAll(converted.content()) };
}

/** What pg_combinebackup makes of it: each block's origin. */
function combined(blocks: readonly number[], truncation: number, baseBlocks: number): string[] {
  const length = Math.max(truncation, (blocks.at(-1) ?? -1) + 1);
  return Array.from({ length }, (_, block) => {
    if (blocks.includes(block)) return "sent";
    return block < truncation && block < baseBlocks ? "base" : "zero";
  });
}

test("what it becomes gives every block as pg_combinebackup would", async () => {
  const increment = fc.record({
    blocks: fc.uniqueArray(fc.nat(30)).map((list) => list.toSorted((a, b) => a - b)),
    truncation: fc.nat(30),
    baseBlocks: fc.nat(30),
  });
  await fc.assert(
    fc.asyncProperty(increment, async ({ blocks, truncation, baseBlocks }) => {
      const converted = await convert(serverIncrement(blocks, truncation), baseBlocks);
      assert.equal(converted.bytes.length, converted.sizeBytes);
      const cursor = new ByteCursor(bytesSource(converted.bytes).open(), "increment");
      const { fileBytes, blockNumbers } = await readIncrementHeader(cursor, converted.sizeBytes);
      const origins: string[] = Array.from({ length: fileBytes / PAGE }, () => "base");
      for (const block of blockNumbers) {
        const page = await cursor.readExactly(PAGE);
        const isSent = page.equals(pageOf(block));
        assert.ok(isSent || page.every((byte) => byte === 0));
        origins[block] = isSent ? "sent" : "zero";
      }
      assert.deepEqual(origins, combined(blocks, truncation, baseBlocks));
    }),
    { numRuns: 200 },
  );
});

test("without changes only its head is left", async () => {
  const converted = await convert(serverIncrement([], 3), 3);
  assert.deepEqual(converted.blockNumbers, []);
  assert.deepEqual(
    converted.bytes,
    formatIncrementHeader({ fileBytes: 3 * PAGE, blockNumbers: [] }),
  );
});

const good = serverIncrement([1, 5], 6);
function changed(change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(good);
  change(bytes);
  return bytes;
}

const wrong: readonly (readonly [string, Buffer, RegExp])[] = [
  ["another magic number", changed((bytes) => bytes.writeUInt8(0, 0)), /begins with 001faed3/],
  ["fewer pages than it has", changed((bytes) => bytes.writeUInt32LE(1, 4)), /of 1 pages/],
  ["more pages than it has", changed((bytes) => bytes.writeUInt32LE(3, 4)), /of 3 pages/],
  [
    "a length beyond a segment",
    changed((bytes) => bytes.writeUInt32LE(131_073, 8)),
    /cut at 131073/,
  ],
  ["a block twice", changed((bytes) => bytes.writeUInt32LE(1, 16)), /block 1 behind 1/],
  ["blocks backwards", changed((bytes) => bytes.writeUInt32LE(0, 16)), /block 0 behind 1/],
  [
    "a block beyond a segment",
    changed((bytes) => bytes.writeUInt32LE(131_072, 16)),
    /block 131072/,
  ],
  ["something in its padding", changed((bytes) => bytes.writeUInt8(1, 100)), /other than zero/],
  ["a page too much", Buffer.concat([good, pageOf(1)]), /of 2 pages/],
  ["a cut page", good.subarray(0, -1), /of 2 pages/],
];

for (const [what, bytes, message] of wrong) {
  test(`${what} is refused`, async () => {
    const cursor = new ByteCursor(bytesSource(bytes).open(), "server's increment");
    await assert.rejects(readServerIncrementHeader(cursor, bytes.length), {
      name: "FormatError",
      message,
    });
  });
}

test("one that ends within a page is refused", async () => {
  const converted = await convertServerIncrement(
    bytesSource(good.subarray(0, -5)).open(),
    good.length,
    0,
  );
  await assert.rejects(readAll(converted.content()), { name: "TruncatedError" });
});
