import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { PartialPacker } from "../../src/archive/partial-packer.ts";
import { WalSpool } from "../../src/archive/wal-spool.ts";
import type { Codec, CompressionMethod } from "../../src/codec/codec.ts";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const MIB = 1024 * 1024;
const SEGMENT_BYTES = 4 * MIB;
const { signal } = new AbortController();
const content = Buffer.concat([randomBytes(MIB), Buffer.alloc(MIB, 7), randomBytes(2 * MIB)]);

function open(directory: string): Promise<WalSpool> {
  return WalSpool.create({
    directory,
    timeline: 1,
    segmentNumber: 1n,
    segmentBytes: SEGMENT_BYTES,
  });
}

async function unpack(packed: Uint8Array, codec: Codec): Promise<Buffer> {
  return await readAll(codec.decompress(bytesSource(packed).open(), { jobs: 1, signal }));
}

const methods = ["zstd", "lz4", "none", "brotli"] as const satisfies readonly CompressionMethod[];
for (const method of methods) {
  for (const isSynchronous of [false, true]) {
    test(`${method}${isSynchronous ? ", often" : ""}: what is packed is what was received`, async () => {
      using scratch = scratchDirectory();
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.integer({ min: 1, max: 1_500_000 }), { minLength: 1, maxLength: 5 }),
          async (steps) => {
            await using spool = await open(scratch.path);
            const codec = codecOf(method);
            const packer = new PartialPacker(spool, { codec, codecJobs: 1, isSynchronous });
            for (const step of steps) {
              const at = spool.receivedBytes;
              await spool.append(content.subarray(at, at + step));
              const endBytes = spool.receivedBytes;
              const packed = await readAll(packer.pack(endBytes, { signal }));
              const expected = Buffer.alloc(SEGMENT_BYTES);
              content.copy(expected, 0, 0, endBytes);
              assert.ok(expected.equals(await unpack(packed, codec)), `at ${endBytes}`);
            }
          },
        ),
        { numRuns: 8 },
      );
    });
  }
}

test("a block that is full is compressed once, and so is a block of zeros", async () => {
  using scratch = scratchDirectory();
  await using spool = await open(scratch.path);
  const inner = codecOf("zstd");
  const state = { count: 0 };
  const codec: Codec = {
    ...inner,
    compress(input, options) {
      state.count += 1;
      return inner.compress(input, options);
    },
  };
  const packer = new PartialPacker(spool, { codec, codecJobs: 1, isSynchronous: true });
  const counts: number[] = [];
  for (const step of [100, 100, 2 * MIB, 100, 100]) {
    const at = spool.receivedBytes;
    await spool.append(content.subarray(at, at + step));
    state.count = 0;
    await readAll(packer.pack(spool.receivedBytes, { signal }));
    counts.push(state.count);
  }
  assert.deepEqual(counts, [2, 1, 3, 1, 1]);
});
