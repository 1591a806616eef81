import assert from "node:assert/strict";
import { test } from "node:test";
import { backupList } from "../../src/commands/backup-list.ts";
import { backupMark } from "../../src/commands/backup-mark.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { metadataKey, sentinelKey } from "../../src/layout/keys.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { runCommand } from "../support/command-run.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import type { MemoryStorage } from "../support/memory-storage.ts";
import { objectsOf, segmentName, storageOf, type WorldBackup } from "../retention/world.ts";

const signal = AbortSignal.timeout(60_000);
const FULL = `base_${segmentName(1, 10)}`;
const MIDDLE = `base_${segmentName(1, 20)}_D_${segmentName(1, 10)}`;
const LAST = `base_${segmentName(1, 30)}_D_${segmentName(1, 20)}`;

async function chain(): Promise<MemoryStorage> {
  const backups = [FULL, MIDDLE, LAST].map((name, index): WorldBackup => {
    const startMs = Date.UTC(2026, 9, 1 + index);
    return {
      name,
      timeline: 1,
      segment: 10 + 10 * index,
      lastSegment: 10 + 10 * index,
      base: [undefined, FULL, MIDDLE][index],
      startMs,
      finishMs: startMs + 1000,
      isPermanent: false,
      corruptPages: 0,
      hasControl: true,
      isSentinelThere: true,
    };
  });
  return await storageOf(objectsOf({ timelines: [], backups }));
}

const mark = (storage: Storage, ...words: readonly string[]) =>
  runCommand(backupMark, storage, words);

/** The last field of `backup-list --detail`, oldest first. */
async function marks(storage: Storage): Promise<readonly string[]> {
  const { stdout } = await runCommand(backupList, storage, ["--detail"]);
  return stdout
    .trimEnd()
    .split("\n")
    .slice(1)
    .map((line) => line.split(/ +/).at(-1) ?? "");
}

test("a permanent increment makes its chain permanent; a second time is no failure", async () => {
  const storage = await chain();
  await mark(storage, MIDDLE);
  assert.deepEqual(await marks(storage), ["true", "true", "false"]);
  const { log } = await mark(storage, MIDDLE);
  assert.match(log[0] ?? "", /^warning: backup is permanent already/);
  await mark(storage, "LATEST");
  assert.deepEqual(await marks(storage), ["true", "true", "true"]);
});

test("impermanent is the named one only, and never below a permanent increment", async () => {
  const storage = await chain();
  await mark(storage, LAST);
  await assert.rejects(mark(storage, FULL, "-i"), {
    message: `Can't mark backup '${FULL}' as impermanent. There is permanent increment backup that depends on this backup.`,
    hint: `Nothing was changed. Begin with \`walnut backup-mark --impermanent ${LAST}\`.`,
  });
  assert.deepEqual(await marks(storage), ["true", "true", "true"]);
  await mark(storage, "LATEST", "--impermanent");
  assert.deepEqual(await marks(storage), ["true", "true", "false"]);
  await mark(storage, MIDDLE, "-i");
  await mark(storage, FULL, "-i");
  assert.deepEqual(await marks(storage), ["false", "false", "false"]);
});

test("nothing but the mark changes, not even what we do not know", async () => {
  const storage = await chain();
  const before = storage.bytesOf(metadataKey(FULL))?.toString() ?? "";
  const text = before.replace("{", '{"of_tomorrow":{"b":18446744073709551615,"a":1.50},');
  await storage.put(metadataKey(FULL), bytesSource(Buffer.from(text)), { signal });
  await mark(storage, FULL);
  assert.equal(
    storage.bytesOf(metadataKey(FULL))?.toString(),
    text.replace('"is_permanent":false', '"is_permanent":true'),
  );
  await mark(storage, FULL, "-i");
  assert.equal(storage.bytesOf(metadataKey(FULL))?.toString(), text);
});

test("a kill at any write leaves no permanent increment on an impermanent base", async () => {
  for (let call = 1; call <= 3; call += 1) {
    const inner = await chain();
    const error = new Error("killed");
    const storage = new FaultyStorage(inner).fault("put", call, { kind: "fail", error });
    await assert.rejects(mark(storage, LAST), { message: "killed" });
    const found = await marks(inner);
    assert.deepEqual(found, found.toSorted().toReversed());
    await mark(inner, LAST);
    assert.deepEqual(await marks(inner), ["true", "true", "true"]);
  }
});

test("refuses what it can't do whole: a missing base, no metadata, a backup that went", async () => {
  const storage = await chain();
  await storage.delete([sentinelKey(FULL)], { signal });
  await assert.rejects(mark(storage, LAST), {
    name: "RefusedError",
    message: /its base .* does not exist$/,
  });
  assert.deepEqual(await marks(storage), ["false", "false"]);

  const without = await chain();
  await without.delete([metadataKey(FULL)], { signal });
  await assert.rejects(mark(without, LAST), {
    message: /has no metadata\.json, which holds the mark$/,
  });

  const inner = await chain();
  const racing = new FaultyStorage(inner).fault("put", 1, {
    kind: "before",
    run: () => inner.delete([sentinelKey(FULL)], { signal }),
  });
  await assert.rejects(mark(racing, FULL), { message: /was removed while it was marked$/ });
});
