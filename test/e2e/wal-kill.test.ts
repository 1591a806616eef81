/** SIGKILL of wal-push and wal-fetch at random moments: never half of anything, and no repair. */
import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { seededRandom } from "../support/random.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { runWalnut } from "../support/walnut.ts";
import { KillMoments } from "../support/kill-moments.ts";

const ROUNDS = process.env["WALNUT_LONG"] === "1" ? 500 : 25;
const { signal } = new AbortController();
const random = seededRandom();
const seedNote = `WALNUT_SEED=${random.seed} repeats this`;

let directory: string;
let name: string;
let content: Buffer;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-kill-"));
  await chmod(directory, 0o755);
  const wal = await recordWal({ segmentMiB: 4, segmentCount: 2 });
  name = wal.segments[0] ?? "";
  content = walFile(wal, name);
  await writeFile(join(directory, name), content);
});
after(() => rm(directory, { recursive: true, force: true }));

const run = (repository: string, words: readonly string[], killAfterMs?: number) =>
  runWalnut(words, {
    cwd: directory,
    env: {
      WALG_FILE_PREFIX: join(directory, repository),
      WALG_COMPRESSION_METHOD: "zstd",
      WALNUT_CACHE_DIR: join(directory, `${repository}-cache`),
    },
    ...(killAfterMs === undefined ? {} : { killAfterMs }),
  });

async function makeRepository(repository: string): Promise<string> {
  const folder = join(directory, repository, "wal_005");
  await mkdir(folder, { recursive: true });
  return folder;
}

async function decoded(path: string): Promise<Buffer> {
  const object = await readFile(path);
  const stream = codecOf("zstd").decompress(bytesSource(object).open(), { jobs: 1, signal });
  return await readAll(stream);
}

test(`${ROUNDS} killed pushes`, async () => {
  const folder = await makeRepository("pushed");
  const object = join(folder, `${name}.zst`);
  const wordsOfPush = ["wal-push", join(directory, name)];
  await run("pushed", wordsOfPush);
  await rm(object);
  const moments = new KillMoments(random, await run("pushed", wordsOfPush));

  const seen = { killed: 0, stored: 0, acknowledged: 0 };
  for (let round = 1; round <= ROUNDS; round += 1) {
    await rm(object, { force: true });
    const result = await run("pushed", wordsOfPush, moments.next());
    moments.saw(result);
    const isStored = (await readdir(folder)).includes(`${name}.zst`);
    if (result.signal === "SIGKILL") seen.killed += 1;
    if (isStored) {
      seen.stored += 1;
      assert.ok((await decoded(object)).equals(content), `half an object; ${seedNote}`);
    }
    if (result.code === 0) {
      seen.acknowledged += 1;
      assert.ok(isStored, `acknowledged but not stored; ${seedNote}`);
    }
    const next = await run("pushed", wordsOfPush);
    assert.equal(next.code, 0, `${next.stderr}${seedNote}`);
    assert.ok((await decoded(object)).equals(content), seedNote);
  }
  // What a killed run leaves is invisible to every reader, but takes room: one file a kill.
  const leftovers = (await readdir(folder)).filter((file) => file !== `${name}.zst`);
  for (const file of leftovers) assert.match(file, /\.tmp\.\d{8}T\d{6}Z-[0-9a-f]{16}$/);
  assert.ok(seen.killed >= ROUNDS / 3, `${JSON.stringify(seen)} ${seedNote}`);
});

test(`${ROUNDS} killed fetches`, async () => {
  const folder = await makeRepository("fetched");
  const stream = codecOf("zstd").compress(bytesSource(content).open(), { jobs: 1, signal });
  await writeFile(join(folder, `${name}.zst`), await readAll(stream));
  const out = await mkdtemp(join(directory, "pg_wal-"));
  const destination = join(out, "RECOVERYXLOG");
  const wordsOfFetch = ["wal-fetch", name, destination];
  await run("fetched", wordsOfFetch);
  const moments = new KillMoments(random, await run("fetched", wordsOfFetch));

  const seen = { killed: 0, arrived: 0 };
  for (let round = 1; round <= ROUNDS; round += 1) {
    await rm(destination, { force: true });
    const result = await run("fetched", wordsOfFetch, moments.next());
    moments.saw(result);
    if (result.signal === "SIGKILL") seen.killed += 1;
    const files = await readdir(out);
    if (files.includes("RECOVERYXLOG")) {
      seen.arrived += 1;
      assert.ok((await readFile(destination)).equals(content), `half a file; ${seedNote}`);
    } else {
      assert.notEqual(result.code, 0, seedNote);
    }
    assert.ok(files.length <= 2, `${files.join()} ${seedNote}`);

    const next = await run("fetched", wordsOfFetch);
    assert.equal(next.code, 0, `${next.stderr}${seedNote}`);
    assert.ok((await readFile(destination)).equals(content), seedNote);
    assert.deepEqual(await readdir(out), ["RECOVERYXLOG"], seedNote);
  }
  assert.ok(seen.killed >= ROUNDS / 3, `${JSON.stringify(seen)} ${seedNote}`);
  assert.equal((await stat(destination)).size, content.length);
});
