import assert from "node:assert/strict";
import { test } from "node:test";
import { partsAtOnce } from "../../src/backup/parts-at-once.ts";

const GIB = 1024 ** 3;

for (const [pathCount, parts] of [
  [0, 6],
  [1_000, 6],
  [500_000, 6],
  [700_000, 4],
  [1_000_000, 3],
  [100_000_000, 3],
] as const) {
  test(`a restore of ${pathCount} files reads ${parts} parts at once`, () => {
    assert.equal(partsAtOnce(pathCount, { count: 10 }), parts);
  });
}

for (const [pathCount, count, memoryBytes, parts] of [
  [1_000, 24, 8 * GIB, 24],
  [1_000_000, 24, 8 * GIB, 24],
  [1_000, 24, GIB, 15],
  [1_000, 500, 8 * GIB, 127],
  [1_000, 8, GIB / 4, 8],
  [1_000_000, 24, GIB / 4, 3],
  [1_000, 2, 8 * GIB, 2],
  [1_000, 1, GIB / 4, 1],
] as const) {
  const memory = `${memoryBytes / GIB} GiB`;
  test(`asked for ${count} parts of ${pathCount} files with ${memory} it reads ${parts}`, () => {
    assert.equal(partsAtOnce(pathCount, { count, memoryBytes }), parts);
  });
}
