import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePathMask } from "../../src/backup/path-mask.ts";

const table: readonly (readonly [
  pattern: string,
  yes: readonly string[],
  no: readonly string[],
])[] = [
  ["/PG_VERSION", ["PG_VERSION"], ["base/PG_VERSION", "PG_VERSIONS"]],
  ["PG_VERSION", ["PG_VERSION"], []],
  ["base/*/*", ["base/1/1259", "base/1/"], ["base/1", "base/1/2/3"]],
  ["base/?", ["base/1"], ["base/12", "base//"]],
  ["base/[0-9]*", ["base/16384"], ["base/a"]],
  ["base/[^0-9]", ["base/a"], ["base/1", "base//"]],
  ["a\\*b", ["a*b"], ["axb"]],
  ["a.b+c", ["a.b+c"], ["axb+c"]],
  ["[a\\]]", ["a", "]"], ["\\"]],
  ["x[^a]y", ["xby"], ["x/y", "xay"]],
];

for (const [pattern, yes, no] of table) {
  test(`mask ${pattern}`, () => {
    const matches = parsePathMask(pattern);
    for (const path of yes) assert.equal(matches(path), true, path);
    for (const path of no) assert.equal(matches(path), false, path);
  });
}

for (const pattern of ["a\\", "[", "[]", "[a", "[b-a]", "[-a]", "[^]", "[a-]"]) {
  test(`refuses mask ${pattern}`, () => {
    assert.throws(() => parsePathMask(pattern), {
      name: "UsageError",
      message: `mask ${JSON.stringify(pattern)} is not a pattern`,
    });
  });
}
