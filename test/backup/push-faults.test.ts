import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { InterruptedError, StorageError } from "../../src/errors.ts";
import { parseFilesMetadata } from "../../src/layout/files-metadata.ts";
import { filesMetadataKey, sentinelKey } from "../../src/layout/keys.ts";
import { type BackupWorld, type PushChange, startBackupWorld } from "../support/backup-world.ts";
import { HookedStorage, type StorageHooks } from "../support/hooked-storage.ts";
import { restoreCluster } from "../support/postgres.ts";
import { restoreInto } from "../support/restoring.ts";
import { checkHeaps } from "../support/soundness.ts";

const PAGE = 8192;
const ARCHIVER_FAILED =
  "SELECT last_failed_time > now() - interval '1 minute' FROM pg_stat_archiver";

const all: { world?: BackupWorld } = {};

function world(): BackupWorld {
  if (all.world === undefined) throw new Error("no world");
  return all.world;
}

before(async () => {
  all.world = await startBackupWorld({ major: 16 });
  await world().cluster.query(
    "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 20) AS t FROM generate_series(1, 30000) g",
  );
});
after(async () => await all.world?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await world().cluster.waitFor(
    "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'walnut-test'",
  );
});

const isBackupKey = (key: string) => key.startsWith("basebackups_005/");

/** Holds a backup in the middle of its first part until the test has done something. */
function stalled(): {
  readonly hooks: StorageHooks;
  readonly entered: Promise<void>;
  release(): void;
} {
  const entered = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  return {
    entered: entered.promise,
    release: () => gate.resolve(),
    hooks: {
      async onBytes(key, sizeBytes) {
        if (!key.includes("part_001") || sizeBytes < 4_000_000) return;
        entered.resolve();
        await gate.promise;
      },
    },
  };
}

/** Starts a backup that stalls; it must reject after `disturb`, and leave nothing. */
async function assertEnds(
  disturb: () => Promise<void>,
  expected: { readonly name: string; readonly message: RegExp },
  change: PushChange = {},
): Promise<void> {
  const stall = stalled();
  const storage = new HookedStorage(world().storage, stall.hooks);
  const before = (await world().keys()).filter(isBackupKey);
  const pushing = world().push({ ...change, storage });
  const outcome = assert.rejects(pushing, expected);
  await stall.entered;
  await disturb();
  await outcome;
  stall.release();
  const left = (await world().keys()).filter((key) => isBackupKey(key) && !before.includes(key));
  assert.deepEqual(
    left.filter((key) => key.includes("sentinel")),
    [],
  );
  if (expected.name !== "InterruptedError") assert.deepEqual(left, []);
}

const killSession = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE application_name = 'walnut-test' AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')`;

test("a killed session ends the backup within 10 s (P19)", async () => {
  await assertEnds(async () => void (await world().cluster.query(killSession)), {
    name: "DatabaseError",
    message: /^the session with PostgreSQL at 127\.0\.0\.1:\d+ ended: terminating connection/,
  });
});

for (const mode of ["fast", "immediate"] as const) {
  test(`a ${mode} restart of the server ends the backup within 10 s (P19)`, async () => {
    await assertEnds(
      async () => {
        await world().cluster.stop(mode);
        await world().cluster.start();
      },
      { name: "DatabaseError", message: /^the session with PostgreSQL/ },
    );
  });
}

test("an interrupt ends the backup, and the next one succeeds", async () => {
  const stop = new AbortController();
  await assertEnds(
    async () => stop.abort(new InterruptedError("stopped by SIGTERM")),
    { name: "InterruptedError", message: /^stopped by SIGTERM$/ },
    { signal: stop.signal },
  );
  await world().cluster.waitFor(
    "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'walnut-test'",
  );
  const { name } = await world().push();
  assert.ok((await world().keys()).includes(sentinelKey(name)));
});

