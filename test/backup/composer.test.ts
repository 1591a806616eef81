import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { byDatabase, byRating, GroupedEntries, inOrder } from "../../src/backup/composer.ts";
import type { Walked } from "../../src/backup/walk.ts";

const common = { mode: 0o600, mtimeNs: 0n, uid: 0, gid: 0 };

function file(name: string): Walked {
  return { kind: "file", name, path: name, sizeBytes: 1, ...common };
}

const names = fc.uniqueArray(
  fc
    .record({ database: fc.integer({ min: 1, max: 4 }), relation: fc.integer({ min: 1, max: 30 }) })
    .map(({ database, relation }) => `/base/${database}/${relation}`),
);

/** Takes parts of at most `size` entries, as two packers at the same time would. */
function partsOf(line: GroupedEntries, size: number): string[][] {
  const parts: string[][] = [];
  const open: { readonly names: string[]; readonly rest: Iterator<Walked> }[] = [];
  for (;;) {
    while (open.length < 2) {
      const begun = line.begin();
      if (begun === undefined) break;
      const part = [begun.first.name];
      parts.push(part);
      open.push({ names: part, rest: begun.entries });
    }
    const current = open.shift();
    if (current === undefined) return parts;
    const step = current.names.length < size ? current.rest.next() : { done: true as const };
    if (step.done === true) continue;
    current.names.push(step.value.name);
    open.push(current);
  }
}

test("every entry is in one part, and no part crosses the border of a group", () => {
  fc.assert(
    fc.property(names, fc.integer({ min: 1, max: 9 }), fc.nat(1000), (all, size, seed) => {
      const sorted = all.toSorted();
      const walk = sorted.map(file);
      const counts = new Map(
        sorted.map((name, index) => [name.slice("/base/".length), BigInt((seed * index) % 12_345)]),
      );
      const rated = byRating(() => walk, { counts, earlier: new Map() });
      for (const composition of [inOrder(walk), byDatabase(walk), rated]) {
        const parts = partsOf(new GroupedEntries(composition), size);
        assert.deepEqual(parts.flat().toSorted(), sorted);
        for (const part of parts) {
          assert.ok(part.length <= size);
          const groups = new Set(part.map((name) => composition.groupOf(file(name))));
          assert.equal(groups.size, 1, part.join(" "));
        }
      }
    }),
  );
});

test("what changes a hundred times as often is another class; a base's count is the measure", () => {
  const counts = new Map([
    ["5/1", 1n],
    ["5/2", 99n],
    ["5/3", 100n],
    ["5/4", 10_000n],
    ["0/6", 1n],
  ]);
  const { groupOf, entries } = byRating(() => [file("/base/5/3")], {
    counts,
    earlier: new Map([["/base/5/4", 10_000n]]),
  });
  const paths = ["/base/5/9", "/PG_VERSION", "/base/5/1", "/base/5/2_fsm", "/base/5/3.1"];
  assert.deepEqual(
    [...paths, "/pg_tblspc/7/PG_16_2/5/3", "/base/5/4", "/global/6"].map((path) =>
      groupOf(file(path)),
    ),
    // The last but one grew by as much as it had: 100 %.
    [0, 0, 1, 1, 2, 2, 2, 1],
  );
  const [entry] = entries;
  assert.equal(entry?.kind === "file" ? entry.updatesCount : undefined, 100n);
});
