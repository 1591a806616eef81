import { test } from "node:test";
import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { fc } from "../support/property.ts";
import type { CompressionMethod } from "../../src/codec/codec.ts";
import { codecOf } from "../../src/codec/table.ts";
import { type ByteStream, readAll } from "../../src/io/bytes.ts";
import { inChunks, sampleContent } from "../support/content.ts";

const MIB = 1024 * 1024;

interface Subject {
  readonly method: CompressionMethod;
  /** Whether one compressed object behind the other is one content. */
  readonly isConcatenable: boolean;
  /** What is random in the sizes: borders of blocks and frames. */
  readonly borderBytes: number;
  readonly maxBytes: number;
}

const subjects: readonly Subject[] = [
  { method: "zstd", isConcatenable: true, borderBytes: 4 * MIB, maxBytes: 9 * MIB },
  { method: "lz4", isConcatenable: true, borderBytes: MIB / 2, maxBytes: 3 * MIB },
  { method: "brotli", isConcatenable: false, borderBytes: MIB, maxBytes: 3 * MIB },
  { method: "lzma", isConcatenable: false, borderBytes: 64 * 1024, maxBytes: MIB },
  { method: "gzip", isConcatenable: true, borderBytes: MIB, maxBytes: 3 * MIB },
];

const options = { jobs: 2, signal: new AbortController().signal };
const content = sampleContent(9 * MIB);

async function compressed(method: CompressionMethod, bytes: Uint8Array): Promise<Buffer> {
  if (method === "gzip") return gzipSync(bytes);
  return await readAll(codecOf(method).compress(inChunks(bytes, 300_000), options));
}

async function decompressed(
  method: CompressionMethod,
  bytes: Uint8Array,
  chunkBytes = bytes.length,
): Promise<Buffer> {
  return await readAll(codecOf(method).decompress(inChunks(bytes, chunkBytes || 1), options));
}

function sizes({ borderBytes, maxBytes }: Subject): fc.Arbitrary<number> {
  const maxBorders = Math.floor(maxBytes / borderBytes);
  const border = fc
    .tuple(fc.integer({ min: 1, max: maxBorders }), fc.integer({ min: -1, max: 1 }))
    .map(([count, difference]) => count * borderBytes + difference);
  return fc.oneof(fc.constantFrom(0, 1, 2), fc.integer({ min: 0, max: 2000 }), border);
}

for (const subject of subjects) {
  const { method, isConcatenable } = subject;
  const codec = codecOf(method);

  test(`${method}: what is compressed comes back, whatever the sizes`, async () => {
    const property = fc.asyncProperty(
      sizes(subject),
      fc.integer({ min: 1, max: 2 * MIB }),
      fc.integer({ min: 1, max: 3 }),
      async (sizeBytes, wantedChunkBytes, jobs) => {
        const original = content.subarray(0, sizeBytes);
        const chunkBytes = Math.max(wantedChunkBytes, Math.ceil(sizeBytes / 1000));
        const stored =
          method === "gzip"
            ? gzipSync(original)
            : await readAll(codec.compress(inChunks(original, chunkBytes), { ...options, jobs }));
        assert.notEqual(stored.length, 0);
        const input = inChunks(stored, chunkBytes);
        const back = await readAll(codec.decompress(input, { ...options, jobs }));
        assert.equal(back.equals(original), true);
      },
    );
    await fc.assert(property, { numRuns: 15 });
  });

  test(`${method}: tiny chunks`, async () => {
    const original = content.subarray(0, 5000);
    const stored = await compressed(method, original);
    assert.deepEqual(await decompressed(method, stored, 1), original);
  });

  for (const sizeBytes of [0, 1, 700, 300_000]) {
    test(`${method}: ${sizeBytes} bytes cut off anywhere are refused as cut off`, async () => {
      const stored = await compressed(method, content.subarray(0, sizeBytes));
      const cuts = new Set<number>();
      for (let at = 0; at < Math.min(64, stored.length); at += 1) {
        cuts.add(at).add(stored.length - 1 - at);
      }
      for (let count = 1; count < 40; count += 1)
        cuts.add(Math.floor((stored.length * count) / 40));
      for (const cut of cuts) {
        await assert.rejects(
          decompressed(method, stored.subarray(0, cut)),
          { name: "TruncatedError", code: "truncated" },
          `cut to ${cut} of ${stored.length}`,
        );
      }
    });
  }

  const trailers = [
    Buffer.of(0),
    Buffer.alloc(700),
    Buffer.from("garbage"),
    Buffer.alloc(25, 0xff),
  ];
  for (const trailer of trailers) {
    test(`${method}: ${trailer.toString("hex", 0, 4)} behind the end is refused`, async () => {
      const stored = await compressed(method, content.subarray(0, 3000));
      const whole = Buffer.concat([stored, trailer]);
      for (const chunkBytes of [50, stored.length, whole.length]) {
        await assert.rejects(decompressed(method, whole, chunkBytes), { name: "FormatError" });
      }
    });
  }

  test(`${method}: a second object behind the first`, async () => {
    const first = content.subarray(0, 5000);
    const second = content.subarray(7000, 7800);
    const stored = [await compressed(method, first), await compressed(method, second)];
    const whole = Buffer.concat(stored);
    for (const chunkBytes of [77, stored[0]?.length ?? 0, whole.length]) {
      const reading = decompressed(method, whole, chunkBytes);
      if (isConcatenable) assert.deepEqual(await reading, Buffer.concat([first, second]));
      else await assert.rejects(reading, { name: "FormatError" });
    }
  });

  test(`${method}: other data is refused`, async () => {
    for (const text of ["PGDMP", "\x7fELF...............................", "{}", "\n".repeat(50)]) {
      const bytes = Buffer.from(text);
      await assert.rejects(decompressed(method, bytes), /Error/);
    }
  });

  test(`${method}: an error of the input comes through`, async () => {
    const stored = await compressed(method, content.subarray(0, 100_000));
    async function* failing(): ByteStream {
      yield stored.subarray(0, 20);
      throw new RangeError("the store is gone");
    }
    const expected = { name: "RangeError", message: "the store is gone" };
    await assert.rejects(readAll(codec.decompress(failing(), options)), expected);
    if (method !== "gzip")
      await assert.rejects(readAll(codec.compress(failing(), options)), expected);
  });

  test(`${method}: the input is ended when the consumer stops early`, async () => {
    const stored = await compressed(method, content.subarray(0, MIB));
    const inputs = { compress: content, decompress: stored };
    for (const [way, bytes] of Object.entries(inputs)) {
      if (method === "gzip" && way === "compress") continue;
      let isEnded = false;
      async function* endless(): ByteStream {
        try {
          yield* inChunks(bytes, 100_000);
          for (;;) yield Buffer.alloc(100_000);
        } finally {
          isEnded = true;
        }
      }
      const input = endless();
      const stream =
        way === "compress" ? codec.compress(input, options) : codec.decompress(input, options);
      let outputBytes = 0;
      for await (const chunk of stream) {
        outputBytes += chunk.length;
        // The first chunk may be a header that needs no input.
        if (outputBytes > 20) break;
      }
      assert.equal(isEnded, true, way);
    }
  });

  test(`${method}: an abort ends it at once, also while the input stalls`, async () => {
    const stored = await compressed(method, content.subarray(0, MIB));
    const inputs = { compress: content.subarray(0, 5 * MIB), decompress: stored.subarray(0, -10) };
    for (const [way, bytes] of Object.entries(inputs)) {
      if (method === "gzip" && way === "compress") continue;
      const abort = new AbortController();
      const stalled = Promise.withResolvers<void>();
      async function* stalling(): ByteStream {
        yield* inChunks(bytes, 100_000);
        stalled.resolve();
        await new Promise(() => {});
      }
      const both = { jobs: 2, signal: abort.signal };
      const stream =
        way === "compress" ? codec.compress(stalling(), both) : codec.decompress(stalling(), both);
      const reading = readAll(stream);
      await stalled.promise;
      abort.abort(new RangeError("time is up"));
      await assert.rejects(reading, { name: "RangeError", message: "time is up" });
      await assert.rejects(readAll(codec.decompress(inChunks(stored, 10), both)), {
        message: "time is up",
      });
    }
  });
}

