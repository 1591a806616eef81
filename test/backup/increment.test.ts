import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  beginWithIncrement,
  type EntryContent,
  fillFromFile,
  fillFromIncrement,
} from "../../src/backup/increment.ts";
import { OperationError } from "../../src/errors.ts";
import { incrementBytes } from "../support/increment-bytes.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { inChunks } from "../support/tar-archive.ts";

const PAGE = 8192;

function page(fill: number): Buffer {
  return Buffer.alloc(PAGE, fill);
}

function entry(bytes: Buffer, chunkBytes = 777): EntryContent {
  return { content: inChunks(bytes, chunkBytes), sizeBytes: bytes.length };
}

/** Restores from the newest increment to the base, in chunks that fit nothing. */
async function applyChain(
  base: Buffer,
  increments: readonly Buffer[],
  chunkBytes = 10_000,
): Promise<Buffer> {
  using scratch = scratchDirectory();
  const path = join(scratch.path, "16384");
  const [newest, ...older] = increments.toReversed();
  if (newest === undefined) throw new Error("no increment");
  let gaps = await beginWithIncrement(path, 0o600, entry(newest, chunkBytes));
  for (const bytes of older) gaps = await fillFromIncrement(path, entry(bytes, chunkBytes), gaps);
  gaps = await fillFromFile(path, entry(base, chunkBytes), gaps, { onChunk: () => {} });
  assert.equal(gaps.missingCount, 0);
  return readFileSync(path);
}

async function apply(base: Buffer, increment: Buffer, chunkBytes = 10_000): Promise<Buffer> {
  return await applyChain(base, [increment], chunkBytes);
}

test("pages go over those of the base, all-zero ones too", async () => {
  const base = Buffer.concat([page(1), page(2), page(3), page(4)]);
  const increment = incrementBytes(4 * PAGE, [
    [1, page(0)],
    [2, page(9)],
  ]);
  assert.deepEqual(
    await apply(base, increment),
    Buffer.concat([page(1), page(0), page(9), page(4)]),
  );
});

test("the file becomes as long as it was: longer and shorter", async () => {
  const base = Buffer.concat([page(1), page(2)]);
  const longer = incrementBytes(4 * PAGE, [[3, page(7)]]);
  assert.deepEqual(await apply(base, longer), Buffer.concat([base, page(0), page(7)]));
  assert.deepEqual(await apply(base, incrementBytes(PAGE, [])), page(1));
  assert.deepEqual(await apply(base, incrementBytes(0, [])), Buffer.alloc(0));
});

test("a page that was appended while the file was read is kept: WAL knows it", async () => {
  assert.equal((await apply(page(1), incrementBytes(PAGE, [[1, page(2)]]))).length, 2 * PAGE);
});

test("what an increment says is what the file becomes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(300),
      fc.nat(300),
      fc.uniqueArray(fc.nat(299)),
      fc.integer({ min: 1, max: 3_000_000 }),
      async (baseCount, fileCount, blocks, chunkBytes) => {
        const base = Buffer.alloc(baseCount * PAGE, 1);
        const wanted = Buffer.alloc(fileCount * PAGE);
        base.copy(wanted, 0, 0, Math.min(base.length, wanted.length));
        const pages = blocks
          .filter((block) => block < fileCount)
          .toSorted((one, other) => one - other)
          .map((block) => [block, page(2 + (block % 250))] as const);
        for (const [block, bytes] of pages) wanted.set(bytes, block * PAGE);
        const result = await apply(base, incrementBytes(fileCount * PAGE, pages), chunkBytes);
        assert.ok(result.equals(wanted));
      },
    ),
    { numRuns: 40 },
  );
});

const whole = incrementBytes(2 * PAGE, [
  [0, page(1)],
  [1, page(2)],
]);

function changed(change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(whole);
  change(bytes);
  return bytes;
}

