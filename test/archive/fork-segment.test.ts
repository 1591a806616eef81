import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { noteFork, readForkEnd, type RecoveryPlace } from "../../src/archive/fork-note.ts";
import { fetchForkSegment } from "../../src/archive/fork-segment.ts";
import { silentLog } from "../../src/io/log.ts";
import { formatLsn, lsn } from "../../src/postgres/lsn.ts";
import { parsePgControl } from "../../src/postgres/pg-control.ts";
import { formatSegmentName, segmentStart } from "../../src/postgres/wal-file.ts";
import { changeControl } from "../support/control-file.ts";
import { recordWal } from "../support/real-wal.ts";
import { writeWal } from "../support/wal-writer.ts";
import { openWorkbench, type Workbench } from "./workbench.ts";

const wal = await recordWal();
const { walSegmentBytes } = parsePgControl(wal.control);
const named = (timeline: number, number: number) =>
  formatSegmentName(timeline, BigInt(number), walSegmentBytes);
const start = (number: number) => segmentStart(BigInt(number), walSegmentBytes);

/** Of a server whose last checkpoint is before both forks. */
const control = changeControl(wal.control, { timeline: 1, checkpointLsn: start(4) });

const line = (timeline: number, end: bigint) => `${timeline}\t${formatLsn(lsn(end))}\tx\n`;

/** A server that recovers towards timeline 3: 1 was left in segment 5, 2 in segment 9. */
async function openServer(bench: Workbench): Promise<RecoveryPlace> {
  await mkdir(join(bench.directory, "spool"));
  await bench.file("data/global/pg_control", control);
  const [first, second] = [line(1, start(5) + 4096n), line(2, start(9) + 4096n)];
  await bench.file("data/pg_wal/00000002.history", Buffer.from(first));
  await bench.file("data/pg_wal/00000003.history", Buffer.from(`${first}\n${second}`));
  await startAs(bench, 100);
  const queue = queueIn(join(bench.directory, "data"));
  return { queue, spool: { path: join(bench.directory, "spool") } };
}

async function startAs(bench: Workbench, pid: number): Promise<void> {
  await bench.file("data/postmaster.pid", Buffer.from(`${pid}\n/data\n1700000000\n`));
}

test("the segment of a fork ends there, once the newer timeline's was not given", async () => {
  await using bench = await openWorkbench();
  const place = await openServer(bench);
  assert.equal(await readForkEnd(place, named(1, 5)), undefined);
  await noteFork(place, named(2, 5));
  const end = { timeline: 2, startLsn: start(5), endLsn: start(5) + 4096n };
  assert.deepEqual(await readForkEnd(place, named(1, 5)), end);
  for (const other of [named(2, 5), named(3, 5), named(1, 4), named(1, 6)]) {
    assert.equal(await readForkEnd(place, other), undefined, other);
  }
  // Another start of the server may have another target.
  await startAs(bench, 101);
  assert.equal(await readForkEnd(place, named(1, 5)), undefined);
});

for (const [what, { timeline, at, isLimited }] of Object.entries({
  "before the fork": { timeline: 1, at: 4095n, isLimited: true },
  "at the fork": { timeline: 1, at: 4096n, isLimited: false },
  "behind the fork": { timeline: 1, at: 4104n, isLimited: false },
  "behind the fork, on the newer timeline": { timeline: 2, at: 4104n, isLimited: true },
})) {
  const given = isLimited ? "up to the fork" : "as it is";
  test(`recovery from a checkpoint ${what} gets the fork's segment ${given}`, async () => {
    await using bench = await openWorkbench();
    const place = await openServer(bench);
    await noteFork(place, named(2, 5));
    const checkpointLsn = start(5) + at;
    const changed = changeControl(control, { timeline, checkpointLsn });
    await bench.file("data/global/pg_control", changed);
    assert.equal((await readForkEnd(place, named(1, 5))) !== undefined, isLimited);

    // A backup says itself where its recovery begins.
    await bench.file("data/global/pg_control", control);
    const label =
      `START WAL LOCATION: ${formatLsn(start(4))} (file ${named(timeline, 4)})\n` +
      `CHECKPOINT LOCATION: ${formatLsn(lsn(checkpointLsn))}\nBACKUP METHOD: streamed\n` +
      `BACKUP FROM: primary\nSTART TIME: 2026-11-22 12:00:00 UTC\nLABEL: x\n` +
      `START TIMELINE: ${timeline}\n`;
    await bench.file("data/backup_label", Buffer.from(label));
    assert.equal((await readForkEnd(place, named(1, 5))) !== undefined, isLimited);
  });
}

