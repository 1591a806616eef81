import assert from "node:assert/strict";
import { test } from "node:test";
import { inByteOrder } from "../../src/storage/byte-order.ts";
import { compareKeys } from "../../src/storage/key.ts";
import { fc } from "../support/property.ts";

const segment = fc.string({
  unit: fc.constantFrom("a", "z", "/", "\uffee", "\u{1f418}"),
  maxLength: 5,
});

async function keysInOrder(keys: readonly string[]): Promise<string[]> {
  async function* listed() {
    for (const key of keys) yield { key, sizeBytes: 0, modifiedAt: new Date(0) };
  }
  return (await Array.fromAsync(inByteOrder(listed()))).map(({ key }) => key);
}

test("any keys in the order of UTF-16 units, or of bytes, come out in that of bytes", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(segment), async (keys) => {
      const expected = keys.toSorted(compareKeys);
      assert.deepEqual(await keysInOrder(keys.toSorted()), expected);
      assert.deepEqual(await keysInOrder(expected), expected);
    }),
  );
});
