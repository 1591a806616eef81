/** The daemon under many calls: flat memory, and SIGKILL at random moments. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { type RunningDaemon, startDaemon } from "../support/daemon.ts";
import { seededRandom } from "../support/random.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { writeWal } from "../support/wal-writer.ts";
import { pause } from "../support/until.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const KILL_ROUNDS = IS_LONG ? 60 : 3;
const SEGMENT_COUNT = 24;
const CALLS = IS_LONG ? 20_000 : 1500;
const CLIENTS = 8;
const { signal } = new AbortController();

interface Place {
  readonly data: string;
  readonly store: string;
  start(): Promise<RunningDaemon>;
}

async function makePlace(directory: string): Promise<Place> {
  const data = join(directory, "data");
  const store = join(directory, "store");
  await mkdir(join(data, "pg_wal", "archive_status"), { recursive: true, mode: 0o700 });
  await mkdir(store);
  const env = { WALG_FILE_PREFIX: store, WALNUT_CACHE_DIR: join(directory, "cache") };
  const socketPath = join(directory, "walnut.sock");
  return { data, store, start: () => startDaemon({ dataDirectory: data, socketPath, env }) };
}

/** Calls `work` with each number below `count`, by so many at a time. */
async function eachOf(count: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await work((next += 1) - 1);
  };
  await Promise.all(Array.from({ length: CLIENTS }, worker));
}

test(`memory stays flat over ${CALLS} calls`, async () => {
  using directory = scratchDirectory();
  const place = await makePlace(directory.path);
  const names = Array.from({ length: 50 }, (_, index) => `label-${index}`);
  for (const name of names) await writeFile(join(place.data, "pg_wal", name), name.repeat(100));
  await using daemon = await place.start();
  const call = async (index: number): Promise<void> => {
    const name = names[index % names.length] ?? "";
    const isFetch = index % 5 === 4;
    const result = await daemon.call(
      isFetch
        ? { kind: "fetch", name, destination: `pg_wal/fetched-${index % 40}` }
        : { kind: "push", name },
    );
    assert.deepEqual(result, { kind: "reply", reply: "O" });
  };
  for (let index = 0; index < names.length; index += 1) {
    if (index % 5 !== 4) await call(index);
    else
      assert.equal((await daemon.call({ kind: "push", name: names[index] ?? "" })).kind, "reply");
  }
  await eachOf(CALLS / 5, call);
  const before = daemon.residentBytes();
  await eachOf(CALLS, call);
  const grown = daemon.residentBytes() - before;
  assert.ok(grown < 64 * 2 ** 20, `grew by ${grown} bytes from ${before}`);
  const descriptors = await readdir(`/proc/${daemon.processId}/fd`);
  assert.ok(descriptors.length < 60, `${descriptors.length} files are open`);
});

test(`${KILL_ROUNDS} kills lose nothing that was acknowledged`, async () => {
  using directory = scratchDirectory();
  const place = await makePlace(directory.path);
  const random = seededRandom();
  const note = `WALNUT_SEED=${random.seed} repeats this`;
  const wal = writeWal({
    segmentBytes: 2 ** 20,
    systemId: 7n,
    records: Array.from({ length: SEGMENT_COUNT * 33 }, () => ({ dataBytes: 31_000 })),
  });
  const segments = wal.segments.slice(0, SEGMENT_COUNT);
  assert.equal(segments.length, SEGMENT_COUNT);
  const status = join(place.data, "pg_wal", "archive_status");
  for (const { name, bytes } of segments) {
    await writeFile(join(place.data, "pg_wal", name), bytes);
    await writeFile(join(status, `${name}.ready`), "");
  }
  const seen = { acknowledged: 0, lost: 0 };
  for (let round = 0; round < KILL_ROUNDS; round += 1) {
    const acknowledged = new Set<string>();
    const daemon = await place.start();
    try {
      const killAfter = Math.floor(random.next() * (SEGMENT_COUNT - CLIENTS));
      await eachOf(SEGMENT_COUNT, async (index) => {
        const name = segments[index]?.name ?? "";
        const result = await daemon.call({ kind: "push", name });
        if (result.kind === "reply") {
          assert.equal(result.reply, "O", `${daemon.log()}${note}`);
          acknowledged.add(name);
        } else {
          seen.lost += 1;
        }
        if (acknowledged.size >= killAfter) {
          // At once in the first round, in which some are lost for certain.
          if (seen.acknowledged > 0) await pause(random.next() * 5);
          daemon.kill("SIGKILL");
        }
      });
    } finally {
      await daemon[Symbol.asyncDispose]();
    }
    for (const { name, bytes } of segments) {
      if (!acknowledged.has(name)) continue;
      const object = await readFile(join(place.store, "wal_005", `${name}.zst`));
      const decoded = codecOf("zstd").decompress(bytesSource(object).open(), { jobs: 1, signal });
      assert.ok((await readAll(decoded)).equals(bytes), `${name} is not what was sent; ${note}`);
    }
    seen.acknowledged += acknowledged.size;
    // The next round begins with an empty archive, and with what the killed one left elsewhere.

    for (const { name } of segments) {
      await rm(join(place.store, "wal_005", `${name}.zst`), { force: true });
      await rm(join(`${place.data}.walnut`, "notes", name), { force: true });
    }
  }
  assert.ok(seen.lost > 0 && seen.acknowledged > 0, `${JSON.stringify(seen)} ${note}`);

  // With the last kill behind it, everything can be archived.
  await using daemon = await place.start();
  await eachOf(SEGMENT_COUNT, async (index) => {
    const name = segments[index]?.name ?? "";
    assert.deepEqual(await daemon.call({ kind: "push", name }), { kind: "reply", reply: "O" });
  });
});
