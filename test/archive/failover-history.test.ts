import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pushWal } from "../../src/archive/push.ts";
import { codecOf } from "../../src/codec/table.ts";
import { OperationError, StorageError } from "../../src/errors.ts";
import type { ByteSource } from "../../src/io/bytes.ts";
import { silentLog } from "../../src/io/log.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { formatTimelineHistory } from "../../src/postgres/timeline-history.ts";
import { formatHistoryName, formatSegmentName } from "../../src/postgres/wal-file.ts";
import type { PutOptions } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { seededRandom } from "../support/random.ts";
import { changeControl, IN_PRODUCTION } from "../support/control-file.ts";
import { recordWal, walFile } from "../support/real-wal.ts";

const FAILOVERS = 50;
const { signal } = new AbortController();
const wal = await recordWal({ segmentCount: 2 });
const random = seededRandom();

/** Loses calls and answers. */
class BadStore extends MemoryStorage {
  isGood = false;

  override async put(key: string, body: ByteSource, options: PutOptions): Promise<void> {
    const chance = this.isGood ? 1 : random.next();
    if (chance < 0.4) throw new StorageError("503", { isRetryable: true });
    await super.put(key, body, options);
    if (chance < 0.5) throw new StorageError("connection reset", { isRetryable: true });
  }
}

/** One server: the primary of `timeline`, which it was promoted to. */
interface Server {
  readonly timeline: number;
  readonly walDirectory: string;
  /** In the order of the archiver. */
  readonly files: readonly string[];
}

async function promote(base: string, timeline: number): Promise<Server> {
  const walDirectory = join(base, `server-${timeline}`, "pg_wal");
  await mkdir(join(walDirectory, "..", "global"), { recursive: true });
  await mkdir(walDirectory);
  const control = changeControl(wal.control, { state: IN_PRODUCTION, timeline });
  await writeFile(join(walDirectory, "..", "global", "pg_control"), control);

  const [name = ""] = wal.segments;
  const number = BigInt(Number.parseInt(name.slice(8, 16) + name.slice(21), 16));
  const end = lsn(number * BigInt(wal.segmentBytes));
  const ancestors = Array.from({ length: timeline - 1 }, (_, index) => ({
    timeline: index + 1,
    endLsn: end,
    reason: "no recovery target specified",
  }));
  // It streamed the histories of all timelines before.
  for (let older = 2; older <= timeline; older += 1) {
    const history = { timeline: older, ancestors: ancestors.slice(0, older - 1) };
    await writeFile(join(walDirectory, formatHistoryName(older)), formatTimelineHistory(history));
  }
  const content = Buffer.from(walFile(wal, name));
  for (let page = 4; page < content.length; page += 8192) content.writeUInt32LE(timeline, page);
  const segment = formatSegmentName(timeline, number, wal.segmentBytes);
  await writeFile(join(walDirectory, segment), content);
  return { timeline, walDirectory, files: [formatHistoryName(timeline), segment] };
}

/** Whether the store acknowledged it. */
async function tryPush(store: BadStore, { walDirectory }: Server, name: string): Promise<boolean> {
  try {
    await pushWal(
      store,
      { path: join(walDirectory, name), name },
      {
        codec: codecOf("zstd"),
        codecJobs: 1,
        cacheDirectory: join(walDirectory, "..", "cache"),
        timeoutMs: 60_000,
        log: silentLog,
        signal,
      },
    );
    return true;
  } catch (error) {
    assert.ok(error instanceof OperationError && error.code === "storage", String(error));
    return false;
  }
}

const historiesOf = (store: BadStore, timeline: number) =>
  store.keys.filter((key) => key.startsWith(`wal_005/${formatHistoryName(timeline)}`));

test(`${FAILOVERS} failovers on a bad store (seed ${random.seed}): one history each, first of all`, async () => {
  const base = await mkdtemp(join(tmpdir(), "walnut-failovers-"));
  try {
    const store = new BadStore();
    const first = new Map<string, Buffer | undefined>();
    for (let timeline = 2; timeline < FAILOVERS + 2; timeline += 1) {
      const server = await promote(base, timeline);
      // Any order, any number of attempts, and some die before anything was stored.
      const attempts = Math.floor(random.next() * 5);
      for (let attempt = 0; attempt < attempts; attempt += 1) {
        const name = server.files[Math.floor(random.next() * 2)] ?? "";
        const isStored = await tryPush(store, server, name);
        if (isStored) assert.equal(historiesOf(store, timeline).length, 1, name);
        for (const key of historiesOf(store, timeline)) {
          if (!first.has(key)) first.set(key, store.bytesOf(key));
        }
      }
      store.isGood = timeline === FAILOVERS + 1;
      if (store.isGood)
        for (const name of server.files) assert.ok(await tryPush(store, server, name));
      await rm(join(base, `server-${timeline}`), { recursive: true });
    }
    for (let timeline = 2; timeline < FAILOVERS + 2; timeline += 1) {
      assert.equal(historiesOf(store, timeline).length, 1, `timeline ${timeline}`);
    }
    for (const [key, bytes] of first) assert.deepEqual(store.bytesOf(key), bytes, key);
  } finally {
    await rm(base, { recursive: true });
  }
});
