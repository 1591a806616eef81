import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { PackedNames } from "../../src/backup/packed-names.ts";

test("gives the names back in the order of their bytes, and leaves no string", () => {
  const name = fc
    .string({ unit: "binary", minLength: 1, maxLength: 300 })
    .filter((text) => !text.includes("\0"));
  fc.assert(
    fc.property(fc.array(name, { maxLength: 40 }), (names) => {
      const given = [...names];
      const packed = new PackedNames(given);
      assert.deepEqual(given, []);
      const taken: string[] = [];
      for (let next = packed.next(); next !== undefined; next = packed.next()) taken.push(next);
      const bytes = names.map((text) => Buffer.from(text));
      const sorted = bytes.toSorted((one, other) => Buffer.compare(one, other));
      assert.deepEqual(taken, sorted.map(String));
      assert.equal(packed.next(), undefined);
    }),
    { numRuns: 200 },
  );
});
