import assert from "node:assert/strict";
import { test } from "node:test";
import { lsn } from "../../src/postgres/lsn.ts";
import { PageChangeTest } from "../../src/postgres/page-change.ts";

const PAGE = 8192;
const SINCE = 0x5_0000_1000n;

function page(position: bigint, change: (bytes: Buffer) => void = () => {}): Buffer {
  const bytes = Buffer.alloc(PAGE);
  bytes.writeUInt32LE(Number(position >> 32n), 0);
  bytes.writeUInt32LE(Number(position & 0xffff_ffffn), 4);
  bytes.writeUInt16LE(28, 12);
  bytes.writeUInt16LE(8000, 14);
  bytes.writeUInt16LE(PAGE, 16);
  bytes.writeUInt16LE(PAGE | 4, 18);
  change(bytes);
  return bytes;
}

const cases: readonly (readonly [what: string, bytes: Buffer, expected: string])[] = [
  ["before", page(SINCE - 1n), "unchanged"],
  ["long before, with a greater low word", page(0x4_ffff_ffffn), "unchanged"],
  ["exactly there", page(SINCE), "changed"],
  ["behind", page(SINCE + 1n), "changed"],
  ["far behind, with a smaller low word", page(0x6_0000_0000n), "changed"],
  ["written by initdb", page(40n), "unchanged"],
  ["written without WAL", page(0n), "changed"],
  ["built without WAL", page(1n), "changed"],
  ["new", Buffer.alloc(PAGE), "changed"],
  ["an unknown flag", page(1000n, (bytes) => bytes.writeUInt16LE(8, 10)), "implausible"],
  ["lower behind upper", page(1000n, (bytes) => bytes.writeUInt16LE(8001, 12)), "implausible"],
  ["another size", page(1000n, (bytes) => bytes.writeUInt16LE(4096 | 4, 18)), "implausible"],
  ["text", Buffer.alloc(PAGE, "walnut"), "implausible"],
];

for (const [what, bytes, expected] of cases) {
  test(`a page whose LSN is ${what}: ${expected}`, () => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    assert.equal(new PageChangeTest(lsn(SINCE), PAGE).judge(view, 0), expected);
  });
}
