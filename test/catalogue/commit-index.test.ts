import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fc } from "../support/property.ts";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { CommitFinder } from "../../src/catalogue/commit-finder.ts";
import {
  CommitIndex,
  formatGroup,
  type IndexEntry,
  mergeEntries,
  parseGroup,
} from "../../src/catalogue/commit-index.ts";
import { ReceivedIndex } from "../../src/catalogue/index-received.ts";
import { indexLocalBatch } from "../../src/catalogue/index-local.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { createHasher } from "../../src/io/hash.ts";
import { silentLog } from "../../src/io/log.ts";
import { COMMIT_INDEX_FOLDER } from "../../src/layout/keys.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { parseSegmentName } from "../../src/postgres/wal-file.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { collectingLog } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const signal = AbortSignal.timeout(60_000);
const MIB = 1024 * 1024;
const { first, middle, last } = postgresFacts(17).segments;
const NAMES = [first, middle, last];

async function numberOf(name: string): Promise<{ timeline: number; number: number }> {
  const { timeline, segmentNumber } = parseSegmentName(name, MIB);
  return { timeline, number: Number(segmentNumber) };
}

async function readIndex(storage: MemoryStorage): Promise<readonly (IndexEntry | undefined)[]> {
  const index = new CommitIndex(storage, MIB, { hasher: await createHasher("xxh64"), signal });
  const entries = [];
  for (const name of NAMES) {
    const { timeline, number } = await numberOf(name);
    entries.push(await index.find(timeline, number));
  }
  return entries;
}

/** What counts: whoever notes a segment notes the same. */
function essence(entries: readonly (IndexEntry | undefined)[]) {
  return entries.map((entry) => entry?.commits);
}

describe("commits of segments that are received", () => {
  test("are noted as those who read the store note them, and written at the end", async () => {
    using directory = scratchDirectory();
    const [received, local] = [new MemoryStorage(), new MemoryStorage()];
    {
      await using index = new ReceivedIndex(received, silentLog);
      for (const name of NAMES) {
        const path = join(directory.path, name);
        writeFileSync(path, postgresBytes(17, name));
        await index.note({ name, path, segmentBytes: MIB });
      }
      await index.note({ name: last, path: join(directory.path, "gone"), segmentBytes: MIB });
    }
    await indexLocalBatch(local, { walDirectory: directory.path, name: last }, { signal });
    const entries = await readIndex(received);
    assert.ok(entries.every((entry) => entry !== undefined));
    assert.deepEqual(essence(entries), essence(await readIndex(local)));
  });

  test("a store that takes no notes costs nothing but the notes", async () => {
    using directory = scratchDirectory();
    const storage = new MemoryStorage();
    storage.put = () => Promise.reject(new StorageError("503", { isRetryable: true }));
    const path = join(directory.path, first);
    writeFileSync(path, postgresBytes(17, first));
    const log = collectingLog();
    {
      await using index = new ReceivedIndex(storage, log);
      await index.note({ name: first, path, segmentBytes: MIB });
    }
    assert.deepEqual(storage.keys, []);
    assert.match(log.lines.join(""), /commits are not noted.*503/);
  });
});

describe("commits of a batch in pg_wal", () => {
  test("are noted as those who read the store note them", async () => {
    using directory = scratchDirectory();
    const local = new MemoryStorage();
    const stored = new MemoryStorage();
    for (const name of NAMES) {
      writeFileSync(join(directory.path, name), postgresBytes(17, name));
      await stored.put(`wal_005/${name}`, bytesSource(postgresBytes(17, name)), { signal });
    }
    const place = { walDirectory: directory.path, name: last };
    assert.equal(await indexLocalBatch(local, place, { signal }), 3);

    const catalogue = await readCatalogue(stored, { signal });
    const view = walView(catalogue);
    const options = { jobs: 2, codecJobs: 1, signal };
    const finder = await CommitFinder.open(stored, { catalogue, view }, options);
    for (const name of NAMES) {
      const { timeline, number } = await numberOf(name);
      await finder.summary({ timeline, ancestors: [] }, number);
    }
    await finder.close();
    const noted = essence(await readIndex(local));
    assert.ok(noted.some((commits) => (commits?.count ?? 0) > 0));
    assert.deepEqual(noted, essence(await readIndex(stored)));
  });

  test("leave out what is gone or is not what its name says", async () => {
    using directory = scratchDirectory();
    const storage = new MemoryStorage();
    writeFileSync(join(directory.path, last), postgresBytes(17, last));
    writeFileSync(join(directory.path, middle), Buffer.alloc(MIB));
    const place = { walDirectory: directory.path, name: last };
    assert.equal(await indexLocalBatch(storage, place, { signal }), 1);
    assert.equal(await indexLocalBatch(storage, { ...place, name: first }, { signal }), 0);
  });
});

