import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { reportTimelines } from "../../src/catalogue/timeline-report.ts";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { CommitFinder } from "../../src/catalogue/commit-finder.ts";
import { type ServerState, summarizeRepository } from "../../src/catalogue/repository-info.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { expire } from "../../src/commands/expire.ts";
import { info } from "../../src/commands/info.ts";
import { infoJson } from "../../src/commands/info-json.ts";
import { timeline } from "../../src/commands/timeline.ts";
import { verify } from "../../src/commands/verify.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { formatJson } from "../../src/layout/json.ts";
import { gapKey, metadataKey, sentinelKey } from "../../src/layout/keys.ts";
import { timeNsOf } from "../../src/layout/time.ts";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { objectsOf, segmentName, storageOf, type World } from "../retention/world.ts";
import { runCommand, runCommandToEnd } from "../support/command-run.ts";
import { DescribedJson, tableBehind } from "../support/described-json.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { mirroredStorage } from "../support/mirror.ts";
import { freePort } from "../support/postgres-programs.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";

const { signal } = new AbortController();
const body = (text: string) => bytesSource(Buffer.from(text));
const FULL = `base_${segmentName(1, 10)}`;
const INCREMENT = `base_${segmentName(1, 20)}_D_${segmentName(1, 10)}`;
const BROKEN = `base_${segmentName(1, 30)}`;

const backup = (name: string, segment: number, more: Partial<World["backups"][number]> = {}) => ({
  name,
  timeline: 1,
  segment,
  lastSegment: segment + 1,
  base: undefined,
  startMs: Date.UTC(2026, 9, segment),
  finishMs: Date.UTC(2026, 9, segment, 1),
  isPermanent: false,
  corruptPages: 0,
  hasControl: true,
  isSentinelThere: true,
  ...more,
});

/** Two timelines and a chain, holes, a lost history, what was given up, an unfinished backup. */
async function manyThings(): Promise<MemoryStorage> {
  const common = { hasHistory: true, holes: [] };
  const storage = await storageOf(
    objectsOf({
      timelines: [
        { ...common, id: 1, parent: 0, forkSegment: 1, endSegment: 60, holes: [15, 25, 26] },
        { ...common, id: 2, parent: 1, forkSegment: 40, endSegment: 50 },
        { ...common, id: 3, parent: 2, forkSegment: 48, endSegment: 55, hasHistory: false },
      ],
      backups: [
        backup(FULL, 10, { isPermanent: true }),
        backup(INCREMENT, 20, { base: FULL }),
        backup(BROKEN, 30),
        backup(`base_${segmentName(1, 33)}`, 33),
        backup(`base_${segmentName(1, 35)}`, 35, { isSentinelThere: false }),
      ],
    }),
  );
  await storage.put(gapKey(segmentName(1, 25)), body("{}"), { signal });
  await storage.put(sentinelKey(BROKEN), body("no JSON"), { signal });
  await storage.delete([metadataKey(BROKEN)], { signal });
  return storage;
}

/** WAL-G's, whose WAL has commits; a hole between them. */
async function walgRepository() {
  const fixture = await unpackWalgFixture("timelines");
  const storage = new DirectoryStorage(fixture.repository, systemClock);
  await storage.delete(["wal_005/000000010000000000000003.lz4"], { signal });
  return { storage, [Symbol.asyncDispose]: () => fixture[Symbol.asyncDispose]() };
}

