import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { requireSoundPages } from "../../src/backup/corrupt-pages.ts";
import { parseFilesMetadata } from "../../src/layout/files-metadata.ts";
import { filesMetadataKey } from "../../src/layout/keys.ts";
import { startBackupWorld } from "../support/backup-world.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { assertRestoresLive } from "../support/restored-compare.ts";
import { collectingLog } from "../support/restoring.ts";

const signal = AbortSignal.timeout(600_000);
// Other ways to find changed blocks do not read what is unchanged, and so verify none of it.
const increments = { maxSteps: 5, origin: "latest", ways: ["page-scan"] } as const;
const BLOCK = 3;
const PAGE = 8192;
const ROUNDS = process.env["WALNUT_LONG"] === "1" ? 100 : 3;

function pageAt(path: string): Buffer {
  return readFileSync(path).subarray(BLOCK * PAGE, (BLOCK + 1) * PAGE);
}

function writePage(path: string, page: Buffer): void {
  const file = openSync(path, "r+");
  writeSync(file, page, 0, page.length, BLOCK * PAGE);
  closeSync(file);
}

function flipBit(path: string): void {
  const page = pageAt(path);
  page[6000] = (page[6000] ?? 0) ^ 1;
  writePage(path, page);
}

test("a flipped bit in a cold page is named by relation and block, in full and increment", async () => {
  await using world = await startBackupWorld({ major: 16 });
  const { cluster } = world;
  await cluster.query(
    "CREATE TABLE cold AS SELECT g, repeat('x', 100) FROM generate_series(1, 5000) g",
  );
  for (const sql of ["VACUUM FREEZE cold", "CHECKPOINT"]) await cluster.query(sql);
  const clean = await world.push({ increments, isPageVerified: true });
  assert.deepEqual(clean.corruptFiles, []);
  const { own } = await world.sentinel(clean.name);
  assert.equal(own?.isPagesVerified, true);
  assert.equal(own.corruptPages, undefined);

  const path = await cluster.value("SELECT pg_relation_filepath('cold')");
  flipBit(join(cluster.dataDirectory, path));
  for (const isFull of [true, false]) {
    const request = isFull ? { ...increments, fullReason: "test" } : increments;
    const pushed = await world.push({ increments: request, isPageVerified: true });
    assert.equal(pushed.baseName === undefined, isFull);
    const blocks = { count: 1, blockNumbers: [BLOCK] };
    assert.deepEqual(pushed.corruptFiles, [{ name: `/${path}`, blocks }]);
    assert.equal((await world.sentinel(pushed.name)).own?.corruptPages, 1);
    const items = parseFilesMetadata(
      pushed.name,
      world.storage.get(filesMetadataKey(pushed.name), { signal }),
    );
    for await (const item of items) {
      if (item.kind !== "file") continue;
      assert.deepEqual(item.corruptBlocks, item.name === `/${path}` ? blocks : undefined);
    }
    const log = collectingLog();
    const connection = {
      host: "127.0.0.1",
      port: cluster.port,
      user: "postgres",
      database: "template1",
      applicationName: "walnut-test",
    };
    await assert.rejects(requireSoundPages(pushed, { connection, log, signal }), {
      name: "CorruptPagesError",
      message:
        `backup ${pushed.name} is stored, but 1 pages in 1 files of the cluster ` +
        `have a wrong checksum: first ${path} block ${BLOCK}`,
    });
    const [line] = log.lines;
    assert.equal(
      line,
      `error: pages are damaged in the cluster {"file":"${path}","blocks":"${BLOCK}","relation":"postgres public.cold"}`,
    );
  }
  assert.ok(readFileSync(join(cluster.dataDirectory, path)).length > 4 * 8192);
});

test("a torn page that the WAL has is no damage, and comes back whole (E22)", async () => {
  await using world = await startBackupWorld({ major: 16, settings: { autovacuum: "off" } });
  const { cluster } = world;
  assert.equal(await cluster.value("SHOW full_page_writes"), "on");
  await cluster.query(
    "CREATE TABLE torn AS SELECT g AS id, repeat('x', 100) AS t FROM generate_series(1, 5000) g",
  );
  for (const sql of ["VACUUM FREEZE torn", "CHECKPOINT"]) await cluster.query(sql);
  const path = join(
    cluster.dataDirectory,
    await cluster.value("SELECT pg_relation_filepath('torn')"),
  );
  const before = pageAt(path);
  let whole = before;
  const storage = new HookedStorage(world.storage, {
    async onBytes(key) {
      if (!key.includes("part_001") || whole !== before) return;
      await cluster.query(`UPDATE torn SET t = 'new' WHERE ctid = '(${BLOCK},1)'`);
      await cluster.query("CHECKPOINT");
      whole = pageAt(path);
      // As a reader sees a page of which the kernel has written the first half.
      writePage(path, Buffer.concat([whole.subarray(0, 4096), before.subarray(4096)]));
    },
  });
  const pushed = await world.push({ storage, isPageVerified: true, hasDatabaseNames: false });
  assert.deepEqual(pushed.corruptFiles, []);
  assert.equal((await world.sentinel(pushed.name)).own?.corruptPages, undefined);
  assert.notDeepEqual(pageAt(path), whole, "was torn until now");
  assert.notDeepEqual(whole.subarray(4096), before.subarray(4096));
  writePage(path, whole);
  await assertRestoresLive(world, pushed.name, 16);
});

test("pages that are changed all the time give no alarm", async () => {
  await using world = await startBackupWorld({ major: 13 });
  const { cluster } = world;
  await cluster.query(
    "CREATE TABLE hot AS SELECT g AS id, 0 AS n FROM generate_series(1, 20000) g",
  );
  const stopped = new AbortController();
  const busy = (async () => {
    while (!stopped.signal.aborted) {
      await cluster.query("UPDATE hot SET n = n + 1 WHERE id % 10 = 0; CHECKPOINT");
    }
  })();
  for (let round = 0; round < ROUNDS; round += 1) {
    const pushed = await world.push({ isPageVerified: true, increments, hasDatabaseNames: false });
    assert.deepEqual(pushed.corruptFiles, []);
  }
  stopped.abort();
  await busy;
});
