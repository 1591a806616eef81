import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { DamagedError, OperationError, StorageError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { filesMetadataKey, manifestKey, partKey, sentinelKey } from "../../src/layout/keys.ts";
import type { GetOptions } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { collectingLog, restoreInto } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import {
  putSyntheticBackup,
  specialEntries,
  SYNTHETIC_NAME,
  type SyntheticEntry,
} from "../support/synthetic-backup.ts";

const SEED = Number(process.env["WALNUT_SEED"] ?? Date.now() % 1_000_000);
const ROUNDS = process.env["WALNUT_LONG"] === "1" ? 2000 : 20;

/** A small generator of numbers, so that a failure can be repeated by its seed. */
function randomNumbers(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

const noise = (seed: number, sizeBytes: number): Buffer => {
  const next = randomNumbers(seed);
  return Buffer.from(Uint8Array.from({ length: sizeBytes }, () => next(16)));
};

const cluster: readonly SyntheticEntry[] = [
  { kind: "directory", path: "", mode: 0o700 },
  { kind: "file", path: "PG_VERSION", content: Buffer.from("15\n") },
  { kind: "directory", path: "base" },
  { kind: "file", path: "base/1", content: noise(1, 40_000) },
  { kind: "file", path: "base/2", content: noise(2, 20_000) },
  { kind: "file", path: "base/3", content: Buffer.alloc(0) },
  ...specialEntries(),
];

async function makeBackup(
  options: Parameters<typeof putSyntheticBackup>[1],
): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, options);
  return storage;
}

async function replace(storage: MemoryStorage, key: string, bytes: Buffer): Promise<void> {
  await storage.put(key, bytesSource(bytes), { signal: AbortSignal.timeout(120_000) });
}

function bytesOf(storage: MemoryStorage, key: string): Buffer {
  const bytes = storage.bytesOf(key);
  assert.ok(bytes !== undefined, key);
  return bytes;
}

async function isSameManifest(key: string, one: Buffer, other: Buffer): Promise<boolean> {
  if (key !== manifestKey(SYNTHETIC_NAME)) return false;
  const [first, second] = await Promise.all(
    [one, other].map(async (bytes) => {
      const signal = AbortSignal.timeout(120_000);
      return await readAll(
        codecOf("zstd").decompress(bytesSource(bytes).open(), { jobs: 1, signal }),
      );
    }),
  );
  return first !== undefined && second?.equals(first) === true;
}

async function attempt(storage: MemoryStorage): Promise<unknown> {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  try {
    await restoreInto(storage, destination);
    return undefined;
  } catch (error) {
    assert.equal(existsSync(join(destination, "global/pg_control")), false);
    return error;
  }
}