describe("every member that is printed is documented, and every one of the documentation is", () => {
  test("info --json", async () => {
    const described = new DescribedJson("info-schema.md", "# What");
    const check = async (storage: Storage, args: readonly string[] = ["--offline"], config = {}) =>
      described.check((await runCommand(info, storage, ["--json", ...args], config)).stdout);
    await check(new MemoryStorage());
    await check(await manyThings());
    await using walg = await walgRepository();
    const config = defaultConfig({ cpuCount: 2 });
    const all = { fullCount: 1, windowDays: 2, pitrDays: 3 };
    const retention = { ...config.retention, ...all, daily: 4, weekly: 5, monthly: 6, yearly: 7 };
    const postgres = { ...config.postgres, host: "127.0.0.1", port: await freePort() };
    await check(walg.storage, [], { retention, postgres });
    const one = new MemoryStorage();
    for (const key of [FULL, `${FULL}/metadata.json`]) await one.put(key, body("?"), { signal });
    await one.put(sentinelKey(FULL), body("?"), { signal });
    await check(one);

    using scratch = scratchDirectory();
    const error = new StorageError("connection refused", { isRetryable: false });
    const away = new FaultyStorage(new MemoryStorage());
    away.fault("put", "every", { kind: "fail", error });
    const stores = {
      primary: new MemoryStorage(),
      mirror: away,
      directory: join(scratch.path, "q"),
    };
    await check(mirroredStorage(stores));
    const writer = mirroredStorage(stores);
    await writer.put("wal_005/x", body("x"), { signal });
    await writer[Symbol.asyncDispose]();
    await check(mirroredStorage(stores));
    const { backups } = await readCatalogue(walg.storage, { signal });
    const systemId = backups.find((backup) => backup.systemId !== undefined)?.systemId;
    assert.ok(systemId !== undefined);
    for (const server of [{}, { timeline: 1, systemId }]) {
      described.check(await infoOf(walg.storage, server));
    }
    assert.deepEqual(described.missing, []);
  });

  test("timeline --json", async () => {
    const described = new DescribedJson("verify.md", "### timeline --json");
    await using walg = await walgRepository();
    for (const storage of [new MemoryStorage(), await manyThings(), walg.storage]) {
      described.check((await runCommand(timeline, storage, ["--json"])).stdout);
    }
    assert.deepEqual(described.missing, []);
  });

  test("verify --json", async () => {
    const described = new DescribedJson("verify.md", "### verify --json");
    using scratch = scratchDirectory();
    const [primary, mirror] = [await manyThings(), await manyThings()];
    await primary.put(sentinelKey(FULL), body("no JSON"), { signal });
    const second = { name: "second", config: { kind: "directory", path: scratch.path } } as const;
    const more = { policy: "primary", queueDirectory: scratch.path, notesMax: 10 } as const;
    const config = { stores: [second], ...more };
    for (const level of ["--full", "--quick"]) {
      const directory = join(scratch.path, level);
      const storage = mirroredStorage({ primary, mirror, directory });
      const args = [level, "--json"];
      described.check((await runCommandToEnd(verify, storage, args, { mirror: config })).stdout);
    }
    await using walg = await walgRepository();
    described.check((await runCommandToEnd(verify, walg.storage, ["--json"])).stdout);
    assert.deepEqual(described.missing, []);
  });

  test("expire --json", async () => {
    const described = new DescribedJson("retention.md", "`--json` prints the plan");
    const { retention } = defaultConfig({ cpuCount: 2 });
    const storage = await manyThings();
    for (const policy of [{ fullCount: 1 }, { windowDays: 1 }]) {
      for (const one of [storage, new MemoryStorage()]) {
        const config = { retention: { ...retention, ...policy } };
        described.check((await runCommand(expire, one, ["--json"], config)).stdout);
      }
    }
    const config = { retention: { ...retention, fullCount: 1 } };
    for (const time of ["2026-10-10T01:00:00Z", "0001-01-01T00:00:00Z"]) {
      const one = await oneBackup(time);
      described.check((await runCommand(expire, one, ["--json"], config)).stdout);
    }
    assert.deepEqual(described.missing, []);
  });
});

/** A backup with WAL behind it, finished at `time`; Go's zero time says that nobody knows. */
async function oneBackup(time: string): Promise<MemoryStorage> {
  const line = { id: 1, parent: 0, forkSegment: 1, endSegment: 20, holes: [], hasHistory: false };
  const objects = objectsOf({ timelines: [line], backups: [backup(FULL, 10)] });
  for (const key of [sentinelKey(FULL), metadataKey(FULL)]) {
    const text = objects.get(key) ?? "";
    objects.set(key, text.replace(/("(?:FinishTime|finish_time)":)"[^"]*"/, `$1"${time}"`));
  }
  return await storageOf(objects);
}

/** `info --json` with a server. */
async function infoOf(storage: Storage, change: Partial<ServerState>): Promise<string> {
  const catalogue = await readCatalogue(storage, { signal });
  const view = walView(catalogue);
  const options = { jobs: 2, codecJobs: 1, signal };
  const finder = await CommitFinder.open(storage, { catalogue, view }, options);
  const report = await reportTimelines({ catalogue, view, finder });
  await finder.close();
  const server: ServerState = {
    systemId: 1n,
    versionNumber: 180_000,
    timeline: 2,
    lsn: parseLsn("0/A0000100"),
    isInRecovery: false,
    isArchiving: false,
    lastFailedWal: "000000010000000000000003",
    lastFailedAt: "2026-11-21 04:53:15.290112+00",
    isArchiverFailing: true,
    ...change,
  };
  const nowNs = timeNsOf(systemClock.now());
  const owner = catalogue.backups.find(({ systemId }) => systemId !== undefined)?.systemId;
  const query = { catalogue, owner, view, report, collisions: [], server, nowNs };
  const state = summarizeRepository(query);
  const config = defaultConfig({ cpuCount: 2 });
  const shown = { state, server, config, mirrors: [], unseen: [], nowNs };
  return formatJson(infoJson(shown));
}

test("the documentation has every code of a warning, and no other", () => {
  const table = tableBehind("info-schema.md", { heading: "# What", firstColumn: "code" });
  const root = join(import.meta.dirname, "..", "..", "src");
  const sources = [
    "catalogue/repository-info.ts",
    "commands/info-json.ts",
    "commands/mirror-status.ts",
  ];
  const used = sources.flatMap((path) =>
    [...readFileSync(join(root, path), "utf8").matchAll(/\bcode: "([\w-]+)"/g)].map(
      ([, code]) => code,
    ),
  );
  assert.ok(used.length > 18);
  assert.deepEqual(new Set(table.map(([code]) => code)), new Set(used));
});
