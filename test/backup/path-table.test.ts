import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { PathList, PathSet, PathValues } from "../../src/backup/path-set.ts";
import { PathTable } from "../../src/backup/path-table.ts";

/** As in data directories, with what they never have: other scripts, emptiness, long names. */
const path = fc.oneof(
  fc.stringMatching(/^(base|global|pg_wal)\/[0-9]{0,3}(_fsm)?$/),
  fc.string({ unit: "grapheme", maxLength: 12 }),
  fc.nat(9).map((digit) => `${digit}/`.repeat(3000)),
);

test("numbers are given once, and lead back to their paths", () => {
  fc.assert(
    fc.property(fc.array(path), fc.array(path), (added, others) => {
      const table = new PathTable();
      const numbers = new Map<string, number>();
      for (const one of added) {
        const id = table.add(one);
        assert.equal(id, numbers.get(one) ?? numbers.size);
        numbers.set(one, id);
      }
      assert.equal(table.count, numbers.size);
      for (const one of [...added, ...others])
        assert.equal(table.find(one), numbers.get(one) ?? -1);
      for (const [one, id] of numbers) assert.equal(table.pathOf(id), one);
    }),
  );
});

function nameOf(index: number): string {
  return `base/${index % 7}/${index.toString(36).repeat(9)}ä`;
}

test("many paths, over the borders of its pieces and through its growth", () => {
  const table = new PathTable();
  const count = 60_000;
  for (let index = 0; index < count; index += 1) assert.equal(table.add(nameOf(index)), index);
  for (let index = 0; index < count; index += 1) {
    if (table.find(nameOf(index)) !== index) assert.fail(nameOf(index));
    if (table.pathOf(index) !== nameOf(index)) assert.fail(table.pathOf(index));
  }
  assert.equal(table.find(nameOf(count)), -1);
});

test("sets, lists and values of paths are as those of strings", () => {
  const action = fc.record({
    path,
    what: fc.constantFrom("add", "delete", "other"),
    value: fc.constantFrom("here", "skipped"),
  });
  fc.assert(
    fc.property(fc.array(action), (actions) => {
      const table = new PathTable();
      const [set, list, values] = [new PathSet(table), new PathList(table), new PathValues(table)];
      const [wantedSet, wantedList] = [new Set<string>(), Array.of<string>()];
      const wantedValues = new Map<string, string>();
      for (const { path: one, what, value } of actions) {
        if (what === "other") {
          table.add(one);
          continue;
        }
        set[what](one);
        wantedSet[what](one);
        list.push(one);
        wantedList.push(one);
        values.set(one, value);
        wantedValues.set(one, value);
      }
      const all = actions.map(({ path: one }) => one);
      assert.deepEqual([...set].toSorted(), [...wantedSet].toSorted());
      assert.deepEqual([set.size, list.length], [wantedSet.size, wantedList.length]);
      assert.deepEqual([...list], wantedList);
      assert.equal(values.size, wantedValues.size);
      assert.deepEqual(new Map(values), wantedValues);
      assert.deepEqual(new Set(values.keys()), new Set(wantedValues.keys()));
      for (const one of all) {
        assert.equal(set.has(one), wantedSet.has(one));
        assert.equal(values.get(one), wantedValues.get(one));
        assert.equal(values.has(one), wantedValues.has(one));
      }
      const ofTable = new PathSet(table, set);
      const ofStrings = new PathSet(new PathTable(), set);
      assert.deepEqual([...ofTable], [...set]);
      assert.deepEqual([...ofStrings], [...set]);
    }),
  );
});