describe("a store that fails", () => {
  const failure = new StorageError("the disk is full", { isRetryable: false });
  const kinds = [
    ["part_001", "at the first part"],
    ["part_003", "at a later part"],
    ["pg_control", "at pg_control"],
    ["backup_label", "at the label"],
    ["/metadata.json", "at the metadata"],
    ["files_metadata.json", "at the file list"],
    ["walnut_manifest", "at the manifest"],
  ] as const;

  for (const [part, when] of kinds) {
    test(`${when} leaves nothing`, async () => {
      const before = (await world().keys()).filter(isBackupKey);
      const storage = new HookedStorage(world().storage, {
        beforePut(key) {
          if (key.includes(part)) throw failure;
        },
      });
      const change = { storage, thresholdBytes: 4_000_000, partConcurrency: 2 };
      await assert.rejects(world().push(change), failure);
      const left = (await world().keys()).filter(
        (key) => isBackupKey(key) && !before.includes(key),
      );
      assert.deepEqual(
        left.filter((key) => /tar_partitions|sentinel/.test(key)),
        [],
      );
    });
  }

  test("at the sentinel leaves everything, for it may have arrived", async () => {
    const stored: string[] = [];
    const storage = new HookedStorage(world().storage, {
      beforePut(key, options) {
        if (!key.includes("sentinel")) return;
        assert.equal(options.ifAbsent, true);
        throw failure;
      },
      afterPut: (key) => void stored.push(key),
    });
    await assert.rejects(world().push({ storage }), failure);
    const keys = await world().keys();
    for (const key of stored) assert.ok(keys.includes(key), key);
    assert.ok(stored.some((key) => key.includes("part_001")));
  });

  test("in the middle of a part ends the others, too", async () => {
    const storage = new HookedStorage(world().storage, {
      onBytes(key, sizeBytes) {
        if (key.includes("part_002") && sizeBytes > 1_000_000) throw failure;
      },
    });
    await assert.rejects(
      world().push({ storage, thresholdBytes: 4_000_000, partConcurrency: 3 }),
      failure,
    );
  });
});

test("the sentinel comes after everything else", async () => {
  const stored: string[] = [];
  const storage = new HookedStorage(world().storage, {
    beforePut: (key) => {
      if (key.includes("sentinel")) stored.push("before the sentinel");
    },
    afterPut: (key) => void stored.push(key),
  });
  const { name } = await world().push({ storage });
  assert.equal(stored.at(-1), sentinelKey(name));
  assert.equal(stored.at(-2), "before the sentinel");
  const own = stored.filter(isBackupKey).map((key) => key.slice(key.lastIndexOf("/") + 1));
  assert.deepEqual(own.toSorted(), [
    "backup_label.tar",
    `${name}_backup_stop_sentinel.json`,
    "files_metadata.json",
    "metadata.json",
    "part_001.tar",
    "pg_control.tar",
    "walnut_manifest.jsonl.zst",
  ]);
});

test("a server that stops after the backup was stopped does no harm", async () => {
  const { cluster } = world();
  const restarted = Promise.withResolvers<void>();
  const storage = new HookedStorage(world().storage, {
    async beforePut(key) {
      if (!key.includes("backup_label")) return;
      // The segment of the end has to get into the archive; the server may come back for it.
      await cluster.stop("immediate");
      await cluster.start();
      restarted.resolve();
    },
  });
  const { name } = await world().push({ storage, hasDatabaseNames: false });
  await restarted.promise;
  assert.ok((await world().keys()).includes(sentinelKey(name)));
});

