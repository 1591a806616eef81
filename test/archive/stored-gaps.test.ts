import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Gap, recordGap, shipGaps } from "../../src/archive/gaps.ts";
import { firstGapFrom, isGivenUp, listOpenGaps } from "../../src/archive/stored-gaps.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import type { Log, LogFields } from "../../src/io/log.ts";
import { silentLog } from "../../src/io/log.ts";
import { gapKey } from "../../src/layout/keys.ts";
import { warnOfGapBehind, warnOfGaps } from "../../src/commands/gap-warnings.ts";
import { openWorkbench } from "./workbench.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const { signal } = new AbortController();
const segment = (timeline: number, number: number) =>
  `0000000${timeline}00000000${number.toString(16).toUpperCase().padStart(8, "0")}`;

async function archive(gaps: readonly string[], stored: readonly string[] = []) {
  const storage = new MemoryStorage();
  for (const name of gaps)
    await storage.put(gapKey(name), bytesSource(Buffer.from("{}")), { signal });
  for (const name of stored) {
    await storage.put(`wal_005/${name}`, bytesSource(Buffer.from("x")), { signal });
  }
  return storage;
}

test("a gap is open until its segment is in the archive, in whatever form", async () => {
  const gaps = [segment(1, 7), segment(1, 8), segment(1, 9), segment(2, 9)];
  const storage = await archive(gaps, [`${segment(1, 7)}.zst`, segment(2, 9), segment(1, 200)]);
  await storage.put(`wal_005/${segment(1, 8)}.lz4`, bytesSource(Buffer.of()), { signal });
  assert.deepEqual(await listOpenGaps(storage, { signal }), [segment(1, 8), segment(1, 9)]);
  assert.equal(await isGivenUp(storage, segment(1, 8), { signal }), true);
  assert.equal(await isGivenUp(storage, segment(1, 1), { signal }), false);
  assert.equal(await isGivenUp(storage, "00000002.history", { signal }), false);
});

test("unknown objects beside the gaps are none", async () => {
  const storage = await archive([]);
  for (const key of ["walnut_005/gaps/x.json", `walnut_005/gaps/${segment(1, 1)}.txt`]) {
    await storage.put(key, bytesSource(Buffer.from("{}")), { signal });
  }
  assert.deepEqual(await listOpenGaps(storage, { signal }), []);
});

test("a gap concerns the backups before it, on its timeline and on older ones", () => {
  const gaps = [segment(1, 9), segment(2, 20)];
  assert.equal(firstGapFrom(segment(1, 5), gaps), segment(1, 9));
  assert.equal(firstGapFrom(segment(1, 10), gaps), segment(2, 20));
  assert.equal(firstGapFrom(segment(2, 21), gaps), undefined);
});

function listeningLog(): Log & { readonly lines: { text: string; fields: LogFields }[] } {
  const lines: { text: string; fields: LogFields }[] = [];
  return { ...silentLog, lines, warning: (text, fields = {}) => lines.push({ text, fields }) };
}

const backups = [`base_${segment(1, 2)}`, `base_${segment(1, 5)}`, `base_${segment(1, 12)}`];
const cases = [
  { name: "none", gaps: [], affected: undefined, asks: false },
  { name: "before the newest backup", gaps: [segment(1, 9)], affected: 2, asks: false },
  { name: "behind the newest backup", gaps: [segment(1, 20)], affected: 3, asks: true },
];
for (const { name, gaps, affected, asks } of cases) {
  test(`a list of backups tells of gaps: ${name}`, async () => {
    const log = listeningLog();
    await warnOfGaps(await archive(gaps), backups, { log, signal });
    const [line] = log.lines;
    assert.equal(line?.fields["backups"], affected);
    assert.equal(line?.fields["hint"] !== undefined, asks);
  });
}

test("a restore says before it begins how far recovery will get", async () => {
  const storage = await archive([segment(1, 9)]);
  const log = listeningLog();
  await warnOfGapBehind(storage, backups[2] ?? "", { log, signal });
  assert.deepEqual(log.lines, []);
  await warnOfGapBehind(storage, backups[1] ?? "", { log, signal });
  const told: readonly { readonly fields: LogFields }[] = log.lines;
  assert.equal(told[0]?.fields["segment"], segment(1, 9));
});

