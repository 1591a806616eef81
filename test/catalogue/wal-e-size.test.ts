import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { deleteCommand } from "../../src/commands/delete.ts";
import { expire } from "../../src/commands/expire.ts";
import { timeline } from "../../src/commands/timeline.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { runCommand } from "../support/command-run.ts";
import type { MemoryStorage } from "../support/memory-storage.ts";
import { segmentName, storageOf } from "../retention/world.ts";

const signal = AbortSignal.timeout(60_000);
const MIB = 1024 * 1024;
const BACKUPS = ["0000000100000000000000FE_00000040", "000000010000000100000008_00A00028"];
const retention = { ...defaultConfig({ cpuCount: 2 }).retention, fullCount: 1 };

/** As WAL-E leaves it: what its sentinel tells is where the backup ended, in its own words. */
async function walE({
  segments = Array.from({ length: 40 }, (_, index) => 250 + index),
  backups = BACKUPS,
  more = {},
}: {
  readonly segments?: readonly number[];
  readonly backups?: readonly string[];
  readonly more?: Readonly<Record<string, string>>;
} = {}): Promise<MemoryStorage> {
  const objects = new Map<string, string>(Object.entries(more));
  for (const segment of segments) objects.set(`wal_005/${segmentName(1, segment)}.lzo`, "lzo");
  for (const one of backups) {
    const name = `base_${one}`;
    objects.set(
      `basebackups_005/${name}_backup_stop_sentinel.json`,
      '{"wal_segment_backup_stop":"x","wal_segment_offset_backup_stop":"00000100",' +
        '"expanded_size_bytes":12,"spec":{"base_prefix":"/d","tablespaces":[]}}',
    );
    objects.set(`basebackups_005/${name}/tar_partitions/part_00000000.tar.lzo`, "lzo");
  }
  return await storageOf(objects);
}

const sizeIn = async (storage: MemoryStorage) =>
  (await readCatalogue(storage, { signal })).segmentBytes;

describe("a repository of WAL-E alone", () => {
  test("has segments of 16 MiB, and retention for them", async () => {
    const storage = await walE({ backups: BACKUPS });
    assert.equal(await sizeIn(storage), 16 * MIB);
    const { stdout } = await runCommand(timeline, storage, []);
    assert.match(stdout, /^ {2}base_000000010000000100000008_00A00028 +full/m);
    await runCommand(expire, storage, ["--confirm"], { retention });
    const left = storage.keys.filter((key) => key.startsWith("wal_005/"));
    assert.equal(left[0], `wal_005/${segmentName(1, 256 + 8)}.lzo`, "from its start on");
    assert.equal(left.length, 250 + 40 - (256 + 8));
    assert.deepEqual(
      storage.keys.filter((key) => key.includes("_sentinel")),
      [`basebackups_005/base_${BACKUPS[1]}_backup_stop_sentinel.json`],
    );
  });

  const others = {
    "a number beyond 255": { more: { [`wal_005/0000000100000000000001FF.lzo`]: "x" } },
    "an offset beyond 16 MiB": { backups: [...BACKUPS, "000000010000000100000009_01000028"] },
    "a count that is full at 64": {
      backups: ["00000001000000000000003E_00000028"],
      segments: [62, 63, 256, 257],
    },
    "a fork in another segment": {
      backups: BACKUPS,
      more: {
        // At 50 MiB: segment 3 of 16 MiB, and 50 of 1 MiB.
        "wal_005/00000002.history": "1\t0/3200000\tx\n",
        "wal_005/000000020000000000000032.lzo": "x",
      },
    },
    "a backup of WAL-G that tells nothing": { backups: [...BACKUPS, "000000010000000100000009"] },
  };
  for (const [what, world] of Object.entries(others)) {
    test(`is refused where ${what} speaks of another size`, async () => {
      const storage = await walE({ backups: BACKUPS, ...world });
      assert.equal(await sizeIn(storage), undefined);
      const before = storage.keys;
      await assert.rejects(runCommand(deleteCommand, storage, ["retain", "1", "--confirm"]), {
        message: /the size of the WAL segments .* can't be found out/,
        hint: /Nothing was removed\.$/,
      });
      assert.deepEqual(storage.keys, before);
    });
  }

  test("has histories that fit, also where the segments at the fork were removed", async () => {
    const history = { "wal_005/00000002.history": "1\t0/4000060\tx\n" };
    const fork = { ...history, "wal_005/000000020000000000000004.lzo": "x" };
    const backups = ["000000010000000000000002_00000028"];
    const segments = [2, 3];
    assert.equal(await sizeIn(await walE({ backups, segments, more: fork })), 16 * MIB);
    const later = { ...history, "wal_005/000000020000000000000009.lzo": "x" };
    assert.equal(await sizeIn(await walE({ backups, segments, more: later })), 16 * MIB);
    assert.equal(
      await sizeIn(await walE({ backups, segments: [2, 3, 8], more: later })),
      undefined,
    );
  });
});
