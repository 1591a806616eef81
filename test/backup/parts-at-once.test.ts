import assert from "node:assert/strict";
import { test } from "node:test";
import { partsAtOnce } from "../../src/backup/parts-at-once.ts";

for (const [pathCount, parts] of [
  [0, 6],
  [1_000, 6],
  [500_000, 6],
  [700_000, 4],
  [1_000_000, 3],
  [100_000_000, 3],
] as const) {
  test(`a restore of ${pathCount} files reads ${parts} parts at once`, () => {
    assert.equal(partsAtOnce(pathCount), parts);
  });
}
