import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSizeParameter, parseTimeParameter } from "../../src/connection/parameter.ts";

test("sizes and times are read in the form of SHOW", () => {
  assert.equal(parseSizeParameter("16MB"), 16_777_216);
  assert.equal(parseSizeParameter("1GB"), 1_073_741_824);
  assert.equal(parseSizeParameter("512kB"), 524_288);
  assert.equal(parseTimeParameter("1min"), 60_000);
  assert.equal(parseTimeParameter("1500ms"), 1500);
  assert.equal(parseTimeParameter("2h"), 7_200_000);
  assert.equal(parseTimeParameter("1d"), 86_400_000);
  assert.equal(parseTimeParameter("0"), 0);
});

for (const text of ["", "16", "16 megabytes", "MB", "-1MB", "1.5GB", "16mb", "1min"]) {
  test(`${JSON.stringify(text)} is no size`, () => {
    assert.throws(() => parseSizeParameter(text), {
      name: "FormatError",
      message: `the server shows no size but ${JSON.stringify(text)}`,
    });
  });
}

test("a time needs its unit", () => {
  assert.throws(() => parseTimeParameter("60"), { name: "FormatError" });
  assert.throws(() => parseTimeParameter("16MB"), { name: "FormatError" });
});
