import assert from "node:assert/strict";
import { test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { type ReceiverState, summarizeRepository } from "../../src/catalogue/repository-info.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { info } from "../../src/commands/info.ts";
import { timeline } from "../../src/commands/timeline.ts";
import { verify } from "../../src/commands/verify.ts";
import { walShow } from "../../src/commands/wal-show.ts";
import { systemClock } from "../../src/io/clock.ts";
import { gapKey, QUARANTINE_FOLDER } from "../../src/layout/keys.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { timeNsOf } from "../../src/layout/time.ts";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { runCommand } from "../support/command-run.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { seededRandom } from "../support/random.ts";
import { putSyntheticRepository } from "../support/synthetic-repository.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";

test("info tells of WAL-G's repository to when it goes", async () => {
  await using fixture = await unpackWalgFixture("timelines");
  await using storage = new DirectoryStorage(fixture.repository, systemClock);
  const { stdout } = await runCommand(info, storage, ["--offline", "--json"]);
  const shown = JSON.parse(stdout);
  assert.deepEqual(
    [shown.schema, shown.cluster.timeline, shown.backup_count, shown.last_segment, shown.server],
    [1, 2, 2, "000000020000000000000008", null],
  );
  assert.equal(shown.restorable_to.lsn, "0/7013CA0");
  const { stdout: text } = await runCommand(info, storage, ["--offline"]);
  assert.match(text, /^restorable to\s+0\/7013CA0, 2026-11-21T04:53:30/m);
});

test("a primary on an older timeline than the archive's was left behind", async () => {
  await using fixture = await unpackWalgFixture("timelines");
  await using storage = new DirectoryStorage(fixture.repository, systemClock);
  const signal = AbortSignal.timeout(60_000);
  const catalogue = await readCatalogue(storage, { signal });
  const view = walView(catalogue);
  const server = {
    systemId: catalogue.backups[0]?.systemId ?? 0n,
    versionNumber: 180_000,
    lsn: parseLsn("0/7013CA0"),
    isArchiving: true,
    lastFailedWal: undefined,
    lastFailedAt: undefined,
    isArchiverFailing: false,
  };
  const summarize = (change: { timeline: number; isInRecovery: boolean; systemId?: bigint }) =>
    summarizeRepository({
      catalogue,
      owner: server.systemId,
      view,
      report: { ...view, storageName: "", systemId: undefined, timelines: [], plans: [] },
      collisions: [],
      server: { ...server, ...change },
      nowNs: timeNsOf(systemClock.now()),
    });
  const codesFor = (change: { timeline: number; isInRecovery: boolean }) =>
    summarize(change).warnings.map(({ code }) => code);
  const isLeft = (timeline: number, isInRecovery: boolean) =>
    codesFor({ timeline, isInRecovery }).includes("left-behind");
  assert.deepEqual(
    [isLeft(1, false), isLeft(2, false), isLeft(3, false), isLeft(1, true)],
    [true, false, false, false],
  );
  // What another cluster has written is nothing that this archive lacks.
  const current = { timeline: 3, isInRecovery: false };
  assert.notEqual(summarize(current).lagBytes, undefined);
  const other = summarize({ ...current, systemId: server.systemId + 1n });
  assert.equal(other.lagBytes, undefined);
  assert.ok(other.warnings.some(({ code }) => code === "wrong-cluster"));
});

test("wal-receive counts: as an archiver, for the lag, and as what keeps WAL", async () => {
  const { signal } = new AbortController();
  const storage = new MemoryStorage();
  for (const name of ["000000010000000000000004", "000000010000000000000005.partial"]) {
    await storage.put(`wal_005/${name}`, bytesSource(Buffer.alloc(8192, 1)), { signal });
  }
  const catalogue = await readCatalogue(storage, { signal });
  const view = walView(catalogue);
  const infoWith = (receiver: ReceiverState | undefined) =>
    summarizeRepository({
      catalogue,
      owner: undefined,
      view,
      report: { ...view, storageName: "", systemId: undefined, timelines: [], plans: [] },
      collisions: [],
      server: {
        systemId: 1n,
        versionNumber: 180_000,
        timeline: 1,
        lsn: parseLsn("0/5000100"),
        isInRecovery: false,
        isArchiving: false,
        receiver,
        lastFailedWal: undefined,
        lastFailedAt: undefined,
        isArchiverFailing: false,
      },
      nowNs: timeNsOf(systemClock.now()),
    });
  const slot = {
    slot: "walg",
    isReceiving: true,
    isLost: false,
    restartLsn: parseLsn("0/4000000"),
    storedLsn: parseLsn("0/50000F0"),
  };
  const seen = (receiver: ReceiverState | undefined) => {
    const { lagBytes, warnings } = infoWith(receiver);
    return [lagBytes, ...warnings.slice(2).map(({ code }) => code)];
  };
  assert.deepEqual(seen(undefined), [0x100, "archiver-off"]);
  assert.deepEqual(seen(slot), [0x10]);
  // What is stored elsewhere does not count here.
  assert.deepEqual(seen({ ...slot, storedLsn: parseLsn("0/3000000") }), [0x100]);
  const away = { ...slot, isReceiving: false, storedLsn: undefined };
  assert.deepEqual(seen(away), [0x100, "receiver-away", "archiver-off"]);
  assert.match(
    infoWith(away).warnings.at(-2)?.text ?? "",
    /walg, which keeps 16\.0 MiB of WAL: start/,
  );
  assert.deepEqual(seen({ ...away, isLost: true }), [0x100, "receiver-lost", "archiver-off"]);
});

test("info warns of what somebody should look at", async () => {
  const random = seededRandom();
  const storage = await putSyntheticRepository(random);
  const signal = AbortSignal.timeout(60_000);
  const lost = storage.keys.filter((key) => key.includes("000000010000000000000022"));
  await storage.delete(
    lost.filter((key) => key.startsWith("wal_005/")),
    { signal },
  );
  const gap = gapKey("000000010000000000000022");
  await storage.put(gap, bytesSource(Buffer.from("{}")), { signal });
  const { stdout } = await runCommand(info, storage, ["--offline", "--json"]);
  const codes = JSON.parse(stdout).warnings.map(({ code }: { code: string }) => code);
  assert.deepEqual(new Set(codes), new Set(["old-backup", "broken-backup", "hole"]));
  assert.match(stdout, /1 of them given up by the queue policy/);

  const behind = storage.keys.filter((key) => /base_0{7}10{14}2[34]_.*sentinel/.test(key));
  assert.equal(behind.length, 2);
  await storage.delete(behind, { signal });
  const uncovered = await runCommand(info, storage, ["--offline"]);
  assert.match(
    uncovered.stdout,
    /WARNING: no backup begins behind 000000010000000000000022.*backup-push --full/,
  );
});

test("info of an empty place says so", async () => {
  const { stdout } = await runCommand(info, new MemoryStorage(), ["--offline"]);
  assert.match(stdout, /^last backup\s+none$/m);
  assert.match(stdout, /WARNING: there is no backup and no WAL: is .* its file system mounted\?$/m);
  assert.match(stdout, /WARNING: nothing can be restored/);
});

test("info counts what is in quarantine, and reads a few of its notes", async () => {
  const storage = new MemoryStorage();
  const { signal } = new AbortController();
  for (const number of [1, 2, 3, 4, 5, 6, 7]) {
    const key = `walnut_005/quarantine/00000001000000000000000${number}/0123456789abcdef`;
    const note = number === 1 ? "no note" : '{"wal":"x","pushed_by":"b","system_identifier":7}';
    await storage.put(`${key}.json`, bytesSource(Buffer.from(note)), { signal });
    await storage.put(`${key}.zst`, bytesSource(Buffer.of(1)), { signal });
  }
  const { stdout } = await runCommand(info, storage, ["--offline", "--json"]);
  const texts = JSON.parse(stdout)
    .warnings.filter(({ code }: { code: string }) => code === "collision")
    .map(({ text }: { text: string }) => text);
  assert.equal(texts.length, 5);
  assert.match(texts[0], /^two different .*0002 .*brought from cluster 7 by b\): .*0002\/.*json$/);
  assert.match(texts[4], /^3 more files in walnut_005\/quarantine/);
});

