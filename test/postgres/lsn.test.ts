import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { formatLsn, lsn, parseLsn } from "../../src/postgres/lsn.ts";

test("an LSN's text has two halves in upper-case hexadecimal without leading zeros", () => {
  assert.equal(formatLsn(lsn(0x16_b374_d848n)), "16/B374D848");
  assert.equal(formatLsn(lsn(0n)), "0/0");
  assert.equal(formatLsn(lsn(0xffff_ffff_0000_000an)), "FFFFFFFF/A");
});

test("leading zeros and lower case are read too", () => {
  assert.equal(parseLsn("00000016/b374d848"), 0x16_b374_d848n);
  assert.equal(parseLsn("0/0000000A"), 10n);
});

test("any LSN survives its text", () => {
  fc.assert(
    fc.property(fc.bigInt(0n, (1n << 64n) - 1n), (position) => {
      assert.equal(parseLsn(formatLsn(lsn(position))), position);
    }),
  );
});

for (const text of [
  "",
  "/",
  "0/",
  "/0",
  "0",
  "0/0/0",
  "000000000/0",
  "0/123456789",
  "g/0",
  "-1/0",
]) {
  test(`refuses an LSN: ${JSON.stringify(text)}`, () => {
    const message = `not an LSN: ${JSON.stringify(text)}`;
    assert.throws(() => parseLsn(text), { name: "FormatError", message });
  });
}

for (const text of [" 0/0", "0/0 ", "0/0\n", "0x1/0"]) {
  test(`refuses an LSN with something around it: ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseLsn(text), { name: "FormatError" });
  });
}

test("a number outside 64 bits is no LSN", () => {
  const message = "LSN -1 does not fit in 64 bits";
  assert.throws(() => lsn(-1n), { name: "RangeError", message });
  assert.throws(() => lsn(1n << 64n), { name: "RangeError" });
});
