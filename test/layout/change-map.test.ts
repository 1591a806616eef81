import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { FormatError } from "../../src/errors.ts";
import {
  type ChangeMap,
  formatChangeMap,
  mapSegment,
  parseChangeMap,
} from "../../src/layout/change-map.ts";
import { changeMapKey, parseChangeMapKey } from "../../src/layout/keys.ts";
import { ChangedBlocks } from "../../src/postgres/changed-blocks.ts";
import { crc32c } from "../../src/postgres/crc32c.ts";
import { lsn } from "../../src/postgres/lsn.ts";

const place = { tablespaceOid: 1663, databaseOid: 5, relfilenode: 16_384, fork: "main" } as const;

function example(): ChangeMap {
  const changes = new ChangedBlocks();
  for (const block of [0, 1, 2, 70_000, 0xffff_fffd]) changes.addBlock(place, block);
  changes.cutFork({ ...place, relfilenode: 0xffff_ffff }, 0xffff_ffff);
  changes.replaceDatabase(1664, 0);
  return {
    systemId: 0xfedc_ba98_7654_3210n,
    majorVersion: 18,
    timeline: 3,
    startLsn: lsn(0x5_1000_0000n),
    segmentBytes: 16 * 1024 * 1024,
    segmentCount: 16,
    changes,
    continuationBytes: 4,
    isOverwrite: false,
    restEnd: "complete",
    rest: Uint8Array.of(1, 2, 3, 4),
    open: {
      pendingBytes: 77,
      crc: -5,
      head: Uint8Array.of(5, 6),
      kept: Uint8Array.of(5, 6),
    },
  };
}

function plain({ changes, ...map }: ChangeMap) {
  const entries = [...changes.entries()].map(({ blocks, ...entry }) => ({
    ...entry,
    ranges: [...blocks.ranges()],
  }));
  return { ...map, entries };
}

test("what is written is read again", () => {
  for (const map of [example(), { ...example(), open: undefined, isOverwrite: true }]) {
    assert.deepEqual(plain(parseChangeMap(formatChangeMap(map))), plain(map));
  }
  assert.equal(mapSegment(example()), "000000030000000500000010");
});

test("a key tells the segment", () => {
  const key = changeMapKey("000000030000000500000010", "zst");
  assert.equal(key, "walnut_005/changes/000000030000000500000010.zst");
  assert.deepEqual(parseChangeMapKey(key), { name: "000000030000000500000010", extension: "zst" });
  for (const other of ["walnut_005/changes/", "walnut_005/changes/x", "wal_005/0000000300000005"]) {
    assert.equal(parseChangeMapKey(other), undefined);
  }
});

/** With a CRC that is right, so that what is behind it is read. */
function sealed(bytes: Uint8Array): Uint8Array {
  const copy = Buffer.from(bytes);
  copy.writeUInt32LE(crc32c(copy.subarray(0, -4)), copy.length - 4);
  return copy;
}

test("a byte that is changed or missing is noticed", () => {
  const bytes = formatChangeMap(example()).slice();
  for (let at = 0; at < bytes.length; at += 1) {
    const damaged = bytes.map((byte, index) => (index === at ? byte ^ 0x40 : byte));
    assert.throws(() => parseChangeMap(damaged), FormatError);
    assert.throws(() => parseChangeMap(bytes.subarray(0, at)), FormatError);
  }
});

test("whatever stands there is read or refused", () => {
  const bytes = formatChangeMap(example()).slice();
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(bytes.length - 5), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      (edits) => {
        const damaged = bytes.slice();
        for (const [at, byte] of edits) damaged[at] = byte;
        try {
          parseChangeMap(sealed(damaged));
        } catch (error) {
          assert.ok(error instanceof FormatError, String(error));
        }
      },
    ),
    { numRuns: 1000 },
  );
});
