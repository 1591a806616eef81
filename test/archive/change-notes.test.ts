import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { storeGroups } from "../../src/archive/change-groups.ts";
import { ChangeNotes } from "../../src/archive/change-notes.ts";
import { readArchivedChanges } from "../../src/archive/change-source.ts";
import type { CompressionMethod } from "../../src/codec/codec.ts";
import { codecOf } from "../../src/codec/table.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { formatChangeMap, parseChangeMap } from "../../src/layout/change-map.ts";
import { walKey } from "../../src/layout/keys.ts";
import { parseWalDelta } from "../../src/layout/wal-delta.ts";
import {
  type ChangeAnswer,
  ChangedBlocks,
  type WalRange,
} from "../../src/postgres/changed-blocks.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { seededRandom } from "../support/random.ts";
import { DATABASE_OID, heapRecord, truncateRecord } from "../support/wal-records.ts";
import { SWITCH, writeWal, type WrittenWal } from "../support/wal-writer.ts";

const MIB = 1024 * 1024;
const SYSTEM_ID = 0x1234_5678_9abc_def0n;
const codec = codecOf("zstd");
const { signal } = new AbortController();
const all: { directory?: string } = {};

/**
 * Segments 13 to 50: the end of a group, two whole ones, the begin of one. Each record is longer
 * than half a segment, so that most borders lie within one.
 */
const FIRST = 13n;
const RECORDS = 60;
const wal = writeWal({
  firstSegment: FIRST,
  records: [
    ...Array.from({ length: RECORDS }, (_, index) =>
      heapRecord([{ relfilenode: 16_384, block: index }], 650_000),
    ),
    truncateRecord(16_385, 7),
    SWITCH,
  ],
});

before(async () => {
  all.directory = await mkdtemp(join(tmpdir(), "walnut-notes-"));
  await writeSegments(wal, place("pg_wal"));
});

after(async () => {
  await rm(place(""), { recursive: true });
});

function place(name: string): string {
  if (all.directory === undefined) throw new Error("no directory");
  return join(all.directory, name);
}

async function writeSegments({ segments }: WrittenWal, directory: string): Promise<void> {
  const { mkdir } = await import("node:fs/promises");
  await mkdir(directory, { recursive: true });
  for (const { name, bytes } of segments) await writeFile(join(directory, name), bytes);
}

const names = wal.segments.map(({ name }) => name);

function notesIn(directory: string, onGroup: () => void = () => {}): ChangeNotes {
  return new ChangeNotes({ directory, onGroup, clock: systemClock, log: silentLog });
}

async function note(notes: ChangeNotes, name: string): Promise<void> {
  const path = join(place("pg_wal"), name);
  const outcome = await notes.around({ path, name }, async () => "archived", { signal });
  assert.equal(outcome, "archived");
}

async function store(
  storage: Storage,
  directory: string,
  method: CompressionMethod = "zstd",
): Promise<readonly string[]> {
  const packing = { codec: codecOf(method), codecJobs: 1 };
  return await storeGroups(storage, { directory, ...packing, log: silentLog, signal });
}

async function read(
  storage: Storage,
  {
    first = 16n,
    end = 48n,
    ...places
  }: { first?: bigint; end?: bigint; walDirectory?: string; notesDirectory?: string },
  segmentsToReadMax = 0,
): Promise<ChangeAnswer> {
  const range: WalRange = {
    startLsn: lsn(first * BigInt(MIB) + 40n),
    endLsn: lsn(
      first === end ? first * BigInt(MIB) + 40n : FIRST * BigInt(MIB) + BigInt(lastStart(end)),
    ),
    history: { timeline: 1, ancestors: [] },
  };
  return await readArchivedChanges(storage, range, {
    systemId: SYSTEM_ID,
    segmentBytes: MIB,
    codecJobs: 1,
    ...places,
    segmentsToReadMax,
    log: silentLog,
    signal,
  });
}

