import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { formatBackupName, isBackupName, parseBackupName } from "../../src/layout/backup-name.ts";

const segmentOf = fc
  .array(fc.constantFrom(..."0123456789ABCDEF".split("")), { minLength: 24, maxLength: 24 })
  .map((digits) => digits.join(""));

test("a name is taken apart and put together again", () => {
  const parts = fc.record(
    { segment: segmentOf, baseSegment: segmentOf, offset: fc.constant("00000040") },
    { requiredKeys: ["segment"] },
  );
  fc.assert(
    fc.property(parts, (value) => {
      const name = formatBackupName(value);
      assert.deepEqual(parseBackupName(name), { ...value });
      assert.ok(isBackupName(name));
    }),
  );
});

for (const name of [
  "",
  "base_",
  "base_00000001000000000000000",
  "base_0000000100000000000000033",
  "base_00000001000000000000000g",
  "base_00000001000000000000000a",
  "base_000000010000000000000003_D_",
  "base_000000010000000000000003_D_0000",
  "base_000000010000000000000003/../x",
  "x_base_000000010000000000000003",
  "base_000000010000000000000003\n",
  "LATEST",
]) {
  test(`refuses ${JSON.stringify(name)}`, () => {
    assert.throws(() => parseBackupName(name), {
      name: "FormatError",
      message: `not the name of a backup: ${JSON.stringify(name)}`,
    });
    assert.equal(isBackupName(name), false);
  });
}

test("no name is made of something else than a segment", () => {
  assert.throws(() => formatBackupName({ segment: "0000000100000000000000" }), {
    name: "FormatError",
    message: 'not the name of a WAL segment: "0000000100000000000000"',
  });
});
