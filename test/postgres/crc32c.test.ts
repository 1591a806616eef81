import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { arch } from "node:os";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { createWasmCrc32c } from "../../src/io/crc32c-wasm.ts";
import { createCrc32c, loadAddonCrc32c, loadNativeCrc32c } from "../../src/io/crc32c.ts";
import { Crc32c, crc32c } from "../../src/postgres/crc32c.ts";

/** RFC 3720, appendix B.4, and the usual check value. */
const known = [
  { name: "nothing", bytes: new Uint8Array(), sum: 0 },
  { name: "123456789", bytes: Buffer.from("123456789"), sum: 0xe306_9283 },
  { name: "32 zeros", bytes: new Uint8Array(32), sum: 0x8a91_36aa },
  { name: "32 ones", bytes: new Uint8Array(32).fill(0xff), sum: 0x62a8_ab43 },
  { name: "0 to 31", bytes: Uint8Array.from({ length: 32 }, (_, i) => i), sum: 0x46dd_794e },
  { name: "31 to 0", bytes: Uint8Array.from({ length: 32 }, (_, i) => 31 - i), sum: 0x113f_db5c },
];

for (const { name, bytes, sum } of known) {
  test(`CRC-32C of ${name}`, () => {
    assert.equal(crc32c(bytes), sum);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const tables = new Crc32c().update(Crc32c.start, view, 0, bytes.length);
    assert.equal(Crc32c.finish(tables), sum);
  });
}

test("sixteen bytes a step is the same as bit by bit, cut anywhere and at any offset", () => {
  const crc = new Crc32c();
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.nat(200),
      fc.nat(20),
      (bytes, cut, offset) => {
        const memory = new Uint8Array(offset + bytes.length);
        memory.set(bytes, offset);
        const view = new DataView(memory.buffer);
        const middle = Math.min(offset + cut, memory.length);
        const sum = crc.update(Crc32c.start, view, offset, middle);
        const whole = Crc32c.finish(crc.update(sum, view, middle, memory.length));
        assert.equal(whole, crc32c(bytes));
      },
    ),
  );
});

for (const [name, load] of [
  ["machine code, or what there is without", loadNativeCrc32c],
  ["the addon", loadAddonCrc32c],
] as const) {
  test(`long pieces by ${name} give the same sums`, async () => {
    const native = await load();
    assert.ok(native !== undefined, "the addon is installed here");
    const crc = new Crc32c(native);
    fc.assert(
      fc.property(fc.nat(3000), fc.nat(3000), fc.nat(20), (length, cut, offset) => {
        const memory = new Uint8Array(offset + length).map((_, index) => index * 131 + length);
        const view = new DataView(memory.buffer);
        const middle = Math.min(offset + cut, memory.length);
        const sum = crc.update(Crc32c.start, view, offset, middle);
        const whole = Crc32c.finish(crc.update(sum, view, middle, memory.length));
        assert.equal(whole, crc32c(memory.subarray(offset)));
      }),
      { numRuns: 50 },
    );
  });
}

test("machine code is used on x86-64, once, and reads nothing outside of a view", async () => {
  const native = await loadNativeCrc32c();
  assert.equal(native, await loadNativeCrc32c());
  const isCoded = arch() === "x64" && /\bsse4_2\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
  assert.equal(native?.bytesMin, isCoded ? 64 : 512);
  const memory = new Uint8Array(300).fill(7);
  const view = new DataView(memory.buffer, 100, 100);
  const expected = crc32c(memory.subarray(100, 200));
  memory.fill(0, 0, 100).fill(0, 200);
  assert.equal(native?.update(view, 0, 100, 0), expected);
  assert.equal(native?.update(view, 100, 100, expected), expected, "nothing more");
  const outside = [
    [-1, 10],
    [0, 101],
    [20, 10],
    [Number.NaN, 10],
  ] as const;
  for (const [from, to] of outside) {
    assert.throws(() => native?.update(view, from, to, 0), RangeError);
  }
  structuredClone(memory.buffer, { transfer: [memory.buffer] });
  assert.throws(() => native?.update(view, 0, 100, 0), "the memory was given away");
});

test("running sums are the same with and without the addon", async () => {
  for (const create of [createCrc32c, createWasmCrc32c]) {
    const sum = await create();
    assert.equal(sum.base64(), "AAAAAA==");
    sum.update(Buffer.from("1234"));
    sum.base64();
    sum.update(Buffer.from("56789"));
    assert.equal(sum.base64(), "4waSgw==");
  }
});
