import { test } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { fc } from "../support/property.ts";
import { createHasher } from "../../src/io/hash.ts";
import { Xxh32, xxh32 } from "../../src/io/xxh32.ts";
import { sampleContent } from "../support/content.ts";
import { needsTool, runTool } from "../support/tools.ts";

/** Published by the authors of xxHash for seed 0, and `xxhsum -H0`, `-H1` of the same bytes. */
const known = [
  { text: "", xxh32: 0x02cc5d05, xxh64: "ef46db3751d8e999" },
  { text: "a", xxh32: 0x550d7456, xxh64: "d24ec4f1a98c6e5b" },
  { text: "abc", xxh32: 0x32d153ff, xxh64: "44bc2cf5ad770999" },
  {
    text: "Nobody inspects the spammish repetition",
    xxh32: 0xe2293b2f,
    xxh64: "fbcea83c8a378bf1",
  },
];

test("xxh32 and xxh64 of known texts", async () => {
  const hasher = await createHasher("xxh64");
  for (const { text, xxh32: expected32, xxh64 } of known) {
    const bytes = Buffer.from(text);
    assert.equal(xxh32(bytes), expected32);
    assert.equal(hasher.digestOf(bytes), xxh64);
    hasher.update(bytes);
    assert.equal(hasher.digest(), xxh64);
  }
});

test("hashes do not depend on how the bytes are cut, and a hasher begins anew", async () => {
  const content = sampleContent(200_000);
  const xxh64 = await createHasher("xxh64");
  const sha256 = await createHasher("sha256");
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 10 }),
      fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 190_000 })),
      fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1 }),
      (offset, sizeBytes, cuts) => {
        const bytes = content.subarray(offset, offset + sizeBytes);
        const streamed32 = new Xxh32();
        for (let at = 0, index = 0; at < bytes.length; index += 1) {
          const chunk = bytes.subarray(at, at + (cuts[index % cuts.length] ?? 1));
          for (const hasher of [xxh64, sha256, streamed32]) hasher.update(chunk);
          at += chunk.length;
        }
        assert.equal(streamed32.digest(), xxh32(bytes));
        assert.equal(xxh64.digest(), xxh64.digestOf(bytes));
        assert.equal(sha256.digest(), createHash("sha256").update(bytes).digest("hex"));
        assert.equal(sha256.digestOf(bytes), createHash("sha256").update(bytes).digest("hex"));
      },
    ),
    { numRuns: 60 },
  );
});

test("a hasher of nothing", async () => {
  const xxh64 = await createHasher("xxh64");
  assert.equal(xxh64.algorithm, "xxh64");
  assert.equal(xxh64.digest(), "ef46db3751d8e999");
  const sha256 = await createHasher("sha256");
  assert.equal(sha256.algorithm, "sha256");
  assert.equal(sha256.digest(), createHash("sha256").digest("hex"));
});

test("digestOf in the middle of another hash is a mistake", async () => {
  for (const algorithm of ["xxh64", "sha256"] as const) {
    const hasher = await createHasher(algorithm);
    hasher.update(Buffer.of(1));
    assert.throws(() => hasher.digestOf(Buffer.of(2)), /between update and digest/);
  }
});

if (needsTool("hashes with the program xxhsum", "xxhsum")) {
  test("xxhsum computes the same", async () => {
    const hasher = await createHasher("xxh64");
    for (const sizeBytes of [0, 1, 31, 32, 33, 1000, 1_000_003]) {
      const bytes = sampleContent(sizeBytes);
      const [hash64 = ""] = (await runTool("xxhsum", ["-H64"], bytes)).toString().split(" ");
      assert.equal(hasher.digestOf(bytes), hash64.replace("XXH64_", ""));
      const [hash32 = ""] = (await runTool("xxhsum", ["-H32"], bytes)).toString().split(" ");
      assert.equal(xxh32(bytes).toString(16).padStart(8, "0"), hash32.replace("XXH32_", ""));
    }
  });
}
