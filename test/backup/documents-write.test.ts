import assert from "node:assert/strict";
import { test } from "node:test";
import { writeSentinel } from "../../src/backup/documents-write.ts";
import { silentLog } from "../../src/io/log.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { sentinelKey } from "../../src/layout/keys.ts";
import { systemClock } from "../../src/io/clock.ts";
import { codecOf } from "../../src/codec/table.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const BASE = "base_000000010000000000000002";
const INCREMENT = "base_000000010000000000000004_D_000000010000000000000002";
const signal = AbortSignal.timeout(120_000);

const description = {
  name: INCREMENT,
  startLsn: 0x4000028n,
  stopLsn: 0x4000100n,
  startTimeNs: 0n,
  finishTimeNs: 1n,
  systemId: 7n,
  versionNumber: 170_004,
  dataDirectory: "/data",
  contentBytes: 1,
  storedBytes: 1,
  catalogBytes: 1,
  tablespaces: [],
  isPermanent: false,
  hasFilesMetadata: true,
  hasChecksums: true,
  hash: "xxh64" as const,
  base: { name: BASE, startLsn: 0x2000028n, fullName: BASE, stepCount: 1 },
};

test("an increment whose base a retention removed meanwhile never comes to exist", async () => {
  const storage = new MemoryStorage();
  const world = { storage, log: silentLog, clock: systemClock, zstd: codecOf("zstd"), signal };
  await assert.rejects(writeSentinel(description, world), {
    name: "RefusedError",
    message: `base ${BASE} was removed while the increment on it was taken`,
  });
  assert.deepEqual(storage.keys, []);
  await storage.put(sentinelKey(BASE), bytesSource(Buffer.from("{}")), { signal });
  await writeSentinel(description, world);
  assert.deepEqual(storage.keys, [sentinelKey(BASE), sentinelKey(INCREMENT)]);
});

test("a sentinel that is there already is ours if it says the same, else another's", async () => {
  const storage = new MemoryStorage();
  const world = { storage, log: silentLog, clock: systemClock, zstd: codecOf("zstd"), signal };
  await storage.put(sentinelKey(BASE), bytesSource(Buffer.from("{}")), { signal });
  await writeSentinel(description, world);
  // As after a put whose answer was lost.
  await writeSentinel(description, world);
  for (const other of [{ stopLsn: 0x4000200n }, { contentBytes: 12_345 }, { systemId: 8n }]) {
    await assert.rejects(writeSentinel({ ...description, ...other }, world), {
      name: "RefusedError",
      message: `${storage.name} already holds a backup ${INCREMENT}`,
    });
  }
});