for (const method of ["zstd", "none", "brotli"] as const) {
  test(`each changed bit of a part or of our manifest is found: ${method}, seed ${SEED}`, async () => {
    const next = randomNumbers(SEED);
    const storage = await makeBackup({ entries: cluster, method });
    const keys = storage.keys.filter((key) => /tar_partitions|walnut_manifest/.test(key));
    assert.equal(keys.length, 6);
    for (let round = 0; round < ROUNDS; round += 1) {
      const key: string = keys[next(keys.length)] ?? "";
      const good = Buffer.from(bytesOf(storage, key));
      const bad = Buffer.from(good);
      const bit = next(8 * bad.length);
      bad.writeUInt8(bad.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      await replace(storage, key, bad);
      const error = await attempt(storage);
      await replace(storage, key, good);
      // zstd has some bits that mean nothing; parts have a checksum over them, the manifest has
      // not.
      if (error === undefined && (await isSameManifest(key, good, bad))) continue;
      assert.ok(error instanceof DamagedError, `bit ${bit} of ${key}: ${String(error)}`);
      assert.match(error.message, new RegExp(SYNTHETIC_NAME));
    }
    assert.equal(await attempt(storage), undefined);
  });

  test(`each cut of an object is found: ${method}, seed ${SEED}`, async () => {
    const next = randomNumbers(SEED);
    const storage = await makeBackup({ entries: cluster, method });
    const keys = storage.keys.filter((key) => !key.endsWith("/metadata.json"));
    for (let round = 0; round < ROUNDS; round += 1) {
      const key: string = keys[next(keys.length)] ?? "";
      const good = Buffer.from(bytesOf(storage, key));
      await replace(storage, key, good.subarray(0, next(good.length)));
      const error = await attempt(storage);
      assert.ok(error instanceof DamagedError, `${key}: ${String(error)}`);
      await replace(storage, key, good);
    }
  });
}

test("the message names file, part and backup", async () => {
  const storage = await makeBackup({ entries: cluster, method: "none", partCount: 1 });
  const key = partKey(SYNTHETIC_NAME, 1, "");
  const bad = Buffer.from(bytesOf(storage, key));
  bad.writeUInt8(255, bad.indexOf("15\n"));
  await replace(storage, key, bad);
  const error = await attempt(storage);
  assert.ok(error instanceof DamagedError);
  assert.match(
    error.message,
    new RegExp(
      `^entry "/PG_VERSION" of part part_001\\.tar of backup ${SYNTHETIC_NAME} is refused: ` +
        "its xxh64 is [0-9a-f]{16}, the manifest says [0-9a-f]{16}$",
    ),
  );
});

test("a part whose checksum alone is wrong is refused", async () => {
  const storage = await makeBackup({ entries: cluster, method: "none", partCount: 1 });
  const key = partKey(SYNTHETIC_NAME, 1, "");
  const bad = Buffer.from(bytesOf(storage, key));
  // The owner's name in the first header, which nobody reads, with the header's sum put right.
  bad.writeUInt8(1, 265);
  const sum = Number.parseInt(bad.toString("latin1", 148, 154), 8) + 1;
  bad.write(sum.toString(8).padStart(6, "0"), 148, "latin1");
  await replace(storage, key, bad);
  const error = await attempt(storage);
  assert.match(
    String(error),
    /part part_001\.tar of backup \S+ is refused: its xxh64 is [0-9a-f]{16}, the manifest says/,
  );
  await replace(storage, key, bad.subarray(0, -512));
  assert.match(
    String(await attempt(storage)),
    /refused: it has \d+ bytes, the manifest says|ends at/,
  );
});

test("a missing part is found by our manifest and by WAL-G's list", async () => {
  for (const style of ["walnut", "walg"] as const) {
    const storage = await makeBackup({ entries: cluster, style });
    const key = partKey(SYNTHETIC_NAME, 2, "zst");
    await storage.delete([key], { signal: AbortSignal.timeout(120_000) });
    const error = await attempt(storage);
    assert.ok(error instanceof OperationError);
    assert.match(error.message, /part_002\.tar\.zst .*(is missing|does not exist)/);
  }
});

test("files that no part holds are found: an error with our manifest, a warning without", async () => {
  const entries = cluster.filter(({ path }) => path !== "base/2");
  for (const style of ["walnut", "walg"] as const) {
    using scratch = scratchDirectory();
    const whole = await makeBackup({ entries: cluster, style, partCount: 1 });
    const lacking = await makeBackup({ entries, style, partCount: 1 });
    const listKey = style === "walnut" ? manifestKey : filesMetadataKey;
    const list = Buffer.from(bytesOf(whole, listKey(SYNTHETIC_NAME)));
    await replace(lacking, listKey(SYNTHETIC_NAME), list);
    const log = collectingLog();
    const restoring = restoreInto(lacking, join(scratch.path, "data"), { log });
    if (style === "walnut") {
      await assert.rejects(restoring, DamagedError);
      continue;
    }
    await restoring;
    assert.match(
      log.lines.join("\n"),
      /files are listed but no part holds them.*"count":1.*base\/2/,
    );
  }
});

test("documents that are no documents are named", async () => {
  for (const key of [manifestKey(SYNTHETIC_NAME), sentinelKey(SYNTHETIC_NAME)]) {
    const storage = await makeBackup({ entries: cluster });
    await replace(storage, key, Buffer.from("{}x"));
    const error = await attempt(storage);
    assert.ok(error instanceof DamagedError);
    assert.ok(error.message.startsWith(`${key} is damaged: `), error.message);
  }
});

test("a manifest of another backup or cluster is refused", async () => {
  const other = await makeBackup({ entries: cluster, name: "base_000000010000000000000009" });
  const storage = await makeBackup({ entries: cluster });
  const bytes = Buffer.from(bytesOf(other, manifestKey("base_000000010000000000000009")));
  await replace(storage, manifestKey(SYNTHETIC_NAME), bytes);
  assert.match(String(await attempt(storage)), /is that of base_000000010000000000000009/);
});

test("a control file of another cluster is refused before anything is written", async () => {
  using scratch = scratchDirectory();
  const storage = await makeBackup({ entries: cluster, style: "bare", sentinel: { systemId: 5n } });
  await assert.rejects(restoreInto(storage, join(scratch.path, "data")), {
    name: "DamagedError",
    message:
      `pg_control of backup ${SYNTHETIC_NAME} can't be used: ` +
      "it is of cluster 7412345678901234567, the sentinel of 5",
  });
  assert.equal(existsSync(join(scratch.path, "data")), false);
});

test("a control file that its release would refuse is refused", async () => {
  const sentinel = { pgVersion: 150_018 };
  const storage = await makeBackup({ entries: cluster, style: "bare", sentinel });
  assert.match(String(await attempt(storage)), /can't be used: not a pg_control of PostgreSQL/);
});

test("a backup without label can't be made consistent", async () => {
  const entries = cluster.filter(({ path }) => path !== "backup_label");
  const storage = await makeBackup({ entries, style: "bare" });
  assert.match(String(await attempt(storage)), /no part of backup .* holds backup_label$/);
});

/** Fails or damages the first reads of a key. */
class Unreliable extends MemoryStorage {
  readonly #key: string;
  #faultsLeft: number;
  readonly #fault: "error" | "damage";
  reads = 0;

  constructor(key: string, faults: number, fault: "error" | "damage") {
    super();
    this.#key = key;
    this.#faultsLeft = faults;
    this.#fault = fault;
  }

  override async *get(key: string, options: GetOptions): AsyncGenerator<Uint8Array, void> {
    if (key === this.#key) this.reads += 1;
    const isFaulty = key === this.#key && this.#faultsLeft > 0;
    if (isFaulty) this.#faultsLeft -= 1;
    for await (const chunk of super.get(key, options)) {
      yield isFaulty && this.#fault === "damage" ? Buffer.alloc(chunk.length, 1) : chunk;
      if (isFaulty) throw new StorageError("reset", { isRetryable: true });
    }
  }
}

for (const fault of ["error", "damage"] as const) {
  test(`a part that arrived wrong is fetched again, and not for ever: ${fault}`, async () => {
    const key = partKey(SYNTHETIC_NAME, 1, "zst");
    using scratch = scratchDirectory();
    const flaky = new Unreliable(key, 2, fault);
    await putSyntheticBackup(flaky, { entries: cluster });
    const log = collectingLog();
    const report = await restoreInto(flaky, join(scratch.path, "data"), { log });
    assert.equal(flaky.reads, 3);
    assert.equal(log.lines.length, 2);
    assert.match(log.lines[0] ?? "", /^warning: a part could not be read and is fetched again/);
    assert.equal(report.writtenBytes, 60_003);

    const dead = new Unreliable(key, 99, fault);
    await putSyntheticBackup(dead, { entries: cluster });
    await assert.rejects(restoreInto(dead, join(scratch.path, "second")), OperationError);
    assert.equal(dead.reads, 3);
  });
}

test("an abort ends a restore, and the next one goes on", async () => {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  const storage = await makeBackup({ entries: cluster });
  const abort = new AbortController();
  const reason = new Error("stop");
  await assert.rejects(
    restoreInto(storage, destination, {
      signal: abort.signal,
      onProgress: () => abort.abort(reason),
    }),
    reason,
  );
  assert.equal(existsSync(join(destination, "global/pg_control")), false);
  await restoreInto(storage, destination);
  assert.equal(existsSync(join(destination, "global/pg_control")), true);
});
