/** One bit of one of nine archived segments changes: PostgreSQL must not open without the rest. */
import assert from "node:assert/strict";
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { parsePgControl } from "../../src/postgres/pg-control.ts";
import { type Cluster, initCluster, restoreCluster } from "../support/postgres.ts";
import { chownTree } from "../support/server-user.ts";
import { shellWord, walnutShellCommand } from "../support/walnut.ts";

const MAJOR = 17;
const METHODS = ["zstd", "lz4", "none", "brotli", "lzma"] as const;
type Method = (typeof METHODS)[number];
const SEGMENT_COUNT = 9;
const ROWS_A_SEGMENT = 700;
/** PostgreSQL asks a standby's archive this often. */
const RETRY_MS = 100;

let origin: Cluster;
/** A cold copy from before the first of the nine segments. */
let coldCopy: string;
let archived: readonly { readonly name: string; readonly bytes: Buffer }[];

before(async () => {
  origin = await initCluster({
    major: MAJOR,
    segmentMiB: 1,
    settings: { archive_mode: "on", archive_command: "true", autovacuum: "off" },
  });
  coldCopy = join(origin.directory, "cold");
  await origin.start();
  await origin.query("CREATE TABLE ledger (id bigserial, segment int, content text)");
  await origin.stop();
  await cp(origin.dataDirectory, coldCopy, { recursive: true });

  const store = await origin.makeDirectory("plain");
  await origin.configure({
    archive_command: `cp "%p" ${shellWord(store)}/%f`,
    checkpoint_timeout: "1h",
  });
  await origin.start();
  // The last one is short, and ends with a switch.
  for (let segment = 1; segment <= SEGMENT_COUNT; segment += 1) {
    await origin.query(
      `INSERT INTO ledger (segment, content)
       SELECT ${segment}, repeat(md5(n::text), 30) FROM generate_series(1, ${ROWS_A_SEGMENT}) AS n`,
    );
    await origin.switchWal();
  }
  await origin.waitForArchiver();
  await origin.stop("immediate");
  const names = (await readdir(store)).filter((name) => name.length === 24).toSorted();
  archived = await Promise.all(
    names.map(async (name) => ({ name, bytes: await readFile(join(store, name)) })),
  );
  assert.ok(archived.length >= SEGMENT_COUNT, names.join());
});
after(() => origin[Symbol.asyncDispose]());

interface Recovery {
  readonly dataDirectory: string;
  readonly restoreCommand: string;
}

/** A repository in one compression, a data directory to recover, and the command between them. */
async function prepare(name: string, method: Method, damagedIndex?: number): Promise<Recovery> {
  const root = await origin.makeDirectory(name);
  const folder = join(root, "repository", "wal_005");
  await mkdir(folder, { recursive: true });
  const codec = codecOf(method);
  const { signal } = new AbortController();
  for (const [index, { name: segment, bytes }] of archived.entries()) {
    const stream = codec.compress(bytesSource(bytes).open(), { jobs: 1, signal });
    const object = await readAll(stream);
    if (index === damagedIndex) {
      const at = Math.floor(object.length / 3);
      object.writeUInt8(object.readUInt8(at) ^ 0x10, at);
    }
    const suffix = codec.extension === "" ? "" : `.${codec.extension}`;
    await writeFile(join(folder, `${segment}${suffix}`), object);
  }
  const dataDirectory = join(root, "data");
  await cp(coldCopy, dataDirectory, { recursive: true });
  const config = join(root, "walnut.json");
  await writeFile(
    config,
    JSON.stringify({
      WALG_FILE_PREFIX: join(root, "repository"),
      WALNUT_CACHE_DIR: join(root, "cache"),
    }),
  );
  await chownTree(root, origin.user);
  const program = `${walnutShellCommand()} --config ${shellWord(config)}`;
  return { dataDirectory, restoreCommand: `${program} wal-fetch %f %p` };
}

