import assert from "node:assert/strict";
import { test } from "node:test";
import { isSameSum, type ObjectSum, sumOfBase64, sumOfEtag } from "../../src/storage/object-sum.ts";

const MD5 = "900150983cd24fb0d6963f7d28e17f72";

test("ETags are sums where they look like one", () => {
  const cases: readonly (readonly [string | undefined, ObjectSum | undefined])[] = [
    [`"${MD5}"`, `md5:${MD5}`],
    [MD5.toUpperCase(), `md5:${MD5}`],
    [`"${MD5}-12"`, `parts:${MD5}-12`],
    [`W/"${MD5}"`, undefined],
    ["0x8DCB0", undefined],
    [`${MD5}-`, undefined],
    ["", undefined],
    [undefined, undefined],
  ];
  for (const [etag, sum] of cases) assert.equal(sumOfEtag(etag), sum, etag ?? "none");
});

test("sums in base64 have their length, or are none", () => {
  assert.equal(sumOfBase64("md5", "kAFQmDzST7DWlj99KOF/cg=="), `md5:${MD5}`);
  assert.equal(sumOfBase64("crc32c", "Nks/tw=="), "crc32c:364b3fb7");
  for (const text of ["", "Nks/tw==", undefined, 5])
    assert.equal(sumOfBase64("md5", text), undefined);
  assert.equal(sumOfBase64("crc32c", "Nks="), undefined);
});

test("only a sum that is long enough proves that two objects are the same", () => {
  assert.equal(isSameSum(`md5:${MD5}`, `md5:${MD5}`), true);
  assert.equal(isSameSum(`parts:${MD5}-2`, `parts:${MD5}-2`), true);
  assert.equal(isSameSum(`parts:${MD5}-2`, `parts:${MD5}-3`), false);
  assert.equal(isSameSum("crc32c:364b3fb7", "crc32c:364b3fb7"), false);
  assert.equal(isSameSum(undefined, undefined), false);
});
