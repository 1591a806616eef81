import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { SparseColumn } from "../../src/backup/typed-column.ts";

/** Some in a row and some far apart, so that columns of both kinds are made. */
const runs = fc.array(
  fc.record({
    start: fc.nat(2_000_000),
    count: fc.constantFrom(1, 50, 3000, 12_000),
    step: fc.constantFrom(1, 2, 97),
  }),
  { minLength: 1, maxLength: 3 },
);

test("a sparse column gives what was set last, and 0 where nothing was", () => {
  fc.assert(
    fc.property(runs, fc.nat(2 ** 32 - 1), (all, last) => {
      const column = new SparseColumn();
      const expected = new Map<number, number>();
      for (const { start, count, step } of all) {
        for (let number = 0; number < count; number += 1) {
          const [index, value] = [start + number * step, (last - number) >>> 0];
          column.set(index, value);
          expected.set(index, value);
        }
      }
      for (const [index, value] of expected) {
        if (column.get(index) !== value) assert.fail(`${column.get(index)} at ${index}`);
        for (const near of [index - 1, index + 1]) {
          if (column.get(near) !== (expected.get(near) ?? 0)) assert.fail(`at ${near}`);
        }
      }
      assert.equal(column.get(-1), 0);
    }),
    { numRuns: 30 },
  );
});