const recover = (recovery: Recovery, signal: "recovery" | "standby") =>
  restoreCluster(recovery.dataDirectory, {
    major: MAJOR,
    signal,
    restoreCommand: recovery.restoreCommand,
    settings: { wal_retrieve_retry_interval: `${RETRY_MS}ms` },
  });

async function timelineOf(dataDirectory: string): Promise<number> {
  return parsePgControl(await readFile(join(dataDirectory, "global", "pg_control"))).timeline;
}

test("whole, all nine segments are replayed", async () => {
  const recovery = await prepare("whole", "zstd");
  await using restored = await recover(recovery, "recovery");
  assert.equal(restored.outcome, "promoted", restored.log());
  const rows = await restored.value("SELECT count(*) FROM ledger");
  assert.equal(rows, String(SEGMENT_COUNT * ROWS_A_SEGMENT));
  await restored.stop();
  assert.equal(await timelineOf(recovery.dataDirectory), 2);
});

for (const method of METHODS) {
  test(`${method}: one bit changed in the fifth, and recovery stops with a clear line`, async () => {
    const recovery = await prepare(`damaged ${method}`, method, 4);
    await using restored = await recover(recovery, "recovery");
    assert.equal(restored.outcome, "exited", restored.log());
    const { name } = archived[4] ?? { name: "" };
    assert.match(
      restored.log(),
      new RegExp(`ERROR: .*object wal_005/${name}\\S* in .* is damaged`),
    );
    assert.match(restored.log(), new RegExp(`FATAL: .*could not restore file "${name}"`));
    assert.equal(await timelineOf(recovery.dataDirectory), 1);
    const wal = await readdir(join(recovery.dataDirectory, "pg_wal"));
    assert.deepEqual(
      wal.filter((file) => file.endsWith(".history") || file.includes(".tmp-")),
      [],
    );
  });
}

test("the fifth is missing: recovery stops, and opens the database there only when it is told to", async () => {
  const recovery = await prepare("hole", "zstd");
  const { name } = archived[4] ?? { name: "" };
  await rm(join(recovery.dataDirectory, "..", "repository", "wal_005", `${name}.zst`));
  {
    await using restored = await recover(recovery, "recovery");
    assert.equal(restored.outcome, "exited", restored.log());
    assert.match(
      restored.log(),
      new RegExp(`ERROR: .*${name} is not in the archive .*, but later`),
    );
    assert.match(restored.log(), new RegExp(`FATAL: .*could not restore file "${name}"`));
    assert.equal(await timelineOf(recovery.dataDirectory), 1);
  }
  const restoreCommand = `WALNUT_FETCH_END_AT_HOLE=true ${recovery.restoreCommand}`;
  await using opened = await recover({ ...recovery, restoreCommand }, "recovery");
  assert.equal(opened.outcome, "promoted", opened.log());
  await opened.stop();
});

test("a standby goes on asking, and goes on when the object is whole again", async () => {
  const recovery = await prepare("standby", "zstd", 4);
  await using standby = await recover(recovery, "standby");
  assert.equal(standby.outcome, "consistent", standby.log());
  await standby.waitForLog(/is damaged[^]*is damaged[^]*is damaged/);

  const { name } = archived[4] ?? { name: "" };
  const whole = await prepare("standby repaired", "zstd");
  const path = ["repository", "wal_005", `${name}.zst`];
  await cp(join(whole.dataDirectory, "..", ...path), join(recovery.dataDirectory, "..", ...path));
  await standby.waitFor(`SELECT count(*) = ${SEGMENT_COUNT * ROWS_A_SEGMENT} FROM ledger`);
  await standby.stop();
  assert.equal(await timelineOf(recovery.dataDirectory), 1);
});

test("a repository that is not mounted is no empty archive", async () => {
  const recovery = await prepare("unmounted", "zstd");
  await rename(join(recovery.dataDirectory, "..", "repository"), join(origin.directory, "gone"));
  await using restored = await recover(recovery, "recovery");
  assert.equal(restored.outcome, "exited", restored.log());
  assert.match(restored.log(), /ERROR: .*storage directory \S+ does not exist/);
  assert.equal(await timelineOf(recovery.dataDirectory), 1);
});
