import assert from "node:assert/strict";
import { test } from "node:test";
import { deleteCommand } from "../../src/commands/delete.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { backupFolder, mergeClaimKey, parseSentinelKey, partKey } from "../../src/layout/keys.ts";
import { runCommand } from "../support/command-run.ts";
import { objectsOf, segmentName, storageOf, type WorldBackup } from "./world.ts";

const HOUR_MS = 3_600_000;
const FIRST_MS = Date.UTC(2026, 9, 1);

function backup(segment: number, base?: WorldBackup): WorldBackup {
  const startMs = FIRST_MS + segment * HOUR_MS;
  const suffix = base === undefined ? "" : `_D_${segmentName(1, base.segment)}`;
  return {
    name: `base_${segmentName(1, segment)}${suffix}`,
    timeline: 1,
    segment,
    lastSegment: segment,
    base: base?.name,
    startMs,
    finishMs: startMs + HOUR_MS / 2,
    isPermanent: false,
    corruptPages: 0,
    hasControl: true,
    isSentinelThere: true,
  };
}

const TIMELINE = {
  id: 1,
  parent: 0,
  forkSegment: 1,
  endSegment: 100,
  holes: [],
  hasHistory: false,
};

test("a merged backup is the newer one: its chain goes first", async () => {
  const full = backup(10);
  const increment = backup(20, full);
  const backups = [full, increment, { ...backup(20), startMs: increment.startMs }];
  for (const words of [
    ["retain", "1"],
    ["retain", "FULL", "1"],
    ["before", backup(20).name],
  ]) {
    const storage = await storageOf(objectsOf({ timelines: [TIMELINE], backups }));
    await runCommand(deleteCommand, storage, [...words, "--confirm"]);
    const listed = storage.keys.flatMap((key) => parseSentinelKey(key) ?? []);
    assert.deepEqual(listed, [backup(20).name], words.join(" "));
  }
});

test("a merge that may be running stays, with its chain, until its claim is old", async () => {
  const full = backup(10);
  const backups = [full, backup(20, full), backup(30)];
  const merged = backup(20).name;
  const signal = AbortSignal.timeout(120_000);
  const now = systemClock.now();
  for (const [hours, stays] of [
    [1, true],
    [25, false],
  ] as const) {
    const storage = await storageOf(objectsOf({ timelines: [TIMELINE], backups }));
    const claim = mergeClaimKey(merged, now - hours * HOUR_MS, "0123456789abcdef");
    for (const key of [claim, partKey(merged, 1, "zst")]) {
      await storage.put(key, bytesSource(Buffer.from("{}")), { signal });
    }
    await runCommand(deleteCommand, storage, ["retain", "1", "--confirm"]);
    await runCommand(deleteCommand, storage, ["garbage", "--confirm"]);
    const listed = storage.keys.flatMap((key) => parseSentinelKey(key) ?? []);
    const wanted = backups.map(({ name }) => name);
    assert.deepEqual(listed.toSorted(), stays ? wanted.toSorted() : wanted.slice(2));
    const left = storage.keys.filter((key) => key.startsWith(backupFolder(merged)));
    assert.equal(left.length, stays ? 2 : 0);
    const wal = storage.keys.filter((key) => key.startsWith("wal_005/"));
    assert.equal(wal.includes(`wal_005/${segmentName(1, 20)}.zst`), stays);
  }
});