test("a segment that was given up is not the end of the archive", async () => {
  await using bench = await openWorkbench();
  const [gap, end] = [segment(1, 9), segment(1, 10)];
  await bench.put(gapKey(gap), Buffer.from("{}"));
  await bench.put(`wal_005/${segment(1, 8)}`, Buffer.from("x"));
  const destination = `${bench.directory}/RECOVERYXLOG`;
  await assert.rejects(bench.fetch(gap, destination), {
    name: "RefusedError",
    message: `WAL segment ${gap} is not in the archive memory://test: it was given up while the store was away`,
  });
  await assert.rejects(bench.fetch(end, destination), { name: "NotInArchiveError" });
});

test("a segment that is missing before later ones is not the end of the archive", async () => {
  await using bench = await openWorkbench();
  const name = segment(1, 9);
  const destination = `${bench.directory}/RECOVERYXLOG`;
  const others = [
    `${segment(2, 10)}.zst`,
    `${segment(1, 8)}.zst`,
    `${name}.00000028.backup.zst`,
    `${name}_delta.zst`,
  ];
  for (const other of others) await bench.put(`wal_005/${other}`, Buffer.from("not behind it"));
  await assert.rejects(bench.fetch(name, destination), { name: "NotInArchiveError" });

  const later = `wal_005/${segment(1, 300)}.zst`;
  await bench.put(later, Buffer.from("behind it"));
  await assert.rejects(bench.fetch(name, destination), {
    name: "RefusedError",
    message: new RegExp(
      `^WAL segment ${name} is not in the archive .*, but later WAL .*: ${later}$`,
    ),
    hint: /WALNUT_FETCH_END_AT_HOLE/,
  });
  // Retention has removed what is between an old backup and the next one that is kept.
  const nextBackup = `basebackups_005/base_${segment(1, 300)}/metadata.json`;
  await bench.put(nextBackup, Buffer.from("{}"));
  await assert.rejects(bench.fetch(name, destination), { name: "NotInArchiveError" });
  await bench.memory.delete([nextBackup], { signal });

  const canEndAtHole = bench.fetch(name, destination, { canEndAtHole: true });
  await assert.rejects(canEndAtHole, { name: "NotInArchiveError" });
  await assert.rejects(bench.fetch("00000003.history", destination), { name: "NotInArchiveError" });
});

test("a record that another process has just shipped is no failure", async () => {
  await using bench = await openWorkbench();
  const names = [segment(1, 7), segment(1, 8)];
  for (const name of names) await recordGap(bench.directory, gapOf(name), { signal });
  bench.storage.interceptOnce(/gaps/, async (next) => {
    for (const name of names) await rm(join(bench.directory, `${name}.json`));
    await next();
  });
  const owner = { dataDirectory: bench.directory, serverName: "a", isBackupWanted: true };
  const shipped = await shipGaps(bench.storage, bench.directory, owner, { signal });
  assert.equal(shipped.length, 1);
});

function gapOf(name: string): Gap {
  return { name, systemId: undefined, atMs: 0, reason: "away", isCopy: true };
}

test("a history that is missing beside WAL of its timeline is no end of the archive (P07)", async () => {
  await using bench = await openWorkbench();
  const put = (name: string) => bench.put(`wal_005/${name}`, Buffer.of(1));
  const ask = (name: string, changes = {}) =>
    bench.fetch(name, join(bench.directory, "RECOVERYHISTORY"), changes);
  const absent = { name: "NotInArchiveError" };
  for (const name of [`${segment(1, 7)}.zst`, `${segment(3, 9)}.zst`]) await put(name);
  for (const name of ["00000001.history", "00000002.history"]) {
    await assert.rejects(ask(name), absent);
  }
  for (const orphan of [`${segment(2, 8)}.partial.lz4`, `${segment(2, 8)}.zst`]) {
    await put(orphan);
    await assert.rejects(ask("00000002.history"), {
      name: "RefusedError",
      message: new RegExp(
        `^00000002.history is not in .*, but WAL of its timeline is: .*${orphan}$`,
      ),
      hint: /backfill/,
    });
    await assert.rejects(ask("00000002.history", { canEndAtHole: true }), absent);
    await bench.memory.delete([`wal_005/${orphan}`], { signal });
  }
});
