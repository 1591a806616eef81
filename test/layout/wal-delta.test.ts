import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { deltaName, formatWalDelta, parseWalDelta } from "../../src/layout/wal-delta.ts";

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
/** Never all zeros: that ends the list. */
const location = fc.record({
  tablespaceOid: fc.integer({ min: 1, max: 0xffff_ffff }),
  databaseOid: u32,
  relfilenode: u32,
  block: u32,
});

test("what is written is read again", () => {
  fc.assert(
    fc.property(fc.array(location), fc.uint8Array(), (locations, openRecord) => {
      const read = parseWalDelta(formatWalDelta({ locations, openRecord }));
      assert.deepEqual(
        read.locations,
        locations.map((one) => ({ ...one })),
      );
      assert.deepEqual([...read.openRecord], [...openRecord]);
    }),
  );
});

test("the bytes are those of walg-format", () => {
  const bytes = formatWalDelta({
    locations: [{ tablespaceOid: 1663, databaseOid: 5, relfilenode: 16_384, block: 258 }],
    openRecord: Uint8Array.of(9, 8),
  });
  const expected = `7f060000 05000000 00400000 02010000 ${"00".repeat(16)} 02000000 0908`;
  assert.equal(Buffer.from(bytes).toString("hex"), expected.replaceAll(" ", ""));
  assert.equal(deltaName("000000010000000000000010"), "000000010000000000000010_delta");
});

const bad = [
  { name: "nothing", hex: "", message: /^WAL delta of 0 bytes has no end$/ },
  { name: "no end", hex: "01".repeat(16), message: /^WAL delta of 16 bytes has no end$/ },
  { name: "no record", hex: "00".repeat(16), message: /^WAL delta ends after 16 bytes$/ },
  { name: "record cut off", hex: `${"00".repeat(16)}0200000001`, message: /ends after 21 bytes$/ },
  { name: "more", hex: `${"00".repeat(20)}aa`, message: /^WAL delta with 1 bytes more$/ },
];

for (const { name, hex, message } of bad) {
  test(`refuses a delta: ${name}`, () => {
    assert.throws(() => parseWalDelta(Buffer.from(hex, "hex")), { name: /Error$/, message });
  });
}