test("only the segment in which a timeline begins is noted", async () => {
  await using bench = await openWorkbench();
  const place = await openServer(bench);
  for (const name of [named(1, 5), named(2, 6), named(3, 5), named(4, 5)]) {
    await noteFork(place, name);
    assert.ok(!existsSync(join(bench.directory, "spool", "fork")), name);
  }
});

test("of two timelines that begin in one segment the newer one is followed", async () => {
  await using bench = await openWorkbench();
  const place = await openServer(bench);
  const ends = line(1, start(9) + 8n) + line(2, start(9) + 4096n);
  await writeFile(join(place.queue.walDirectory, "00000003.history"), ends);
  for (const name of [named(3, 9), named(2, 9)]) await noteFork(place, name);
  const endLsns = [named(2, 9), named(1, 9)].map(async (name) => await readForkEnd(place, name));
  assert.deepEqual(await Promise.all(endLsns), [
    { timeline: 3, startLsn: start(9), endLsn: start(9) + 4096n },
    { timeline: 3, startLsn: start(9), endLsn: start(9) + 8n },
  ]);
});

const written = writeWal({ records: Array.from({ length: 200 }, () => ({ dataBytes: 3000 })) });
const [segment] = written.segments;
if (segment === undefined) throw new Error("no segment");
const { name, bytes: content } = segment;
const startLsn = segmentStart(1n, content.length);
const endOf = (record: number): number => written.records[record]?.next ?? 0;
const keptBytes = endOf(100);
const forkLsn = lsn(startLsn + BigInt(keptBytes));
const cut = Buffer.from(content).fill(0, keptBytes);
/** The old primary had not sent more. */
const early = Buffer.from(content).fill(0, endOf(50));

async function fetchCut(
  bench: Workbench,
  { endLsn = forkLsn, canEndAtHole = false } = {},
): Promise<Buffer> {
  const destination = join(bench.directory, "pg_wal", "RECOVERYXLOG");
  await mkdir(join(bench.directory, "pg_wal"), { recursive: true });
  const { signal } = bench;
  const options = { codecJobs: 1, timeoutMs: 60_000, log: silentLog, canEndAtHole, signal };
  const wanted = { name, destination, end: { timeline: 2, startLsn, endLsn } };
  await fetchForkSegment(bench.storage, wanted, options);
  return await readFile(destination);
}

async function openRepository(
  objects: Readonly<Record<string, Uint8Array>> = {},
): Promise<Workbench> {
  const bench = await openWorkbench();
  await bench.put("walnut_005/cluster.json", Buffer.from("{}"));
  for (const [suffix, bytes] of Object.entries(objects)) {
    await bench.put(`wal_005/${name}${suffix}.zst`, await bench.compress("zstd", bytes));
  }
  return bench;
}

for (const suffix of ["", ".partial"]) {
  test(`what is behind the fork is zeros: of X${suffix}`, async () => {
    await using bench = await openRepository({ [suffix]: content });
    assert.ok((await fetchCut(bench)).equals(cut));
  });
}

