import assert from "node:assert/strict";
import { test } from "node:test";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { startBackupWorld } from "../support/backup-world.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { type Cluster, restoreCluster } from "../support/postgres.ts";

const SEGMENT_BYTES = 1024n * 1024n;
/** XLOG_BACKUP_END: 24 bytes of header, 2 for its data's, 8 of data, padded to 8. */
const BACKUP_END_BYTES = 40n;
const ATTEMPTS = 20;

async function insertPosition(cluster: Cluster): Promise<bigint> {
  return parseLsn(await cluster.value("SELECT pg_current_wal_insert_lsn()"));
}

async function emit(cluster: Cluster, contentBytes: bigint): Promise<void> {
  await cluster.query(`SELECT pg_logical_emit_message(false, 'x', repeat('y', ${contentBytes}))`);
}

/**
 * Writes WAL until a record of the backup's end fills its segment to the last byte. Something else
 * may write in between; then the next segment gets its turn.
 */
async function fillSegment(cluster: Cluster): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    for (;;) {
      const position = await insertPosition(cluster);
      const end = (position / SEGMENT_BYTES + 1n) * SEGMENT_BYTES;
      const left = end - BACKUP_END_BYTES - position;
      if (left === 0n) return;
      if (left < 100n) break;
      // In the last page no page header comes between: the record's own size is what it takes.
      if (left > 8000n) await emit(cluster, left - 6000n > 300_000n ? 300_000n : left - 7000n);
      else await emit(cluster, left - overheadOf(left));
    }
    await cluster.switchWal();
  }
  throw new Error("the segment could not be filled");
}

/** Of a message that has this size with it; long ones have a longer header of their data. */
function overheadOf(recordBytes: bigint): bigint {
  const data = recordBytes - 24n;
  const headerBytes = data - 2n <= 255n ? 2n : 5n;
  // struct xl_logical_message, and the prefix with its NUL.
  return 24n + headerBytes + 24n + 2n;
}

for (const major of [13, 17] as const) {
  test(`a stop position on the border of a segment, on PostgreSQL ${major}`, async () => {
    await using world = await startBackupWorld({
      major,
      settings: { autovacuum: "off", bgwriter_lru_maxpages: "0" },
    });
    const { cluster } = world;
    await cluster.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS g");
    const storage = new HookedStorage(world.storage, {
      // Copying writes no WAL: what stands at its beginning stands at the stop.
      async onBytes(key, sizeBytes) {
        if (key.includes("part_001") && sizeBytes <= 1024 * 1024) await fillSegment(cluster);
      },
    });
    let pushed = await world.push({ storage, hasDatabaseNames: false });
    for (let attempt = 0; pushed.stopLsn % SEGMENT_BYTES !== 0n; attempt += 1) {
      assert.ok(attempt < 5, `the stop position is ${pushed.stopLsn.toString(16)}`);
      pushed = await world.push({ storage, hasDatabaseNames: false });
    }

    const last = (pushed.stopLsn - 1n) / SEGMENT_BYTES;
    const name = `00000001${"0".repeat(8)}${last.toString(16).toUpperCase().padStart(8, "0")}`;
    const stored = await world.keys("wal_005/");
    assert.ok(stored.includes(`wal_005/${name}`), `${name} of ${stored.join(" ")}`);

    const directory = await world.unpack(pushed.name, "restored");
    await cluster.stop("immediate");
    await using restored = await restoreCluster(directory, {
      major,
      signal: "recovery",
      restoreCommand: `cp "${world.repository}/wal_005/%f" "%p"`,
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.match(restored.log(), /consistent recovery state reached at 0\/[0-9A-F]+00000\n/);
    assert.equal(await restored.value("SELECT count(*) FROM t"), "1000");
  });
}
