import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  compareKeys,
  formatTemporaryName,
  isTemporaryName,
  isValidKey,
  requireValidKey,
  requireValidRange,
} from "../../src/storage/key.ts";

test("keys compare as their UTF-8 bytes do", () => {
  const key = fc.string({ unit: "grapheme", maxLength: 8 });
  fc.assert(
    fc.property(key, key, fc.string({ unit: "binary", maxLength: 4 }), (left, right, common) => {
      const bytes = Buffer.compare(Buffer.from(common + left), Buffer.from(common + right));
      assert.equal(Math.sign(compareKeys(common + left, common + right)), bytes);
    }),
    { numRuns: 2000 },
  );
  assert.ok(compareKeys("\uffee", "\u{1f418}") < 0, "where UTF-16 has it the other way round");
});

test("temporary names are WAL-G's, and recognised", () => {
  const at = Date.UTC(2026, 10, 21, 6, 45, 7, 89);
  const name = formatTemporaryName("000000010000000000000003.zst", at, "00c0ffee00c0ffee");
  assert.equal(name, "000000010000000000000003.zst.tmp.20261121T064507Z-00c0ffee00c0ffee");
  assert.ok(isTemporaryName(name));
  for (const other of [
    `${name}0`,
    `${name}.zst`,
    name.toUpperCase(),
    "a.tmp",
    "a.tmp.20261121T064507Z",
  ]) {
    assert.equal(isTemporaryName(other), false, other);
  }
});

const refused: readonly [string, RegExp][] = [
  ["", /it is empty/],
  ["a\0b", /it holds a NUL/],
  ["\udc00", /it is not valid Unicode/],
  ["/a", /it has an empty segment/],
  ["a//b", /it has an empty segment/],
  ["a/", /it has an empty segment/],
  ["a/./b", /it has the segment \./],
  ["../a", /it has the segment \.\./],
  ["a/b.tmp.20261121T064507Z-00c0ffee00c0ffee/c", /it looks like a temporary file/],
];
for (const [key, problem] of refused) {
  test(`the key ${JSON.stringify(key)} is refused`, () => {
    assert.equal(isValidKey(key), false);
    assert.throws(() => requireValidKey(key), {
      name: "StorageError",
      message: problem,
      isRetryable: false,
    });
  });
}

test("other keys are not", () => {
  for (const key of ["a", "a/b", "...", "a..b", ".a/..b", "a b/ü", "a.tmp", "a.tar."])
    requireValidKey(key);
});

const badRanges = [
  { start: -1 },
  { start: 1.5 },
  { start: 2, end: 1 },
  { start: 0, end: Number.POSITIVE_INFINITY },
  { start: Number.NaN },
];
for (const range of badRanges) {
  test(`[${range.start}, ${range.end}) is no range`, () => {
    assert.throws(() => requireValidRange(range), RangeError);
  });
}
