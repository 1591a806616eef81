import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { ChangeFold, walkChanges, type WalkedSegment } from "../../src/archive/change-fold.ts";
import type { ByteStream } from "../../src/io/bytes.ts";
import { type ChangeMap, formatChangeMap, parseChangeMap } from "../../src/layout/change-map.ts";
import { ChangedBlocks, type ForkPlace } from "../../src/postgres/changed-blocks.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";
import {
  commitRecord,
  createRecord,
  DATABASE_OID,
  dropDatabaseRecord,
  heapRecord,
  parameterRecord,
  truncateRecord,
} from "../support/wal-records.ts";
import { type RecordRecipe, SWITCH, writeWal, type WrittenWal } from "../support/wal-writer.ts";

function place(relfilenode: number, databaseOid = DATABASE_OID): ForkPlace {
  return { tablespaceOid: 1663, databaseOid, relfilenode, fork: "main" };
}

interface Step {
  readonly record: RecordRecipe;
  note(changes: ChangedBlocks): void;
}

const relfilenode = fc.integer({ min: 16_384, max: 16_388 });
const written = fc.record({ relfilenode, block: fc.integer({ min: 0, max: 300_000 }) });

/** Most are small; some lie across segments of 1 MiB, a few across several. */
const padding = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 0, max: 9000 }) },
  { weight: 3, arbitrary: fc.integer({ min: 200_000, max: 900_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1_000_000, max: 2_600_000 }) },
);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .tuple(fc.uniqueArray(written, { maxLength: 4 }), padding)
      .map(([blocks, bytes]) => ({
        record: heapRecord(blocks, bytes),
        note: (changes: ChangedBlocks) => {
          for (const one of blocks) changes.addBlock(place(one.relfilenode), one.block);
        },
      })),
  },
  relfilenode.map((number) => ({
    record: createRecord(number),
    note: (changes: ChangedBlocks) => changes.cutFork(place(number), 0),
  })),
  fc.tuple(relfilenode, fc.integer({ min: 0, max: 9000 })).map(([number, count]) => ({
    record: truncateRecord(number, count),
    note: (changes: ChangedBlocks) => changes.cutFork(place(number), count),
  })),
  fc
    .oneof(
      fc.array(relfilenode, { maxLength: 3 }),
      fc.constant(Array<number>(120_000).fill(17_000)),
    )
    .map((dropped) => ({
      record: commitRecord(dropped),
      note: (changes: ChangedBlocks) => {
        for (const number of dropped) changes.cutFork(place(number), 0);
      },
    })),
  fc.integer({ min: 100, max: 103 }).map((databaseOid) => ({
    record: dropDatabaseRecord(databaseOid),
    note: (changes: ChangedBlocks) => changes.replaceDatabase(1663, databaseOid),
  })),
);

function describe(changes: ChangedBlocks) {
  return [...changes.entries()].map(({ blocks, ...noted }) => ({
    ...noted,
    ranges: [...blocks.ranges()],
  }));
}

async function* stream(bytes: Uint8Array, chunkBytes = 300_000): ByteStream {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.slice(at, at + chunkBytes);
}

async function mapOf(name: string, bytes: Uint8Array): Promise<ChangeMap> {
  const walked = await walkChanges(name, stream(bytes));
  if (typeof walked === "string") throw new Error(walked);
  return walked.map;
}

function reasonOf(walked: WalkedSegment | string): string {
  return typeof walked === "string" ? walked : "none";
}

async function mapsOf({ segments }: WrittenWal): Promise<ChangeMap[]> {
  return await Promise.all(segments.map(({ name, bytes }) => mapOf(name, bytes)));
}

function folded(maps: Iterable<ChangeMap>): ChangeFold {
  const fold = new ChangeFold();
  for (const map of maps) fold.add(map);
  return fold;
}

/** As a map that was stored and read again. */
function stored(maps: readonly ChangeMap[]): ChangeMap {
  const fold = folded(maps);
  assert.equal(fold.holeReason, "");
  return parseChangeMap(formatChangeMap(fold.toMap()));
}

test("segments, and maps of any number of them, add up to what the records change", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 40 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 5 })),
      async (steps, sizes) => {
        const recipe = [...steps.map(({ record }) => record), SWITCH];
        const wal = writeWal({ records: recipe });
        const expected = new ChangedBlocks();
        for (const one of steps) one.note(expected);

        const maps = await mapsOf(wal);
        const single = folded(maps);
        assert.equal(single.holeReason, "");
        assert.deepEqual(describe(single.changes), describe(expected));

        const grouped: ChangeMap[] = [];
        for (let from = 0; from < maps.length;) {
          const count = sizes.next().value;
          grouped.push(stored(maps.slice(from, from + count)));
          from += count;
        }
        const together = folded(grouped);
        assert.equal(together.holeReason, "");
        assert.deepEqual(describe(together.changes), describe(expected));
        assert.deepEqual(
          { ...stored(grouped), changes: undefined },
          { ...stored(maps), changes: undefined },
        );
      },
    ),
    { numRuns: process.env["WALNUT_LONG"] === "1" ? 2000 : 15 },
  );
});

