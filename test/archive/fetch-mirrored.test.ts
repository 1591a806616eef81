import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fetchWal } from "../../src/archive/fetch.ts";
import { codecOf } from "../../src/codec/table.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { silentLog } from "../../src/io/log.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { mirroredStorage } from "../support/mirror.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const signal = new AbortController().signal;
const gone = new StorageError("connection refused", { isRetryable: false });
const NAME = "00000002.history";
const KEY = `wal_005/${NAME}.zst`;
const CONTENT = "1\t0/3000000\tno recovery target specified\n";

async function makeWorld() {
  const scratch = scratchDirectory();
  const [primaryObjects, mirrorObjects] = [new MemoryStorage(), new MemoryStorage()];
  const packed = codecOf("zstd").compress(bytesSource(Buffer.from(CONTENT)).open(), {
    jobs: 1,
    signal,
  });
  const bytes = await readAll(packed);
  for (const store of [primaryObjects, mirrorObjects]) {
    await store.put(KEY, bytesSource(bytes), { signal });
    await store.put("basebackups_005/x", bytesSource(bytes), { signal });
  }
  const primary = new FaultyStorage(primaryObjects);
  const mirror = new FaultyStorage(mirrorObjects);
  const directory = join(scratch.path, "queue");
  const storage = mirroredStorage({ primary, mirror, directory });
  const destination = join(scratch.path, "fetched");
  return {
    primary,
    mirror,
    primaryObjects,
    mirrorObjects,
    fetch: async (name = NAME) => {
      const cacheDirectory = join(scratch.path, "cache");
      const options = { codecJobs: 1, cacheDirectory, timeoutMs: 30_000, log: silentLog, signal };
      await fetchWal(storage, name, destination, options);
      return readFileSync(destination, "utf8");
    },
    isFetched: () => existsSync(destination),
    [Symbol.asyncDispose]: async () => {
      await storage[Symbol.asyncDispose]();
      scratch[Symbol.dispose]();
    },
  };
}

test("a damaged object is taken from the mirror", async () => {
  await using world = await makeWorld();
  const bytes = world.primaryObjects.bytesOf(KEY);
  bytes?.writeUInt8(bytes.readUInt8(12) ^ 1, 12);
  assert.equal(await world.fetch(), CONTENT);
});

test("damaged in both it is damaged", async () => {
  await using world = await makeWorld();
  for (const store of [world.primaryObjects, world.mirrorObjects]) {
    const bytes = store.bytesOf(KEY);
    bytes?.writeUInt8(bytes.readUInt8(12) ^ 1, 12);
  }
  await assert.rejects(world.fetch(), { name: "DamagedError" });
  assert.equal(world.isFetched(), false);
});

test("damaged, and the mirror lacks it: it is damaged, not missing", async () => {
  await using world = await makeWorld();
  const bytes = world.primaryObjects.bytesOf(KEY);
  bytes?.writeUInt8(bytes.readUInt8(12) ^ 1, 12);
  await world.mirrorObjects.delete([KEY], { signal });
  await assert.rejects(world.fetch(), { name: "DamagedError" });
});

test("with the primary away the mirror gives what it has", async () => {
  await using world = await makeWorld();
  for (const method of ["get", "stat", "list"] as const) {
    world.primary.fault(method, "every", { kind: "fail", error: gone });
  }
  assert.equal(await world.fetch(), CONTENT);
});

for (const away of ["primary", "mirror"] as const) {
  test(`with the ${away} away nothing is proved to be missing`, async () => {
    await using world = await makeWorld();
    world[away].fault("list", "every", { kind: "fail", error: gone });
    await assert.rejects(world.fetch("00000003.history"), {
      name: "StorageError",
      message: /it is not known whether WAL file 00000003.history is in the archive/,
    });
  });
}

test("missing in both it is not in the archive", async () => {
  await using world = await makeWorld();
  await assert.rejects(world.fetch("00000003.history"), { name: "NotInArchiveError" });
});

test("an empty primary is no end of the archive, whatever the mirror holds", async () => {
  await using world = await makeWorld();
  await world.primaryObjects.delete([KEY, "basebackups_005/x"], { signal });
  assert.equal(await world.fetch(), CONTENT);
  await assert.rejects(world.fetch("00000003.history"), {
    name: "StorageError",
    message: "memory://test holds no repository: neither WAL nor backups",
    hint: /mounted\?.*--target-storage/s,
  });
});