for (const method of ["zstd", "lz4", "gzip"] as const) {
  test(`${method}: a changed bit is found, or changes nothing of the content`, async () => {
    const original = content.subarray(0, 800);
    const stored = await compressed(method, original);
    let harmless = 0;
    for (let bit = 0; bit < stored.length * 8; bit += 1) {
      const changed = Buffer.from(stored);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const result = await decompressed(method, changed).catch((error: unknown) => error);
      if (result instanceof Buffer) {
        assert.equal(result.equals(original), true, `bit ${bit}`);
        harmless += 1;
      } else {
        assert.equal(
          result instanceof Error && /^(Format|Truncated)Error$/.test(result.name),
          true,
        );
      }
    }
    // Bits that mean nothing: zstd has one; lz4 the length of a match behind the last literals;
    // gzip the time, the level and the system of the writer.
    assert.equal(harmless <= { zstd: 1, lz4: 4, gzip: 80 }[method], true, `${harmless} harmless`);
  });
}

for (const method of ["brotli", "lzma"] as const) {
  test(`${method} has no checksum: a changed bit may pass, but ends in bytes or an error`, async () => {
    assert.equal(codecOf(method).hasContentChecksum, false);
    const original = content.subarray(0, 800);
    const stored = await compressed(method, original);
    let unnoticed = 0;
    for (let bit = 0; bit < stored.length * 8; bit += 5) {
      const changed = Buffer.from(stored);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const result = await decompressed(method, changed).catch((error: unknown) => error);
      if (result instanceof Buffer && !result.equals(original)) unnoticed += 1;
      if (result instanceof Error) assert.match(result.name, /^(Format|Truncated)Error$/);
    }
    assert.notEqual(unnoticed, 0);
  });
}

test("an abort ends the output of a chunk that holds much", async () => {
  const stored = await compressed("brotli", Buffer.alloc(20 * MIB));
  assert.equal(stored.length < 1000, true);
  const abort = new AbortController();
  const both = { jobs: 1, signal: abort.signal };
  const stream = codecOf("brotli").decompress(inChunks(stored, stored.length), both);
  const iterator = stream[Symbol.asyncIterator]();
  assert.equal((await iterator.next()).done, false);
  abort.abort(new RangeError("enough"));
  await assert.rejects(iterator.next(), { name: "RangeError", message: "enough" });
});

test("none passes bytes on, whatever they are", async () => {
  const bytes = content.subarray(0, 100_000);
  const none = codecOf("none");
  assert.deepEqual(await readAll(none.compress(inChunks(bytes, 999), options)), bytes);
  assert.deepEqual(await readAll(none.decompress(inChunks(bytes, 999), options)), bytes);
  assert.equal(
    (await readAll(none.decompress(inChunks(bytes.subarray(0, 0), 1), options))).length,
    0,
  );
});

test("gzip is not written", async () => {
  await assert.rejects(readAll(codecOf("gzip").compress(inChunks(content, 100), options)), {
    message: "gzip is read only",
  });
});
