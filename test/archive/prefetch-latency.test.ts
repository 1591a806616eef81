/**
 * Why recovery does not wait for a store that is far away (P14), without looking at a clock: what
 * it asks for lies ready, several requests are under way meanwhile, and each is made once.
 */
import assert from "node:assert/strict";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { ByteStream } from "../../src/io/bytes.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";
import type { GetOptions, ObjectKey } from "../../src/storage/storage.ts";
import { recordWal } from "../support/real-wal.ts";
import { until } from "../support/until.ts";
import { SWITCH, writeWal } from "../support/wal-writer.ts";
import { Prefetching, RECOVERY } from "./prefetching.ts";
import { RecordedStorage } from "./recorded-storage.ts";

const AHEAD = 8;
const ROUNDS = process.env["WALNUT_LONG"] === undefined ? 4 : 124;
const PG17_MAGIC = 0xd116;
const SEGMENT_BYTES = 1024 * 1024;
const NONE: ReadonlyMap<string, Buffer> = new Map();

/** A store whose answers can be held up. */
class SilentStore extends RecordedStorage {
  waitingCount = 0;
  #answers = Promise.withResolvers<void>();

  answer(): void {
    this.#answers.resolve();
  }

  fallSilent(): void {
    this.#answers = Promise.withResolvers();
  }

  override async *get(key: ObjectKey, options: GetOptions): ByteStream {
    this.waitingCount += 1;
    await this.#answers.promise;
    this.waitingCount -= 1;
    yield* super.get(key, options);
  }
}

test("recovery goes through all that is ahead while the store says nothing (P14)", async () => {
  const { control, systemId } = await recordWal({ segmentCount: 1 });
  const numbers = Array.from({ length: AHEAD * (ROUNDS + 1) + 1 }, (_, index) => BigInt(index + 1));
  const segments = numbers.map((number) => formatSegmentName(1, number, SEGMENT_BYTES));
  const wal = { control, systemId, segments, segmentBytes: SEGMENT_BYTES, files: NONE };
  await using rig = await Prefetching.open(wal);
  for (const firstSegment of numbers) {
    const records = [{ dataBytes: 1000 }, SWITCH];
    const written = writeWal({ firstSegment, records, systemId, magic: PG17_MAGIC });
    for (const { name, bytes } of written.segments) {
      await rig.bench.put(`wal_005/${name}.zst`, await rig.bench.compress("zstd", bytes));
    }
  }
  await rig.fetchFirst();
  const store = new SilentStore(rig.bench.memory);
  store.answer();
  rig.start({ aheadMax: AHEAD, openStorage: async () => store });

  for (let round = 0; round < ROUNDS; round += 1) {
    const ready = segments.slice(1 + round * AHEAD, 1 + (round + 1) * AHEAD);
    await rig.untilFound(ready);
    store.fallSilent();
    for (const name of ready) {
      const path = join(rig.spool.prefetch, RECOVERY, name);
      await rename(path, join(rig.data, "pg_wal", "RECOVERYXLOG"));
    }
    await until("several are under way", () => store.waitingCount >= 2);
    store.answer();
  }
  await rig.untilFound(segments.slice(-AHEAD));
  const gets = store.calls.filter((call) => call.startsWith("get"));
  assert.deepEqual(
    gets.toSorted(),
    segments.slice(1).map((name) => `get wal_005/${name}.zst`),
  );
});