function blocksOf(answer: ChangeAnswer): readonly number[] {
  if (answer.kind === "hole") throw new Error(answer.reason);
  const [entry] = [...answer.changes.entries()].filter(({ relfilenode }) => relfilenode === 16_384);
  return [...(entry?.blocks.ranges() ?? [])].flatMap(({ start, end }) =>
    Array.from({ length: end - start }, (_, index) => start + index),
  );
}

/** In bytes from the start of the first segment. */
function offsetOf(segment: bigint): number {
  return Number(segment - FIRST) * MIB;
}

/** Blocks of the records that end in these segments. */
function blocksThatEnd(from: bigint, to: bigint): readonly number[] {
  return wal.records
    .slice(0, RECORDS)
    .flatMap(({ end }, block) => (end > offsetOf(from) && end <= offsetOf(to) ? [block] : []));
}

/** Where the last record begins that begins before this segment: no range ends within one. */
function lastStart(segment: bigint): number {
  return Math.max(...wal.records.map(({ start }) => start).filter((at) => at < offsetOf(segment)));
}

/** What must be there: records that begin in the range. */
function neededBlocks(from: bigint, to: bigint): readonly number[] {
  return wal.records
    .slice(0, RECORDS)
    .flatMap(({ start }, block) =>
      start >= offsetOf(from) && start < lastStart(to) ? [block] : [],
    );
}

function requireNeeded(answer: ChangeAnswer, from: bigint, to: bigint): void {
  const found = new Set(blocksOf(answer));
  for (const block of neededBlocks(from, to)) assert.ok(found.has(block), `block ${block}`);
}

/** It has no sum of its own, so that it is stored by a method that has one. */
async function deltaOf(storage: MemoryStorage, segment: string) {
  const lz4 = codecOf("lz4");
  const bytes = storage.bytesOf(walKey(`${segment}_delta`, lz4.extension));
  if (bytes === undefined) return undefined;
  const content = lz4.decompress(bytesSource(bytes).open(), { jobs: 1, signal });
  return parseWalDelta(await readAll(content));
}

test("segments in any order and by many processes make the same two groups", async () => {
  const random = seededRandom();
  const objects: (readonly Buffer[])[] = [];
  for (let round = 0; round < 4; round += 1) {
    const storage = new MemoryStorage();
    const directory = place(`order ${round}`);
    const order = round === 0 ? names : names.toSorted(() => random.next() - 0.5);
    let calls = 0;
    const storing: Promise<unknown>[] = [];
    const onGroup = (): void => {
      calls += 1;
      storing.push(store(storage, directory), store(storage, directory));
    };
    const left = [...order];
    const worker = async (): Promise<void> => {
      for (let name = left.shift(); name !== undefined; name = left.shift()) {
        // Each call of wal-push is a process of its own.
        await note(notesIn(directory, onGroup), name);
      }
    };
    await Promise.all(Array.from({ length: 4 }, worker));
    await Promise.all(storing);
    assert.ok(calls >= 2, `seed ${random.seed}`);
    const maps = storage.keys.filter((key) => key.startsWith("walnut_005/changes/"));
    assert.deepEqual(
      maps,
      [names[3], names[19]].map((name) => `walnut_005/changes/${name}.zst`),
      `seed ${random.seed}`,
    );
    objects.push(maps.flatMap((key) => storage.bytesOf(key) ?? []));
    const answer = await read(storage, {});
    assert.equal(answer.source, "wal-deltas");
    requireNeeded(answer, 16n, 48n);
  }
  for (const one of objects) assert.deepEqual(one, objects[0]);
});