test("an archive that breaks during the backup: the end waits, tells, and gives up in time", async () => {
  const { cluster } = world();
  const working = await cluster.value("SHOW archive_command");
  const storage = new HookedStorage(world().storage, {
    async beforePut(key) {
      if (key.includes("backup_label")) await cluster.waitFor(ARCHIVER_FAILED);
      if (!key.includes("part_001")) return;
      // Only the last of the segments that the backup needs will be missing.
      for (let count = 0; count < 3; count += 1) {
        await cluster.query("SELECT pg_logical_emit_message(true, 'filler', 'x')");
        await cluster.switchWal();
      }
      await cluster.waitForArchiver();
      await world().setArchiveCommand("false");
    },
  });
  const before = (await world().keys()).filter(isBackupKey);
  await assert.rejects(world().push({ storage, stopTimeoutMs: 500 }), {
    name: "RefusedError",
    message: /^WAL segment [0-9A-F]{24} did not arrive .* within 0\.5 s; the archiver failed/,
  });
  assert.deepEqual((await world().keys()).filter(isBackupKey), before);
  await world().setArchiveCommand(working);
});

test("an archive that comes back during the wait completes the backup", async () => {
  const working = await world().cluster.value("SHOW archive_command");
  const { cluster } = world();
  const storage = new HookedStorage(world().storage, {
    async beforePut(key) {
      if (key.includes("part_001")) await world().setArchiveCommand("false");
      if (!key.includes("backup_label")) return;
      await cluster.waitFor(ARCHIVER_FAILED);
      await world().setArchiveCommand(working);
    },
  });
  const { name } = await world().push({ storage, stopTimeoutMs: 0 });
  const sentinel = await world().sentinel(name);
  const last = await cluster.value(
    `SELECT pg_walfile_name(('0/0'::pg_lsn + ${sentinel.finishLsn} - 1)::pg_lsn)`,
  );
  assert.ok((await world().keys("wal_005/")).includes(`wal_005/${last}`));
});

