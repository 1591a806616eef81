import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { BlockSet } from "../../src/postgres/block-set.ts";
import { ChangedBlocks, type ForkPlace } from "../../src/postgres/changed-blocks.ts";
import type { RelationFile } from "../../src/postgres/relation-file.ts";

const table: ForkPlace = {
  tablespaceOid: 1663,
  databaseOid: 5,
  relfilenode: 16_384,
  fork: "main",
};

function fileOf(place: ForkPlace, relationSegment = 0): RelationFile {
  return { ...place, relationSegment, isTemporary: false };
}

function numbersOf(ranges: Iterable<{ start: number; end: number }>): number[] {
  return [...ranges].flatMap(({ start, end }) =>
    Array.from({ length: end - start }, (_, index) => start + index),
  );
}

function told(changes: ChangedBlocks) {
  return [1, 2].flatMap((databaseOid) =>
    [1, 2, 3].map((relfilenode) =>
      changes.inFile(fileOf({ ...table, databaseOid, relfilenode }), 30),
    ),
  );
}

/** Around the borders of bytes and chunks. */
const blockNumber = fc.oneof(
  fc.integer({ min: 0, max: 40 }),
  fc.integer({ min: 65_500, max: 65_600 }),
  fc.integer({ min: 131_060, max: 131_090 }),
  fc.constantFrom(0xffff_fffe, 0xffff_ffff),
);

test("a block set is a set of numbers", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("add" as const), block: blockNumber }),
    fc.record({
      kind: fc.constant("range" as const),
      block: blockNumber,
      count: fc.integer({ min: 0, max: 90 }),
    }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), blockNumber, blockNumber, (steps, a, b) => {
      const set = new BlockSet();
      const model = new Set<number>();
      for (const one of steps) {
        if (one.kind === "add") {
          set.add(one.block);
          model.add(one.block);
        } else {
          const end = Math.min(one.block + one.count, 2 ** 32);
          set.addRange({ start: one.block, end });
          for (let block = one.block; block < end; block += 1) model.add(block);
        }
      }
      const expected = [...model].toSorted((x, y) => x - y);
      assert.deepEqual(numbersOf(set.ranges()), expected);
      const inside = expected.filter((block) => block >= a && block < b);
      assert.deepEqual(numbersOf(set.ranges(a, b)), inside);
      for (const block of [a, b]) assert.equal(set.has(block), model.has(block));
      assert.equal(set.isEmpty, model.size === 0);
      const copy = new BlockSet();
      copy.add(7);
      copy.addAll(set);
      assert.deepEqual(
        numbersOf(copy.ranges()),
        [...model.add(7)].toSorted((x, y) => x - y),
      );
      let end = -1;
      for (const range of set.ranges()) {
        assert.ok(range.start > end && range.end > range.start);
        end = range.end;
      }
    }),
  );
});

test("blocks are numbered within the file, and end where it ends", () => {
  const changes = new ChangedBlocks();
  for (const block of [3, 4, 9, 131_072, 131_073, 131_080]) changes.addBlock(table, block);
  assert.deepEqual(changes.inFile(fileOf(table), 131_072), {
    kind: "blocks",
    ranges: [
      { start: 3, end: 5 },
      { start: 9, end: 10 },
    ],
    count: 3,
  });
  assert.deepEqual(changes.inFile(fileOf(table, 1), 8), {
    kind: "blocks",
    ranges: [{ start: 0, end: 2 }],
    count: 2,
  });
  assert.deepEqual(changes.inFile(fileOf(table, 2), 8), { kind: "none" });
  assert.deepEqual(changes.inFile(fileOf(table), 3), { kind: "none" });
  assert.deepEqual(changes.inFile(fileOf({ ...table, databaseOid: 6 }), 100), { kind: "none" });
});

test("behind a cut every block may have changed, whatever is noted after it", () => {
  const changes = new ChangedBlocks();
  changes.addRange(table, { start: 0, end: 2 });
  changes.addBlock(table, 9);
  changes.addBlock(table, 50);
  changes.cutFork(table, 10);
  changes.cutFork(table, 20);
  changes.addBlock(table, 30);
  assert.deepEqual(changes.inFile(fileOf(table), 40), {
    kind: "blocks",
    ranges: [
      { start: 0, end: 2 },
      { start: 9, end: 40 },
    ],
    count: 33,
  });
  assert.deepEqual(changes.inFile(fileOf(table, 1), 5), { kind: "all" });
  changes.cutFork(table, 0);
  assert.deepEqual(changes.inFile(fileOf(table), 40), { kind: "all" });
});

test("a database that was replaced is new in that tablespace only", () => {
  const changes = new ChangedBlocks();
  const elsewhere = { ...table, tablespaceOid: 16_400 };
  changes.addBlock(elsewhere, 1);
  changes.addBlock(table, 1);
  changes.replaceDatabase(1663, 5);
  changes.addBlock(table, 2);
  assert.deepEqual(changes.inFile(fileOf(table), 40), { kind: "all" });
  assert.deepEqual(changes.inFile(fileOf({ ...table, relfilenode: 1 }), 40), { kind: "all" });
  assert.equal(changes.inFile(fileOf(elsewhere), 40).kind, "blocks");
});

test("forks that are not wholly in the WAL are always all", () => {
  const changes = new ChangedBlocks();
  for (const fork of ["fsm", "vm", "init"] as const) {
    changes.addBlock({ ...table, fork }, 1);
    changes.cutFork({ ...table, fork }, 0);
    assert.deepEqual(changes.inFile(fileOf({ ...table, fork }), 3), { kind: "all" });
  }
  assert.deepEqual(changes.inFile(fileOf(table), 3), { kind: "none" });
  assert.deepEqual([...changes.entries()], []);
});

test("adding one to the other is noting both", () => {
  const note = fc.record({
    kind: fc.constantFrom("block", "cut", "database"),
    databaseOid: fc.integer({ min: 1, max: 2 }),
    relfilenode: fc.integer({ min: 1, max: 3 }),
    block: fc.integer({ min: 0, max: 20 }),
  });
  const apply = (
    changes: ChangedBlocks,
    one: typeof note extends fc.Arbitrary<infer T> ? T : never,
  ) => {
    const place = { ...table, databaseOid: one.databaseOid, relfilenode: one.relfilenode };
    if (one.kind === "block") changes.addBlock(place, one.block);
    else if (one.kind === "cut") changes.cutFork(place, one.block);
    else if (one.block < 3) changes.replaceDatabase(table.tablespaceOid, one.databaseOid);
  };
  fc.assert(
    fc.property(fc.array(note), fc.array(note), (first, second) => {
      const together = new ChangedBlocks();
      const left = new ChangedBlocks();
      const right = new ChangedBlocks();
      for (const one of first) for (const changes of [together, left]) apply(changes, one);
      for (const one of second) for (const changes of [together, right]) apply(changes, one);
      left.addAll(right);
      assert.deepEqual(told(left), told(together));
    }),
  );
});
