import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { verifyPrimary } from "../../src/catalogue/verify-primary.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { verifyMemoryKey } from "../../src/layout/keys.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { mirroredStorage } from "../support/mirror.ts";
import { seededRandom } from "../support/random.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { putSyntheticRepository } from "../support/synthetic-repository.ts";

const signal = AbortSignal.timeout(300_000);
const options = {
  level: "full",
  jobs: 4,
  codecJobs: 1,
  isRelearning: false,
  clock: systemClock,
  onProgress: () => {},
  signal,
} as const;
const original = putSyntheticRepository(seededRandom());
const PART = /00000022\/tar_partitions\/part_002/;
const SENTINEL = /00000021_backup_stop_sentinel\.json$/;
const SEGMENT = /^wal_005\/000000010000000000000022/;
const END = /^wal_005\/000000020000000000000026/;

/** The same repository in both, after which each test breaks something. */
async function openWorld() {
  const scratch = scratchDirectory();
  const source = await original;
  const stores = [new MemoryStorage(), new MemoryStorage()] as const;
  for (const key of source.keys) {
    for (const store of stores) {
      await store.put(key, whole(source, key), { signal });
    }
  }
  const [primary, mirror] = [new FaultyStorage(stores[0]), new FaultyStorage(stores[1])];
  const directory = join(scratch.path, "queue");
  const storage = mirroredStorage({ primary, mirror, directory });
  return {
    storage,
    primary,
    mirror,
    primaryObjects: stores[0],
    mirrorObjects: stores[1],
    keyOf: (pattern: RegExp) => source.keys.find((key) => pattern.test(key)) ?? "none",
    findings: async (level: "quick" | "full" = "full") => {
      const { findings } = await verifyPrimary(storage, { ...options, level });
      return findings.filter(({ kind }) => kind !== "note");
    },
    notes: async () => {
      const { findings } = await verifyPrimary(storage, { ...options, level: "quick" });
      return findings.filter(({ kind }) => kind === "note").map(({ text }) => text);
    },
    [Symbol.asyncDispose]: async () => {
      await storage[Symbol.asyncDispose]();
      scratch[Symbol.dispose]();
    },
  };
}

function whole(storage: MemoryStorage, key = "") {
  return bytesSource(Buffer.from(storage.bytesOf(key) ?? []));
}

function flip(storage: MemoryStorage, key: string): void {
  const bytes = storage.bytesOf(key);
  if (bytes === undefined) throw new Error(`no ${key}`);
  const place = Math.floor(bytes.length / 2);
  bytes[place] = (bytes[place] ?? 0) ^ 1;
}

test("a mirrored repository without damage is sound, and its proof is in both", async () => {
  await using world = await openWorld();
  assert.deepEqual(await world.findings(), []);
  await world.storage[Symbol.asyncDispose]();
  for (const { keys } of [world.primaryObjects, world.mirrorObjects]) {
    assert.ok(keys.includes(verifyMemoryKey));
  }
});

test("what is damaged in the primary alone is found, and the good copies", async () => {
  await using world = await openWorld();
  const keys = [PART, SENTINEL, SEGMENT].map(world.keyOf);
  for (const key of keys) flip(world.primaryObjects, key);
  const found = await world.findings();
  for (const key of keys) assert.ok(found.some(({ subject }) => subject === key));
  assert.deepEqual(
    found.filter(({ soundIn }) => soundIn !== 0),
    [],
  );
  // What was damaged is not what later runs compare with.
  await world.primaryObjects.put(keys[1] ?? "", whole(world.mirrorObjects, keys[1]), { signal });
  assert.ok(!(await world.findings("quick")).some(({ subject }) => subject === keys[1]));
});

test("what the primary alone lacks is found, and the good copies", async () => {
  await using world = await openWorld();
  await world.primaryObjects.delete([PART, SEGMENT].map(world.keyOf), { signal });
  const found = await world.findings("quick");
  assert.ok(found.length > 1);
  assert.deepEqual(
    found.filter(({ soundIn }) => soundIn !== 0),
    [],
  );
});

for (const [pattern, isGone] of [
  [PART, false],
  [SEGMENT, true],
] as const) {
  test(`a copy that is ${isGone ? "missing" : "damaged"}, too, is not called good`, async () => {
    await using world = await openWorld();
    const key = world.keyOf(pattern);
    if (isGone) await world.mirrorObjects.delete([key], { signal });
    else flip(world.mirrorObjects, key);
    if (isGone) flip(world.primaryObjects, key);
    else await world.primaryObjects.delete([key], { signal });
    const found = await world.findings(isGone ? "full" : "quick");
    assert.ok(found.length > 0);
    for (const { soundIn } of found) assert.equal(soundIn, undefined);
  });
}

for (const [what, pattern] of Object.entries({ SENTINEL, END })) {
  test(`what leaves no trace in the primary is noted as only in the mirror: ${what}`, async () => {
    await using world = await openWorld();
    await world.primaryObjects.delete([world.keyOf(pattern)], { signal });
    assert.ok((await world.notes()).some((text) => /only mirror .* has 1 object/.test(text)));
  });
}

test("a mirror that is away is noted; a primary that is away fails the check", async () => {
  const gone = new StorageError("connection refused", { isRetryable: false });
  {
    await using world = await openWorld();
    world.mirror.fault("list", "every", { kind: "fail", error: gone });
    assert.deepEqual(await world.findings("quick"), []);
    const notes = await world.notes();
    assert.ok(notes.includes("the mirror could not be looked at: connection refused"));
  }
  await using world = await openWorld();
  world.primary.fault("list", "every", { kind: "fail", error: gone });
  await assert.rejects(world.findings("quick"), gone);
});