const bad: readonly (readonly [what: string, increment: Buffer, message: RegExp])[] = [
  ["empty", Buffer.alloc(0), /^increment ends at byte 0, at least 16 too early$/],
  ["magic", changed((bytes) => bytes.writeUInt8(0x32, 2)), /^increment begins with 77693255$/],
  [
    "more pages than bytes",
    changed((bytes) => bytes.writeUInt32LE(3, 12)),
    /^increment of 3 pages has 16408 bytes, not 24604$/,
  ],
  [
    "fewer pages than bytes",
    changed((bytes) => bytes.writeUInt32LE(1, 12)),
    /^increment of 1 pages has 16408 bytes, not 8212$/,
  ],
  [
    "OrioleDB's form",
    Buffer.concat([whole.subarray(0, 12), Buffer.from([0, 32]), whole.subarray(12)]),
    /^increment of \d+ pages has 16410 bytes, not \d+$/,
  ],
  [
    "huge file",
    changed((bytes) => bytes.writeBigUInt64LE(2n ** 40n, 4)),
    /^increment is for a file of 1099511627776 bytes, more than a segment$/,
  ],
  [
    "blocks not ascending",
    changed((bytes) => bytes.writeUInt32LE(1, 16)),
    /^increment has block 1 behind 1$/,
  ],
  [
    "block beyond a segment",
    changed((bytes) => bytes.writeUInt32LE(131_072, 20)),
    /^increment has block 131072 behind 0$/,
  ],
];

for (const [what, increment, message] of bad) {
  test(`refuses an increment: ${what}`, async () => {
    await assert.rejects(apply(page(9), increment), (error) => {
      assert.ok(error instanceof OperationError);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("a chain gives what its increments give one after the other", async () => {
  const step = fc.record({ count: fc.nat(40), changed: fc.uniqueArray(fc.nat(39)) });
  await fc.assert(
    fc.asyncProperty(
      fc.nat(40),
      fc.array(step, { minLength: 1, maxLength: 5 }),
      async (baseCount, steps) => {
        const base = Buffer.alloc(baseCount * PAGE, 1);
        let wanted = base;
        const increments = steps.map(({ count, changed }, index) => {
          const next = Buffer.alloc(count * PAGE);
          wanted.copy(next, 0, 0, Math.min(wanted.length, next.length));
          const pages = changed
            .filter((block) => block < count)
            .toSorted((one, other) => one - other)
            // Every other page of the second increment is one of zeros.
            .map((block) => [block, page(index === 1 && block % 2 === 0 ? 0 : index + 2)] as const);
          for (const [block, bytes] of pages) next.set(bytes, block * PAGE);
          wanted = next;
          return incrementBytes(count * PAGE, pages);
        });
        assert.ok((await applyChain(base, increments)).equals(wanted));
      },
    ),
    { numRuns: 30 },
  );
});

test("each page is written once, whatever older backups hold", async () => {
  using scratch = scratchDirectory();
  const path = join(scratch.path, "1");
  const newest = incrementBytes(2 * PAGE, [[0, page(5)]]);
  const gaps = await beginWithIncrement(path, 0o640, entry(newest));
  assert.deepEqual([gaps.missingCount, gaps.isMissing(0), gaps.isMissing(1)], [1, false, true]);
  const kept = gaps.copy();
  const older = incrementBytes(PAGE, [[0, page(4)]]);
  const after = await fillFromIncrement(path, entry(older), gaps);
  assert.deepEqual([after.missingCount, after.zeroCount], [0, 1], "the older file was shorter");
  assert.deepEqual([gaps.missingCount, kept.missingCount], [1, 1], "a part can be read again");
  await fillFromFile(path, entry(Buffer.alloc(9 * PAGE, 3)), after, { onChunk: () => {} });
  assert.deepEqual(readFileSync(path), Buffer.concat([page(5), page(0)]));
  assert.equal(statSync(path).mode & 0o777, 0o640);
});
