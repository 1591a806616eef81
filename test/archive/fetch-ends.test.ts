/** What must not be taken for the end of the archive, though no later segment of its timeline tells. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { formatIdentity } from "../../src/layout/identity.ts";
import { lsn, formatLsn } from "../../src/postgres/lsn.ts";
import { parsePgControl } from "../../src/postgres/pg-control.ts";
import { formatSegmentName, segmentStart } from "../../src/postgres/wal-file.ts";
import { changeControl } from "../support/control-file.ts";
import { recordWal } from "../support/real-wal.ts";
import { writeWal } from "../support/wal-writer.ts";
import { openWorkbench, type Workbench } from "./workbench.ts";

const cut = writeWal({ records: Array.from({ length: 100 }, () => ({ dataBytes: 3000 })) });
const [segment] = cut.segments;
const endOfRecords = cut.records.at(-1)?.next ?? 0;
if (segment === undefined || cut.segments.length > 1) throw new Error("not one segment");
const { name: cutName, bytes: cutBytes } = segment;
const cutStart = segmentStart(1n, cutBytes.length);
const later = `wal_005/${formatSegmentName(1, 3n, cutBytes.length)}.zst`;

async function fetchCut(bench: Workbench, changes = {}): Promise<Buffer> {
  const destination = join(bench.directory, "RECOVERYXLOG");
  await rm(destination, { force: true });
  try {
    await bench.fetch(cutName, destination, changes);
  } catch (error) {
    assert.ok(!existsSync(destination));
    throw error;
  }
  return await readFile(destination);
}

async function putCut(bench: Workbench, method: "zstd" | "none" = "zstd"): Promise<void> {
  const extension = method === "none" ? "" : ".zst";
  await bench.put(`wal_005/${cutName}${extension}`, await bench.compress(method, cutBytes));
}

test("a segment whose records break off may be the last one", async () => {
  await using bench = await openWorkbench();
  await putCut(bench);
  assert.ok((await fetchCut(bench)).equals(cutBytes));
});

test("with later WAL of its timeline it is damaged, unless recovery is to end there", async () => {
  await using bench = await openWorkbench();
  await putCut(bench);
  await bench.put(later, Buffer.from("behind it"));
  const damaged = {
    name: "DamagedError",
    message: new RegExp(
      `records of WAL segment ${cutName} break off after byte ${endOfRecords}: ` +
        `.*; there is later WAL of its timeline: ${later}$`,
    ),
    hint: /WALNUT_FETCH_END_AT_HOLE/,
  };
  await assert.rejects(fetchCut(bench), damaged);
  assert.ok((await fetchCut(bench, { canEndAtHole: true })).equals(cutBytes));
});

test("a timeline that left behind its records proves that there was more, one before does not", async () => {
  await using bench = await openWorkbench();
  await putCut(bench);
  const leave = async (bytes: number) => {
    const text = `1\t${formatLsn(lsn(cutStart + BigInt(bytes)))}\tpromoted\n`;
    await bench.put("wal_005/00000002.history", Buffer.from(text));
  };
  for (const bytes of [1000, endOfRecords]) {
    await leave(bytes);
    assert.ok((await fetchCut(bench)).equals(cutBytes));
  }
  await leave(endOfRecords + 8);
  await assert.rejects(fetchCut(bench), {
    message: /; timeline 2 has left its timeline at .* only$/,
  });
});

test("of a compression without checksum it is damaged in any case", async () => {
  await using bench = await openWorkbench();
  await putCut(bench, "none");
  await assert.rejects(fetchCut(bench), { name: "DamagedError" });
});

const wal = await recordWal();
const { walSegmentBytes } = parsePgControl(wal.control);
const named = (timeline: number, number: number) =>
  formatSegmentName(timeline, BigInt(number), walSegmentBytes);
const absent = { name: "NotInArchiveError" };

async function openServer(): Promise<Workbench> {
  const bench = await openWorkbench();
  await mkdir(join(bench.directory, "pg_wal"));
  await bench.file("global/pg_control", changeControl(wal.control, { timeline: 1 }));
  await bench.put("walnut_005/cluster.json", Buffer.from("{}"));
  return bench;
}

const ask = (bench: Workbench, name: string, changes = {}) =>
  bench.fetch(name, join(bench.directory, "pg_wal", "RECOVERYXLOG"), changes);

/** Where timeline 1 was left. */
async function leaveAt(bench: Workbench, timeline: number, end: bigint): Promise<void> {
  const name = `wal_005/0000000${timeline}.history`;
  await bench.put(name, Buffer.from(`1\t${formatLsn(lsn(end))}\tpromoted\n`));
}

