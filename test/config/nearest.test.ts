import assert from "node:assert/strict";
import { test } from "node:test";
import { editDistance, nearestWord } from "../../src/config/nearest.ts";

test("counts insertions, deletions, replacements and swaps", () => {
  const cases = [
    ["", "", 0],
    ["a", "", 1],
    ["abc", "abc", 0],
    ["abc", "axc", 1],
    ["abc", "acb", 1],
    ["kitten", "sitting", 3],
    ["S3_PREFXI", "S3_PREFIX", 1],
  ] as const;
  for (const [one, other, distance] of cases) {
    assert.equal(editDistance(one, other), distance, `${one} ${other}`);
    assert.equal(editDistance(other, one), distance, `${other} ${one}`);
  }
});

test("names the nearest word, if any is near", () => {
  const commands = ["wal-push", "wal-fetch", "backup-push", "backup-fetch", "backup-list"];
  assert.equal(nearestWord("wal-psuh", commands), "wal-push");
  assert.equal(nearestWord("backup-lst", commands), "backup-list");
  assert.equal(nearestWord("frobnicate", commands), undefined);
  assert.equal(nearestWord("x", []), undefined);
});