for (const kind of ["full", "increment"] as const) {
  test(`relations that change between listing and reading do no harm: ${kind} (E21)`, async () => {
    const { cluster } = world();
    const maxSteps = kind === "full" ? 0 : 9;
    const increments = { maxSteps, origin: "latest", ways: ["page-scan"] } as const;
    if (kind === "increment") {
      await world().push({ increments, hasDatabaseNames: false });
      await cluster.query("UPDATE big SET g = g + 1");
    }
    await makeChanging();
    const doomed = await cluster.value("SELECT pg_relation_filepath('doomed')");
    const folder = join(cluster.dataDirectory, "base/5");
    writeFileSync(join(folder, "pg_internal.init.4711"), "left by a session that was killed");
    writeFileSync(join(folder, "pg_internal.init.4712"), Buffer.alloc(PAGE, 1));
    const done = Promise.withResolvers<void>();
    const isInBig = await bytesBeforeBig(kind);
    let isDone = false;
    const storage = new HookedStorage(world().storage, {
      async onBytes(key, sizeBytes) {
        if (!key.includes("part_001") || sizeBytes < isInBig || isDone) return;
        isDone = true;
        rmSync(join(folder, "pg_internal.init.4712"));
        writeFileSync(join(folder, "pg_internal.init.4713"), Buffer.alloc(PAGE, 1));
        await changeAll();
        done.resolve();
      },
    });
    const pushed = await world().push({ storage, isPageVerified: true, increments });
    await done.promise;
    for (const number of [4711, 4713]) rmSync(join(folder, `pg_internal.init.${number}`));
    assert.equal(pushed.baseName !== undefined, kind === "increment");
    assert.deepEqual(pushed.corruptFiles, []);
    const names = await namesOf(pushed.name);
    assert.ok(!names.includes(`/${doomed}`), "was there when the directory was listed only");
    const late = await cluster.value("SELECT pg_relation_filepath('late')");
    assert.ok(!names.includes(`/${late}`), "came after the directory was listed");
    assert.deepEqual(
      names.filter((name) => name.includes("init.47")),
      [],
    );
    const directory = join(cluster.directory, `changed ${kind}`);
    await restoreInto(world().storage, directory, { backup: pushed.name });
    await using restored = await restoreCluster(directory, {
      major: 16,
      signal: "recovery",
      restoreCommand: `cp "${world().repository}/wal_005/%f" "%p"`,
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    await checkHeaps(restored);
    const counts = `SELECT (SELECT count(*) FROM shrinking) || ' ' || (SELECT count(*) FROM growing)
    || ' ' || (SELECT count(*) FROM late) || ' ' || coalesce(to_regclass('doomed')::text, 'none')`;
    assert.equal(await restored.value(counts), "10 100000 500 none");
  });
}

/** Their files come after that of `big` in the order of names. */
async function makeChanging(): Promise<void> {
  await world().cluster.query(
    `DROP TABLE IF EXISTS shrinking, growing, late;
     CREATE TABLE doomed AS SELECT repeat('x', 500) AS t FROM generate_series(1, 5000);
     CREATE TABLE shrinking AS SELECT g, repeat('y', 500) AS t FROM generate_series(1, 5000) g;
     CREATE TABLE growing AS SELECT g FROM generate_series(1, 1000) g`,
  );
}

async function changeAll(): Promise<void> {
  const { cluster } = world();
  await cluster.query("DROP TABLE doomed");
  await cluster.query("CHECKPOINT");
  await cluster.query("DELETE FROM shrinking WHERE g > 10");
  await cluster.query("VACUUM shrinking");
  await cluster.query("TRUNCATE growing");
  await cluster.query("INSERT INTO growing SELECT g FROM generate_series(1, 100000) g");
  await cluster.query("CREATE TABLE late AS SELECT g FROM generate_series(1, 500) g");
  await cluster.query("CHECKPOINT");
}

/** How much of the first part there is when `big` is read, whose directory was listed then. */
async function bytesBeforeBig(kind: "full" | "increment"): Promise<number> {
  const { cluster } = world();
  const size = async (sql: string) => Number(await cluster.value(sql));
  if (kind === "increment") return 5_000_000;
  const before = await size(
    "SELECT sum(pg_database_size(oid)) FROM pg_database WHERE datname <> 'postgres'",
  );
  const catalogs = await size(
    "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND oid < 16384",
  );
  return before + catalogs + 5_000_000;
}

async function namesOf(backup: string): Promise<readonly string[]> {
  const signal = AbortSignal.timeout(60_000);
  const bytes = world().storage.get(filesMetadataKey(backup), { signal });
  const names: string[] = [];
  for await (const item of parseFilesMetadata(backup, bytes)) {
    if (item.kind === "file") names.push(item.name);
  }
  return names;
}

test("progress goes up to the content that was read", async () => {
  const told: number[] = [];
  const { contentBytes } = await world().push({
    onProgress: ({ doneBytes }) => told.push(doneBytes),
  });
  assert.ok(told.length > 2);
  assert.deepEqual(
    told,
    told.toSorted((one, other) => one - other),
  );
  assert.ok((told.at(-1) ?? 0) <= contentBytes);
});

test("reading keeps to the disk's rate limit", async () => {
  const startMs = performance.now();
  const { contentBytes } = await world().push({ diskRateBytesPerSecond: 20_000_000 });
  const seconds = (performance.now() - startMs) / 1000;
  assert.ok(seconds > contentBytes / 20_000_000 - 1, `${contentBytes} bytes in ${seconds} s`);
});

test("a failed backup tells where its objects are if they can't be removed", async () => {
  const storage = new HookedStorage(world().storage, {
    afterPut(key) {
      if (key.includes("/part_001.")) throw new StorageError("gone", { isRetryable: false });
    },
  });
  storage.delete = async () => {
    throw new StorageError("gone for good", { isRetryable: false });
  };
  await assert.rejects(world().push({ storage }), { message: "gone" });
  const line = world().logged.find((text) => text.includes("could not be removed"));
  const folder = /folder=(\S+)/.exec(line ?? "")?.[1] ?? "";
  assert.match(folder, /^basebackups_005\/base_[0-9A-F]{24}\/$/);
  assert.ok((await world().keys(folder)).length > 0);
});