test("a segment from before a fork is missing, though its timeline has none behind it (P08)", async () => {
  await using bench = await openServer();
  const fork = segmentStart(12n, walSegmentBytes);
  await leaveAt(bench, 2, fork + 4096n);
  // Nothing of timeline 2 is there that was written behind the hole.
  await assert.rejects(ask(bench, named(1, 9)), absent);
  const first = `wal_005/${named(2, 12)}.zst`;
  await bench.put(first, Buffer.from("behind the fork"));
  const refused = {
    name: "RefusedError",
    message: new RegExp(
      `${named(1, 9)} is not in .*, but WAL of a timeline that left .*: ${first}$`,
    ),
    hint: /backfill.*WALNUT_FETCH_END_AT_HOLE/s,
  };
  await assert.rejects(ask(bench, named(1, 9)), refused);
  await assert.rejects(ask(bench, named(1, 9), { canEndAtHole: true }), absent);
  // What holds the fork need not be there, nor what is behind it.
  for (const number of [12, 13]) await assert.rejects(ask(bench, named(1, number)), absent);
  // A fork between two segments: the one before it was full.
  await leaveAt(bench, 2, fork);
  await assert.rejects(ask(bench, named(1, 11)), { name: "RefusedError" });
  await assert.rejects(ask(bench, named(1, 12)), absent);
});

test("a hole that ends with a backup was made by retention, also before a fork", async () => {
  await using bench = await openServer();
  await leaveAt(bench, 2, segmentStart(12n, walSegmentBytes));
  await leaveAt(bench, 3, segmentStart(12n, walSegmentBytes));
  await bench.put(`wal_005/${named(2, 30)}.zst`, Buffer.from("of the backup"));
  await bench.put(`wal_005/${named(3, 40)}.zst`, Buffer.from("behind it"));
  await assert.rejects(ask(bench, named(1, 9)), { name: "RefusedError" });
  await bench.put(`basebackups_005/base_${named(2, 30)}/metadata.json`, Buffer.from("{}"));
  await assert.rejects(ask(bench, named(1, 9)), absent);
});

test("a history that is missing before a newer one is no end of timelines (P07)", async () => {
  await using bench = await openServer();
  await leaveAt(bench, 3, 0x100_0000n);
  const name = "00000002.history";
  await assert.rejects(ask(bench, name), {
    name: "RefusedError",
    message: `${name} is not in the archive memory://test, but 00000003.history is`,
    hint: /backfill.*recovery_target_timeline = '3'.*WALNUT_FETCH_END_AT_HOLE/s,
  });
  await assert.rejects(ask(bench, name, { canEndAtHole: true }), absent);
  await assert.rejects(ask(bench, "00000004.history"), absent);
  // A timeline that this server can't get to hides nothing.
  await bench.put("wal_005/00000003.history", Buffer.from("2\t0/1000000\tpromoted\n"));
  await assert.rejects(ask(bench, name), absent);
});

test("the end of another cluster's repository is no end of this one's", async () => {
  await using bench = await openServer();
  const { systemId } = parsePgControl(wal.control);
  const own = (id: bigint) => bench.put("walnut_005/cluster.json", Buffer.from(formatIdentity(id)));
  await own(systemId);
  await assert.rejects(ask(bench, named(1, 9)), absent);
  await own(systemId + 1n);
  await assert.rejects(ask(bench, named(1, 9)), {
    name: "WrongClusterError",
    message:
      `memory://test is the repository of cluster ${systemId + 1n}, ` +
      `the data directory is of cluster ${systemId}`,
    hint: /correct its prefix/,
  });
});
