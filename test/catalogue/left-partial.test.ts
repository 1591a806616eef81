import assert from "node:assert/strict";
import { test } from "node:test";
import { verifyRepository } from "../../src/catalogue/verify.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { formatLsn, lsn } from "../../src/postgres/lsn.ts";
import { parseSegmentName, segmentStart } from "../../src/postgres/wal-file.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { onTimeline, recordWal, walFile } from "../support/real-wal.ts";

const { signal } = new AbortController();
const wal = await recordWal();
const [before = "", name = ""] = wal.segments;
const full = walFile(wal, name);
/** The old primary died before the archive had all up to the fork. */
const partial = Buffer.from(full).fill(0, full.length / 2);
const { segmentNumber } = parseSegmentName(name, full.length);
const forkLsn = lsn(segmentStart(segmentNumber, full.length) + BigInt(full.length - 8192));
const history = Buffer.from(`1\t${formatLsn(forkLsn)}\tno recovery target specified\n`);

async function damaged(objects: Readonly<Record<string, Buffer>>): Promise<readonly string[]> {
  const storage = new MemoryStorage();
  for (const [key, bytes] of Object.entries(objects)) {
    await storage.put(`wal_005/${key}`, bytesSource(bytes), { signal });
  }
  const { findings } = await verifyRepository(storage, {
    level: "full",
    jobs: 2,
    codecJobs: 1,
    isRelearning: false,
    clock: systemClock,
    onProgress: () => {},
    signal,
  });
  return findings.filter(({ kind }) => kind === "damaged").map(({ subject }) => subject);
}

test("an unfinished segment that ends before a fork is damage, unless the new timeline has it", async () => {
  const objects = {
    [before]: walFile(wal, before),
    [`${name}.partial`]: partial,
    "00000002.history": history,
  };
  const next = onTimeline(wal, name, 2);
  assert.deepEqual(await damaged(objects), [`wal_005/${name}.partial`]);
  assert.deepEqual(await damaged({ ...objects, [next.name]: next.bytes }), []);
});