test("a segment may end at its fork, and not before it", async () => {
  await using bench = await openRepository({ "": cut });
  assert.ok((await fetchCut(bench)).equals(cut));
  const endLsn = lsn(forkLsn + 8n);
  await assert.rejects(fetchCut(bench, { endLsn }), {
    name: "DamagedError",
    message: new RegExp(`break off after byte ${keptBytes}: `),
  });
  assert.ok((await fetchCut(bench, { endLsn, canEndAtHole: true })).equals(cut));
});

test("an unfinished one that ends before the fork is not the end of the archive", async () => {
  await using bench = await openRepository({ ".partial": early });
  const endsAt = formatLsn(lsn(startLsn + BigInt(endOf(50))));
  await assert.rejects(fetchCut(bench), {
    name: "RefusedError",
    message: new RegExp(
      `${name} is in the archive .* up to ${endsAt} only, but timeline 2 leaves its timeline at `,
    ),
    hint: /pg_switch_wal.*WALNUT_FETCH_END_AT_HOLE=true/s,
  });
  assert.ok((await fetchCut(bench, { canEndAtHole: true })).equals(early));
  // PostgreSQL takes what it has, once it is told that there is none.
  await bench.file(`pg_wal/${name}`, content);
  await assert.rejects(fetchCut(bench), { name: "NotInArchiveError" });
});

test("of two unfinished ones the longer is taken", async () => {
  await using bench = await openRepository({ ".partial": early });
  await bench.put(`wal_005/${name}.partial.lz4`, await bench.compress("lz4", cut));
  assert.ok((await fetchCut(bench)).equals(cut));
});

test("nothing of the segment in the archive: it ends there only if nothing is missing", async () => {
  await using bench = await openRepository();
  await assert.rejects(fetchCut(bench), {
    name: "RefusedError",
    message: new RegExp(`${name} is in the archive .* not at all, but timeline 2 leaves its `),
  });
  const nothing = {
    name: "NotInArchiveError",
    message: new RegExp(`^WAL file ${name} is not in .*, and timeline 2 leaves its timeline at `),
  };
  await assert.rejects(fetchCut(bench, { endLsn: startLsn }), nothing);
  await assert.rejects(fetchCut(bench, { canEndAtHole: true }), nothing);
  await bench.file(`pg_wal/${name}`, content);
  await assert.rejects(fetchCut(bench), { name: "NotInArchiveError", message: /in pg_wal up to/ });
});

test("what retention has removed is no hole: a backup is what follows", async () => {
  await using bench = await openRepository();
  await bench.file("global/pg_control", wal.control);
  const next = named(2, 9);
  await bench.put(`wal_005/${next}.zst`, Buffer.of(1));
  await assert.rejects(fetchCut(bench), { name: "RefusedError" });
  await bench.put(`basebackups_005/base_${next}_backup_stop_sentinel.json`, Buffer.from("{}"));
  await assert.rejects(fetchCut(bench), { name: "NotInArchiveError" });
  // All of timeline 2 is gone, too.
  const last = named(3, 12);
  await bench.memory.delete([`wal_005/${next}.zst`], { signal: bench.signal });
  await bench.put("wal_005/00000003.history", Buffer.from(line(1, forkLsn) + line(2, start(9))));
  await bench.put(`wal_005/${last}.zst`, Buffer.of(1));
  await assert.rejects(fetchCut(bench), { name: "RefusedError" });
  await bench.put(`basebackups_005/base_${last}_backup_stop_sentinel.json`, Buffer.from("{}"));
  await assert.rejects(fetchCut(bench), { name: "NotInArchiveError" });
});

test("nothing before the fork: it ends there", async () => {
  await using bench = await openRepository({ "": content });
  await assert.rejects(fetchCut(bench, { endLsn: startLsn }), { name: "NotInArchiveError" });
});

test("a place without a repository proves nothing", async () => {
  await using bench = await openWorkbench();
  await assert.rejects(fetchCut(bench, { endLsn: startLsn }), {
    name: "StorageError",
    message: /holds no repository/,
  });
});
