import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  MIN_PART_BYTES,
  PartBuffers,
  PartReader,
  partBytes,
} from "../../src/storage/part-buffers.ts";
import { patternBytes, patternSource } from "../support/bodies.ts";

const MIB = 1024 * 1024;
const MAX_OBJECT_BYTES = 5 * 1024 ** 4;
const MAX_PARTS = 10_000;

for (const firstMiB of [5, 20, 64, 5120]) {
  test(`5 TiB fit in 10,000 parts that begin with ${firstMiB} MiB (P21)`, () => {
    let totalBytes = 0;
    let partNumber = 0;
    while (totalBytes < MAX_OBJECT_BYTES) {
      partNumber++;
      const bytes = partBytes(partNumber, firstMiB * MIB);
      assert.ok(bytes >= MIN_PART_BYTES && bytes <= 5 * 1024 * MIB, `part ${partNumber}: ${bytes}`);
      totalBytes += bytes;
    }
    assert.ok(partNumber <= MAX_PARTS, `${partNumber} parts`);
  });
}

test("a file of 1 GiB fits where no more than 1,000 parts are taken (P21)", () => {
  for (const firstMiB of [5, 20, 64]) {
    const parts = Array.from({ length: 1000 }, (_, index) => partBytes(index + 1, firstMiB * MIB));
    // As much more as tar, compression of noise, and encryption may add.
    assert.ok(parts.reduce((sum, bytes) => sum + bytes, 0) > 4 * 1024 * MIB);
  }
});

test("up to 900 parts all have one length", () => {
  for (const partNumber of [1, 2, 899, 900])
    assert.equal(partBytes(partNumber, 20 * MIB), 20 * MIB);
  assert.equal(partBytes(901, 20 * MIB), 40 * MIB);
});

test("buffers are used again, and no more are made than the limit allows", () => {
  const buffers = new PartBuffers(30);
  const [one, two, three] = [buffers.take(10), buffers.take(10), buffers.take(10)];
  assert.ok(one !== undefined && two !== undefined && three !== undefined);
  assert.equal(buffers.take(10), undefined);
  assert.equal(buffers.takeAnyway(10).length, 10);
  buffers.give(one, { isReusable: true });
  assert.equal(buffers.take(10), undefined, "over the limit none is kept");
  buffers.give(two, { isReusable: true });
  assert.equal(buffers.take(10), two);
});

test("a buffer that a lost request may still read is not used again", () => {
  const buffers = new PartBuffers(10);
  const first = buffers.take(10);
  assert.ok(first !== undefined);
  buffers.give(first, { isReusable: false });
  const second = buffers.take(10);
  assert.ok(second !== undefined && second !== first);
});

test("idle buffers of another length make room", () => {
  const buffers = new PartBuffers(20);
  const small = [buffers.take(5), buffers.take(5), buffers.take(5)];
  for (const buffer of small) if (buffer !== undefined) buffers.give(buffer, { isReusable: true });
  assert.equal(buffers.take(20)?.length, 20);
  assert.equal(buffers.take(1), undefined);
});

test("streams are cut into buffers without a byte lost, and their end is known before", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(3_000_000),
      fc.integer({ min: 1, max: 1_200_000 }),
      async (sizeBytes, bufferBytes) => {
        await using reader = new PartReader(patternSource(sizeBytes).open());
        const parts: Buffer[] = [];
        while (await reader.hasMore()) {
          if (parts.length > 200) return;
          const buffer = Buffer.alloc(bufferBytes);
          const filledBytes = await reader.fill(buffer);
          assert.ok(filledBytes > 0);
          assert.equal(
            filledBytes < bufferBytes,
            filledBytes < bufferBytes && !(await reader.hasMore()),
          );
          parts.push(buffer.subarray(0, filledBytes));
        }
        assert.ok(Buffer.concat(parts).equals(patternBytes(sizeBytes)));
      },
    ),
    { numRuns: 50 },
  );
});