test("wal-show, timeline and verify tell of quarantine, and verify reads what is in it", async () => {
  const storage = await putSyntheticRepository(seededRandom());
  const { signal } = new AbortController();
  const wal = "000000010000000000000022";
  const key = `${QUARANTINE_FOLDER}${wal}/0123456789abcdef`;
  const note = `{"wal":"${wal}","pushed_by":"b","system_identifier":7}`;
  await storage.put(`${key}.json`, bytesSource(Buffer.from(note)), { signal });
  await storage.put(key, bytesSource(Buffer.from("its content")), { signal });
  const told = new RegExp(`two different ${wal} were brought .* see ${key}.json`);
  for (const { log } of [
    await runCommand(walShow, storage, []),
    await runCommand(timeline, storage, []),
  ]) {
    const warning = log.find((line) => told.test(line)) ?? "";
    assert.match(warning, new RegExp(`walnut st rm ${QUARANTINE_FOLDER}${wal}/`));
  }
  const { stdout } = await runCommand(verify, storage, ["--full"]);
  assert.match(stdout, told);
  assert.match(stdout, /: OK\n$/, "no fault of the archive");
  await storage.put(`${key}.zst`, bytesSource(Buffer.from("no zstd")), { signal });
  await assert.rejects(runCommand(verify, storage, ["--full"]), { name: "UnsoundError" });
});
