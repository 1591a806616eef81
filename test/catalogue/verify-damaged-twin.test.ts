import assert from "node:assert/strict";
import { test } from "node:test";
import { verifyRepository } from "../../src/catalogue/verify.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { flipBit } from "../archive/workbench.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";

const { signal } = new AbortController();

test("a damaged segment is not proved by a sound unfinished one of its name", async () => {
  const { first, middle, last } = postgresFacts(17).segments;
  const storage = new MemoryStorage();
  for (const [name, bytes] of [
    [first, postgresBytes(17, first)],
    [middle, postgresBytes(17, middle)],
    [last, flipBit(postgresBytes(17, last), 100)],
    [`${last}.partial`, postgresBytes(17, last)],
  ] as const) {
    await storage.put(`wal_005/${name}`, bytesSource(bytes), { signal });
  }
  const report = await verifyRepository(storage, {
    level: "full",
    jobs: 4,
    codecJobs: 1,
    isRelearning: false,
    clock: systemClock,
    onProgress: () => {},
    signal,
  });
  const damaged = report.findings.filter(({ kind }) => kind === "damaged");
  assert.deepEqual(
    damaged.map(({ subject }) => subject),
    [`wal_005/${last}`],
  );
  assert.equal(report.oldestProofMs, 0);
});
