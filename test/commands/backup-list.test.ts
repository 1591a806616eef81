import assert from "node:assert/strict";
import { test } from "node:test";
import { backupList } from "../../src/commands/backup-list.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { metadataKey } from "../../src/layout/keys.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { runCommand } from "../support/command-run.ts";
import { putSyntheticBackup, specialEntries } from "../support/synthetic-backup.ts";

const FIRST = "base_000000010000000000000002";
const SECOND = "base_00000001000000AB00000004_D_000000010000000000000002";

async function twoBackups(): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  for (const [name, startS] of [
    [FIRST, 1_787_335_262],
    [SECOND, 1_787_421_662],
  ] as const) {
    await putSyntheticBackup(storage, {
      name,
      entries: specialEntries(),
      style: "bare",
      sentinel: {
        pgVersion: 170_004,
        startLsn: 0xab_0400_0028n,
        finishLsn: 0xab_0400_0120n,
        startTimeNs: BigInt(startS) * 1_000_000_000n + 123_456_000n,
        finishTimeNs: BigInt(startS + 7) * 1_000_000_000n + 500_000_000n,
      },
    });
  }
  return storage;
}

const list = (storage: MemoryStorage, ...flags: string[]) =>
  runCommand(
    backupList,
    storage,
    flags.map((flag) => `--${flag}`),
  );

test("plain: a header, then name and time first, oldest first", async () => {
  assert.equal(
    (await list(await twoBackups())).stdout,
    "backup_name                                              modified             wal_file_name            storage_name\n" +
      `${FIRST.padEnd(56)} 2026-08-21T18:01:09Z 000000010000000000000002 default\n` +
      `${SECOND} 2026-08-22T18:01:09Z 00000001000000AB00000004 default\n`,
  );
});

test("plain with details: the last field is the permanence", async () => {
  const { stdout } = await list(await twoBackups(), "detail");
  const [head, first] = stdout.split("\n").map((line) => line.split(/ +/));
  assert.deepEqual(head?.slice(4), [
    "start_time",
    "finish_time",
    "hostname",
    "data_dir",
    "pg_version",
    "start_lsn",
    "finish_lsn",
    "is_permanent",
  ]);
  assert.deepEqual(first?.slice(4), [
    "2026-08-21T18:01:02Z",
    "2026-08-21T18:01:09Z",
    "host",
    "/data",
    "170004",
    "AB/4000028",
    "AB/4000120",
    "false",
  ]);
});

/** A line of the box, its cells as wide as in this test. */
function row(...cells: readonly [string, string, string, string, string]): string {
  const [number, name, time, segment, storage] = cells;
  const wide = `${name.padEnd(56)} | ${time.padEnd(32)} | ${segment.padEnd(24)}`;
  return `| ${number} | ${wide} | ${storage.padEnd(12)} |`;
}

test("pretty: a box with a running number and long times", async () => {
  const { stdout } = await list(await twoBackups(), "pretty");
  const rule = `+---+${"-".repeat(58)}+${"-".repeat(34)}+${"-".repeat(26)}+${"-".repeat(14)}+`;
  assert.deepEqual(stdout.split("\n"), [
    rule,
    row("#", "BACKUP NAME", "MODIFIED", "WAL FILE NAME", "STORAGE NAME"),
    rule,
    row("0", FIRST, "Friday, 21-Aug-26 18:01:09 UTC", "000000010000000000000002", "default"),
    row("1", SECOND, "Saturday, 22-Aug-26 18:01:09 UTC", "00000001000000AB00000004", "default"),
    rule,
    "",
  ]);
});

test("a backup without metadata has empty details, and the others are shown", async () => {
  const storage = await twoBackups();
  await storage.delete([metadataKey(FIRST)], { signal: AbortSignal.timeout(120_000) });
  const plain = await list(storage, "detail");
  const [, first, second] = plain.stdout.split("\n").map((line) => line.split(/ +/));
  assert.deepEqual(first?.slice(4), ["-", "-", "-", "-", "0", "0/0", "0/0", "false"]);
  assert.equal(second?.[6], "host");
  assert.match(plain.log.join("\n"), /warning: a backup is not wholly readable .*metadata\.json/);

  const [empty] = JSON.parse((await list(storage, "detail", "json")).stdout);
  assert.deepEqual(empty, {
    backup_name: FIRST,
    time: "2026-08-21T18:01:09.5Z",
    wal_file_name: "000000010000000000000002",
    storage_name: "default",
    start_time: "0001-01-01T00:00:00Z",
    finish_time: "0001-01-01T00:00:00Z",
    date_fmt: "",
    hostname: "",
    data_dir: "",
    pg_version: 0,
    start_lsn: 0,
    finish_lsn: 0,
    is_permanent: false,
    system_identifier: null,
    uncompressed_size: 0,
    compressed_size: 0,
  });
});

test("user data keep their digits", async () => {
  const storage = await twoBackups();
  const key = metadataKey(FIRST);
  const text = storage.bytesOf(key)?.toString() ?? "";
  const withData = text.replace(/}$/, ',"user_data":{"id":12345678901234567890}}');
  await storage.put(key, bytesSource(Buffer.from(withData)), {
    signal: AbortSignal.timeout(120_000),
  });
  const { stdout } = await list(storage, "detail", "json");
  assert.match(stdout, /"user_data":\{"id":12345678901234567890\}\}/);
});

test("without backups standard output stays empty, with --json it is an empty array", async () => {
  const storage = new MemoryStorage();
  const plain = await list(storage);
  assert.equal(plain.stdout, "");
  assert.match(plain.log.join("\n"), /No backups found/);
  assert.equal((await list(storage, "json")).stdout, "[]\n");
  assert.equal((await list(storage, "json", "pretty")).stdout, "[]\n");
});

test("--detail names how changes were found, and damage, where there is something to say", async () => {
  const storage = new MemoryStorage();
  const [full, increment] = ["base_000000010000000000000002", "base_000000010000000000000004"];
  await putSyntheticBackup(storage, { entries: specialEntries(), name: full });
  const plain = await runCommand(backupList, storage, ["--detail"]);
  assert.doesNotMatch(plain.stdout, /changes/);
  const own = { changeSource: "page-scan", isPagesVerified: true, corruptPages: 2 };
  await putSyntheticBackup(storage, {
    entries: specialEntries(),
    name: increment,
    sentinel: { own, finishTimeNs: 2_000_000_000_000_000_000n },
  });
  const { stdout } = await runCommand(backupList, storage, ["--detail"]);
  const lines = stdout.trim().split("\n");
  assert.deepEqual(
    lines.map((line) => line.trim().split(/ +/).at(-1)),
    ["changes", "-", "page-scan,corrupt=2"],
  );
  const json = await runCommand(backupList, storage, ["--detail", "--json"]);
  assert.match(json.stdout, /"changes":"page-scan","pages_verified":true,"corrupt_pages":2\}\]/);
  assert.match((await runCommand(backupList, storage, ["--detail", "--pretty"])).stdout, /CHANGES/);
});
