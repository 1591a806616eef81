import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { PackedNames } from "../../src/backup/packed-names.ts";

test("gives the names back, the last one first, and leaves no string", () => {
  const name = fc
    .string({ unit: "binary", minLength: 1, maxLength: 300 })
    .filter((text) => !text.includes("\0"));
  fc.assert(
    fc.property(fc.array(name, { maxLength: 40 }), (names) => {
      const given = [...names];
      const packed = new PackedNames(given);
      assert.deepEqual(given, []);
      const taken: string[] = [];
      for (let next = packed.pop(); next !== undefined; next = packed.pop()) taken.push(next);
      assert.deepEqual(taken, names.toReversed());
      assert.equal(packed.pop(), undefined);
    }),
    { numRuns: 200 },
  );
});