const points = fc.option(
  fc.record(
    {
      lsn: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(lsn),
      timeNs: fc.bigInt({ min: 0n, max: 4n * 10n ** 18n }),
      xid: fc.nat(),
    },
    { noNullPrototype: true },
  ),
  { nil: undefined },
);
const entries: fc.Arbitrary<IndexEntry> = fc
  .record({
    number: fc.nat({ max: 63 }),
    commits: fc.record(
      {
        count: fc.nat(),
        first: points,
        last: points,
        latestNs: fc.option(fc.bigInt({ min: 0n, max: 4n * 10n ** 18n }), { nil: undefined }),
        removingCount: fc.nat(),
      },
      { noNullPrototype: true },
    ),
    isExact: fc.boolean(),
    stored: fc.option(
      fc.nat().map((sizeBytes) => ({ sizeBytes, xxh64: "0123456789abcdef" })),
      {
        nil: undefined,
      },
    ),
  })
  .map(({ number, ...entry }) => ({
    ...entry,
    segment: `0000000100000000000000${number.toString(16).toUpperCase().padStart(2, "0")}`,
    key: entry.stored === undefined ? undefined : "wal_005/x.zst",
  }));

function bareEntry(segment: string, isExact: boolean): IndexEntry {
  const commits = { count: 1, first: undefined, last: undefined, latestNs: undefined };
  return { segment, commits: { ...commits, removingCount: 0 }, isExact };
}

describe("an index object", () => {
  test("gives back what was written, and shows every changed bit", async () => {
    const hasher = await createHasher("xxh64");
    fc.assert(
      fc.property(
        fc.uniqueArray(entries, { selector: ({ segment }) => segment }),
        fc.nat(),
        fc.nat({ max: 7 }),
        (some, at, bit) => {
          const bytes = formatGroup(some, hasher);
          const known = new Map(some.map((entry) => [entry.segment, entry]));
          assert.deepEqual(parseGroup(bytes, hasher), known);
          const index = at % bytes.length;
          bytes[index] = (bytes[index] ?? 0) ^ (1 << bit);
          assert.throws(() => parseGroup(bytes, hasher), { name: "FormatError" });
        },
      ),
      { numRuns: 200 },
    );
  });

  test("keeps what two writers know, whoever comes last", async () => {
    const storage = new MemoryStorage();
    const open = async () =>
      new CommitIndex(storage, MIB, { hasher: await createHasher("xxh64"), signal });
    const [one, other] = [await open(), await open()];
    await one.note(1, 1, bareEntry("000000010000000000000001", true));
    await other.note(1, 2, bareEntry("000000010000000000000002", false));
    await other.note(1, 1, bareEntry("000000010000000000000001", false));
    await one.flush();
    await other.flush();
    const read = await open();
    assert.equal((await read.find(1, 1))?.isExact, true);
    assert.equal((await read.find(1, 2))?.isExact, false);
    const [key = ""] = storage.keys;
    assert.equal(key, `${COMMIT_INDEX_FOLDER}000000010000000000000000.json`);
  });

  test("that is damaged counts as not there, and is written anew", async () => {
    const storage = new MemoryStorage();
    const key = `${COMMIT_INDEX_FOLDER}000000010000000000000000.json`;
    await storage.put(key, bytesSource(Buffer.from("{}\nx\n")), { signal });
    const index = new CommitIndex(storage, MIB, { hasher: await createHasher("xxh64"), signal });
    const damaged: string[] = [];
    index.onDamage = (found) => damaged.push(found);
    assert.equal(await index.find(1, 5), undefined);
    assert.deepEqual(damaged, [key]);
  });

  for (const mustWrite of [false, true]) {
    test(`a store that is full ${mustWrite ? "fails" : "does not disturb"} who notes`, async () => {
      const storage = new MemoryStorage();
      storage.put = () => Promise.reject(new StorageError("full", { isRetryable: false }));
      const hasher = await createHasher("xxh64");
      const index = new CommitIndex(storage, MIB, { hasher, mustWrite, signal });
      const [entry] = fc.sample(entries, { numRuns: 1, seed: 1 });
      assert.ok(entry !== undefined);
      const { timeline, segmentNumber } = parseSegmentName(entry.segment, MIB);
      await index.note(timeline, Number(segmentNumber), entry);
      if (mustWrite) await assert.rejects(index.flush(), { name: "StorageError", message: "full" });
      else await index.flush();
    });
  }

  test("of two notes the exact one stays, with the hash of the other", () => {
    fc.assert(
      fc.property(entries, entries, (known, fresh) => {
        const merged = mergeEntries(known, fresh);
        assert.equal(merged.isExact, known.isExact || fresh.isExact);
        assert.deepEqual(merged.stored, fresh.stored ?? known.stored);
      }),
    );
  });
});