test("the delta that is made for WAL-G has the blocks, and the record that goes on", async () => {
  const storage = new MemoryStorage();
  const directory = place("delta");
  for (const name of names) await note(notesIn(directory), name);
  await store(storage, directory, "none");
  for (const [from, to] of [
    [16n, 32n],
    [32n, 48n],
  ] as const) {
    const delta = await deltaOf(storage, names[Number(from - FIRST)] ?? "");
    assert.ok(delta !== undefined);
    const end = offsetOf(to);
    const inside = blocksThatEnd(from, to);
    assert.ok(inside.length > 20);
    const place = { tablespaceOid: 1663, databaseOid: DATABASE_OID, relfilenode: 16_384 };
    assert.deepEqual(
      delta.locations,
      inside.map((block) => ({ ...place, block })),
    );
    const open = wal.records.find((record) => record.start < end && record.end > end);
    assert.ok(open !== undefined);
    const headers = Math.ceil((end - open.start) / 8192) * 24 + 40;
    assert.ok(delta.openRecord.length > end - open.start - headers);
    assert.equal(Buffer.from(delta.openRecord).readUInt32LE(0), 24 + 20 + 5 + 650_000);
  }
});

test("what is missing is a hole, or read from the WAL if that is allowed", async () => {
  const storage = new MemoryStorage();
  const directory = place("missing");
  const lost = names[10] ?? "";
  for (const name of names) if (name !== lost) await note(notesIn(directory), name);
  assert.deepEqual(await store(storage, directory), [names[19]]);

  const hole = await read(storage, {});
  assert.equal(hole.kind, "hole");
  const walDirectory = place("pg_wal");
  const few = await read(storage, { walDirectory }, 5);
  assert.match(few.kind === "hole" ? few.reason : "", /is in no change map, and 5 were read$/);
  requireNeeded(await read(storage, { walDirectory }, 16), 16n, 48n);
  // The group in which archiving began, and the one that is not complete.
  requireNeeded(await read(storage, { first: 14n, end: 50n, walDirectory }, 40), 14n, 50n);

  for (const { name, bytes } of wal.segments) {
    const body = {
      ...bytesSource(bytes),
      open: () => codec.compress(bytesSource(bytes).open(), { jobs: 1, signal }),
    };
    await storage.put(walKey(name, "zst"), { isReopenable: true, open: body.open }, { signal });
  }
  requireNeeded(await read(storage, {}, 16), 16n, 48n);
});

test("a map that is damaged or of another cluster is not believed", async () => {
  const storage = new MemoryStorage();
  const directory = place("damaged");
  for (const name of names) await note(notesIn(directory), name);
  await store(storage, directory);
  const key = `walnut_005/changes/${names[3]}.zst`;
  const good = storage.bytesOf(key) ?? Buffer.alloc(0);
  const other = storage.bytesOf(`walnut_005/changes/${names[19]}.zst`) ?? Buffer.alloc(0);
  const walDirectory = place("pg_wal");
  for (const bytes of [good.subarray(0, 40), other, Buffer.from("nonsense")]) {
    await storage.put(key, bytesSource(bytes), { signal });
    assert.equal((await read(storage, {})).kind, "hole");
    requireNeeded(await read(storage, { walDirectory }, 16), 16n, 48n);
  }
});

test("a push fails or succeeds as it would without notes", async () => {
  const directory = place("failing");
  const name = names[0] ?? "";
  const path = join(place("pg_wal"), name);
  const failure = new StorageError("away", { isRetryable: true });
  const failing = notesIn(directory).around({ path, name }, () => Promise.reject(failure), {
    signal,
  });
  await assert.rejects(failing, failure);
  assert.deepEqual(await readdir(directory).catch(() => []), []);

  // No directory can be made there, no file can be read there.
  await writeFile(place("file"), "");
  for (const [where, from] of [
    [place("file"), path],
    [directory, join(place("nowhere"), name)],
  ] as const) {
    const outcome = await notesIn(where).around({ path: from, name }, async () => 7, { signal });
    assert.equal(outcome, 7);
  }
  const failingCall = notesIn(directory, () => {
    throw new Error("no process");
  });
  for (const one of names.slice(3, 19)) await note(failingCall, one);
});

