import assert from "node:assert/strict";
import { test } from "node:test";
import { deleteCommand } from "../../src/commands/delete.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { backupFolder, mergeClaimKey, parseSentinelKey, partKey } from "../../src/layout/keys.ts";
import { runCommand } from "../support/command-run.ts";
import { HOUR_MS, nameOf, repository } from "./one-timeline.ts";
import { segmentName } from "./world.ts";

const FULL = { segment: 10 };
const INCREMENT = { segment: 20, base: 10 };
const MERGED = { segment: 20 };

test("a merged backup is the newer one: its chain goes first", async () => {
  for (const words of [
    ["retain", "1"],
    ["retain", "FULL", "1"],
    ["before", nameOf(MERGED)],
  ]) {
    const storage = await repository(FULL, INCREMENT, MERGED);
    await runCommand(deleteCommand, storage, [...words, "--confirm"]);
    const listed = storage.keys.flatMap((key) => parseSentinelKey(key) ?? []);
    assert.deepEqual(listed, [nameOf(MERGED)], words.join(" "));
  }
});

test("a merge that may be running stays, with its chain, until its claim is old", async () => {
  const backups = [FULL, INCREMENT, { segment: 30 }];
  const merged = nameOf(MERGED);
  const signal = AbortSignal.timeout(120_000);
  const now = systemClock.now();
  for (const [hours, stays] of [
    [1, true],
    [25, false],
  ] as const) {
    const storage = await repository(...backups);
    const claim = mergeClaimKey(merged, now - hours * HOUR_MS, "0123456789abcdef");
    for (const key of [claim, partKey(merged, 1, "zst")]) {
      await storage.put(key, bytesSource(Buffer.from("{}")), { signal });
    }
    await runCommand(deleteCommand, storage, ["retain", "1", "--confirm"]);
    await runCommand(deleteCommand, storage, ["garbage", "--confirm"]);
    const listed = storage.keys.flatMap((key) => parseSentinelKey(key) ?? []);
    const wanted = backups.map(nameOf);
    assert.deepEqual(listed.toSorted(), stays ? wanted.toSorted() : wanted.slice(2));
    const left = storage.keys.filter((key) => key.startsWith(backupFolder(merged)));
    assert.equal(left.length, stays ? 2 : 0);
    const wal = storage.keys.filter((key) => key.startsWith("wal_005/"));
    assert.equal(wal.includes(`wal_005/${segmentName(1, 20)}.zst`), stays);
  }
});