/** Two segments, with a record that lies on their border. */
async function twoMaps(): Promise<readonly [ChangeMap, ChangeMap]> {
  const long = heapRecord([{ relfilenode: 16_384, block: 3 }], 700_000);
  const [first, second] = await mapsOf(writeWal({ records: [long, long, SWITCH] }));
  assert.ok(first !== undefined && second !== undefined);
  return [first, second];
}

const misfits: readonly {
  readonly name: string;
  readonly change: (maps: readonly [ChangeMap, ChangeMap]) => readonly ChangeMap[];
  readonly reason: RegExp;
}[] = [
  { name: "one is missing", change: ([a]) => [a, a], reason: /^changes up to .* are followed by/ },
  {
    name: "another cluster",
    change: ([a, b]) => [a, { ...b, systemId: 5n }],
    reason: /^changes with systemId 5 follow those with /,
  },
  {
    name: "another record goes on",
    change: ([a, b]) => [a, { ...b, continuationBytes: 9 }],
    reason: /of a record are to come, but the next segment continues one by 9$/,
  },
  {
    name: "no record goes on",
    change: ([a, b]) => [{ ...a, open: undefined }, b],
    reason: /: at .* 0 bytes of a record|^at .* 0 bytes of a record are to come/,
  },
  {
    name: "other bytes go on",
    change: ([a, b]) => [a, { ...b, rest: b.rest.map((byte, at) => (at === 9 ? byte ^ 1 : byte)) }],
    reason: /^a record on the border of two segments has a wrong CRC$/,
  },
];

for (const { name, change, reason } of misfits) {
  test(`a hole where maps do not fit: ${name}`, async () => {
    const fold = folded(change(await twoMaps()));
    assert.match(fold.holeReason, reason);
    assert.throws(() => fold.toMap(), RangeError);
  });
}

test("a record whose rest was lost in a crash changed nothing", async () => {
  const [first, second] = await twoMaps();
  const lost = {
    ...second,
    continuationBytes: 0,
    restEnd: "none" as const,
    rest: new Uint8Array(),
    isOverwrite: true,
  };
  assert.equal(folded([first, lost]).holeReason, "");
});

for (const major of MAJORS) {
  test(`PostgreSQL ${major} went on where the rest of a record was lost`, async () => {
    const { overwrites } = postgresFacts(major);
    for (const kind of ["inside", "start"] as const) {
      const { name } = overwrites[kind];
      const map = await mapOf(name, postgresBytes(major, name));
      assert.deepEqual(
        [map.restEnd, map.isOverwrite],
        kind === "start" ? ["none", true] : [map.restEnd, false],
      );
      assert.equal(folded([map]).holeReason, "");
    }
  });

  test(`a record of PostgreSQL ${major} over three segments`, async () => {
    const { first, middle, last } = postgresFacts(major).segments;
    const maps: ChangeMap[] = [];
    for (const name of [first, middle, last])
      maps.push(await mapOf(name, postgresBytes(major, name)));
    assert.equal(maps[1]?.restEnd, "continues");
    const isConsecutive = maps.every(
      ({ startLsn }, index) =>
        index === 0 || startLsn === (maps[index - 1]?.startLsn ?? 0n) + 1_048_576n,
    );
    if (isConsecutive) assert.equal(folded(maps).holeReason, "");
  });
}

test("WAL of wal_level=minimal is a hole", async () => {
  for (const [level, expected] of [
    [0, /has the server wrote with wal_level=minimal$/],
    [1, undefined],
  ] as const) {
    const wal = writeWal({ records: [parameterRecord(level), SWITCH] });
    const [segment] = wal.segments;
    assert.ok(segment !== undefined);
    const walked = await walkChanges(segment.name, stream(segment.bytes));
    if (expected === undefined) assert.equal(typeof walked, "object");
    else assert.match(reasonOf(walked), expected);
  }
});

test("a record that changes files in an unknown way is a hole", async () => {
  const unknown = { resourceManager: 200, info: 0x01, dataBytes: 0 };
  const [segment] = writeWal({ records: [unknown, SWITCH] }).segments;
  assert.ok(segment !== undefined);
  const walked = await walkChanges(segment.name, stream(segment.bytes));
  assert.match(reasonOf(walked), /resource manager 200, info 0x1, changes files in a way/);
});