test("wherever storing is cut off, the next call completes it", async () => {
  for (let allowed = 0; allowed < 4; allowed += 1) {
    const storage = new MemoryStorage();
    const directory = place(`cut ${allowed}`);
    for (const name of names) await note(notesIn(directory), name);
    let puts = 0;
    const cut = new Proxy(storage, {
      get(target, property) {
        const value: unknown = Reflect.get(target, property, target);
        if (typeof value !== "function") return value;
        return (...words: unknown[]): unknown => {
          if (property === "put") puts += 1;
          if (property === "put" && puts > allowed) throw new Error("killed");
          return Reflect.apply(value, target, words);
        };
      },
    });
    await assert.rejects(store(cut, directory), /killed/);
    await store(storage, directory);
    requireNeeded(await read(storage, {}), 16n, 48n);
    assert.equal(storage.keys.length, 4, storage.keys.join(" "));
    // What is left: both ends, and the last of each group.
    assert.equal((await readdir(directory)).length, names.length - 30);
  }
});

test("notes are few, torn ones are none", async () => {
  const directory = place("many");
  const many = writeWal({
    firstSegment: 1n,
    records: Array.from({ length: 70 }, () => heapRecord([], 1_040_000)),
  });
  await writeSegments(many, place("pg_wal_many"));
  for (const { name } of many.segments.slice(0, 69)) {
    const path = join(place("pg_wal_many"), name);
    await notesIn(directory).around({ path, name }, async () => 1, { signal });
  }
  const kept = await readdir(directory);
  assert.equal(kept.length, 64);
  assert.equal(kept.toSorted()[0], many.segments[5]?.name);

  const storage = new MemoryStorage();
  await writeFile(join(directory, many.segments[20]?.name ?? ""), "torn");
  const stored = await store(storage, directory);
  assert.deepEqual(stored, [many.segments[31]?.name, many.segments[47]?.name]);
});

test("a range that ends within a record is a hole", async () => {
  const range = {
    startLsn: lsn(17n * BigInt(MIB)),
    endLsn: lsn(20n * BigInt(MIB) + 40n),
    history: { timeline: 1, ancestors: [] },
  };
  const answer = await readArchivedChanges(new MemoryStorage(), range, {
    systemId: SYSTEM_ID,
    segmentBytes: MIB,
    codecJobs: 1,
    walDirectory: place("pg_wal"),
    segmentsToReadMax: 40,
    log: silentLog,
    signal,
  });
  assert.match(
    answer.kind === "hole" ? answer.reason : "",
    /^a record goes on behind 0\/1400000, where the range ends$/,
  );
});

test("an empty range has no changes", async () => {
  const answer = await read(new MemoryStorage(), { first: 16n, end: 16n });
  assert.deepEqual(answer.kind === "changes" && [...answer.changes.entries()], []);
  assert.ok(answer.kind === "changes" && answer.changes instanceof ChangedBlocks);
});

test("notes of a group that is not complete are read in the place of its WAL", async () => {
  const storage = new MemoryStorage();
  const notesDirectory = place("noted");
  for (const name of names) await note(notesIn(notesDirectory), name);
  await store(storage, notesDirectory);
  // Neither the store nor a pg_wal has a segment: 48 and 49 are in the notes alone.
  const answer = await read(storage, { end: 50n, notesDirectory });
  assert.equal(answer.source, "wal-deltas");
  requireNeeded(answer, 16n, 50n);
  assert.equal((await read(storage, { end: 50n })).kind, "hole");

  const segment = names[Number(48n - FIRST)] ?? "";
  const path = join(notesDirectory, segment);
  const good = await readFile(path);
  // Torn, of another segment, of another cluster.
  const other = await readFile(join(notesDirectory, names[Number(49n - FIRST)] ?? ""));
  const foreign = formatChangeMap({ ...parseChangeMap(good), systemId: 1n });
  for (const bytes of [good.subarray(0, 40), other, foreign]) {
    await writeFile(path, bytes);
    assert.equal((await read(storage, { end: 50n, notesDirectory })).kind, "hole");
    const walDirectory = place("pg_wal");
    requireNeeded(await read(storage, { end: 50n, notesDirectory, walDirectory }, 1), 16n, 50n);
  }
});
