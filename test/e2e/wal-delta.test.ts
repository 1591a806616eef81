import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { readArchivedChanges } from "../../src/archive/change-source.ts";
import { systemErrorCode } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import type { ChangedBlocks } from "../../src/postgres/changed-blocks.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { assertNothingLost, setupLine, startWithBacklog, stopAll } from "./draining.ts";
import { until } from "../support/until.ts";

const MIB = 1024 * 1024;
const signal = AbortSignal.timeout(300_000);

test("a server's segments leave change maps that say what its WAL says", async () => {
  const draining = await startWithBacklog(33, { WALG_USE_WAL_DELTA: "true" });
  const { cluster, repository } = draining;
  await using _cleanUp = cluster;
  await cluster.configure({ archive_command: await setupLine(draining) });
  await cluster.waitForArchiver({ timeoutMs: 120_000 });
  await assertNothingLost(draining);

  // Segment 0 never was: the first group is not complete.
  const groups = ["000000010000000000000010"];
  const folder = join(repository, "walnut_005", "changes");
  await until("the change maps", async () => {
    const there = new Set(await namesIn(folder));
    return groups.every((name) => there.has(`${name}.zst`));
  });
  const deltas = (await namesIn(join(repository, "wal_005"))).filter((name) => /_delta/.test(name));
  assert.deepEqual(
    deltas.filter((name) => !groups.some((group) => name === `${group}_delta.zst`)),
    [],
  );

  const control = await readFile(join(cluster.dataDirectory, "global", "pg_control"));
  const read = async (storage: Storage, walDirectory?: string): Promise<ChangedBlocks> => {
    const range = {
      startLsn: lsn(17n * BigInt(MIB)),
      endLsn: lsn(30n * BigInt(MIB) + 500_000n),
      history: { timeline: 1, ancestors: [] },
    };
    const answer = await readArchivedChanges(storage, range, {
      systemId: control.readBigUInt64LE(0),
      segmentBytes: MIB,
      codecJobs: 1,
      walDirectory,
      segmentsToReadMax: walDirectory === undefined ? 0 : 100,
      log: silentLog,
      signal,
    });
    if (answer.kind === "hole") throw new Error(answer.reason);
    assert.equal(answer.source, walDirectory === undefined ? "wal-deltas" : "wal");
    return answer.changes;
  };
  const byMaps = await read(new DirectoryStorage(repository, systemClock));
  const byWal = await read(new MemoryStorage(), join(cluster.dataDirectory, "pg_wal"));
  let count = 0;
  for (const { tablespaceOid, databaseOid, relfilenode, blocks } of byWal.entries()) {
    const place = { tablespaceOid, databaseOid, relfilenode };
    const file = { ...place, fork: "main", relationSegment: 0, isTemporary: false } as const;
    const found = byMaps.inFile(file, 131_072);
    for (const { start, end } of blocks.ranges()) {
      count += end - start;
      const isIn =
        found.kind === "all" ||
        (found.kind === "blocks" &&
          found.ranges.some((range) => range.start <= start && end <= range.end));
      assert.ok(isIn, `${relfilenode}: ${start} to ${end}`);
    }
  }
  assert.ok(count > 100);

  const log = await readFile(join(`${cluster.dataDirectory}.walnut`, "changes.log"), "utf8");
  assert.doesNotMatch(log, /ERROR/);
  await stopAll(cluster);
});

async function namesIn(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw error;
  }
}
