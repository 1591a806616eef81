import { test } from "node:test";
import assert from "node:assert/strict";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { free, freed } from "../../src/io/freed.ts";
import { zstdCompressFrame, zstdDecompressFrame } from "../../src/io/runtime.ts";
import { sampleContent } from "../support/content.ts";

test("a frame comes back, and other decoders verify its checksum", async () => {
  for (const sizeBytes of [0, 1, 255, 256, 65_791, 65_792, 3_000_000]) {
    const content = sampleContent(sizeBytes);
    const frame = await zstdCompressFrame(content, 3);
    assert.equal((frame[4] ?? 0) & 0x04, 0x04, "checksum flag");
    assert.equal(zstdDecompressSync(frame).equals(content), true);
    const back = await zstdDecompressFrame(frame, sizeBytes);
    assert.equal(Buffer.from(back).equals(content), true);
    const changed = Buffer.from(frame);
    changed[changed.length - 1] = (changed[changed.length - 1] ?? 0) ^ 1;
    assert.throws(() => zstdDecompressSync(changed));
    await assert.rejects(zstdDecompressFrame(changed, sizeBytes), { name: "FormatError" });
  }
});

test("a frame of another size than was said is refused", async () => {
  const frame = await zstdCompressFrame(sampleContent(1000), 1);
  for (const contentBytes of [999, 1001]) {
    await assert.rejects(zstdDecompressFrame(frame, contentBytes), { name: "FormatError" });
  }
});

test("a frame that is cut off is refused at every length but none", async () => {
  const frame = zstdCompressSync(sampleContent(2000), {
    pledgedSrcSize: 2000,
    params: { [constants.ZSTD_c_checksumFlag]: 1 },
  });
  for (let cut = 0; cut < frame.length; cut += 1) {
    await assert.rejects(zstdDecompressFrame(frame.subarray(0, cut), 2000), {
      name: "FormatError",
    });
  }
});

test("freed memory is gone at once, but not the memory of others", async () => {
  const own = new Uint8Array(100);
  free(own);
  assert.equal(own.length, 0);
  const shared = new Uint8Array(100);
  free(shared.subarray(0, 50));
  assert.equal(shared.length, 100);

  const chunks = [new Uint8Array(10), new Uint8Array(20)];
  async function* source() {
    yield* chunks;
  }
  const lengths: number[] = [];
  for await (const chunk of freed(source())) lengths.push(chunk.length);
  assert.deepEqual(lengths, [10, 20]);
  assert.deepEqual(
    chunks.map((chunk) => chunk.length),
    [0, 0],
  );
});
