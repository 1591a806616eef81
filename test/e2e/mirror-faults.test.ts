/**
 * A mirror with the real program, both stores being S3 behind a bad line: what was acknowledged is
 * in the first store, and in the end in both, whatever was killed. A long run does it with backups
 * of a real server. Then the first store dies: nothing is stored, and what is stored is read.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { CREATE_ONLY_KEY } from "../../src/layout/backup-group.ts";
import { patternBytes } from "../support/bodies.ts";
import { FaultProxy, type HttpFault } from "../support/fault-proxy.ts";
import { initCluster, restoreCluster } from "../support/postgres.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { install } from "../support/repository.ts";
import { errorDocument, S3Emulation } from "../support/s3-emulation.ts";
import { runWalnut } from "../support/walnut.ts";
import { SWITCH, writeWal } from "../support/wal-writer.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const PUSHES = IS_LONG ? Number(process.env["WALNUT_PUSHES"] ?? 400) : 4;
/** A few pushes meet faults only if they meet many. */
const FAULT_SHARE = IS_LONG ? 0.05 : 0.25;
/** One push of so many is killed at some moment of it. */
const KILL_SHARE = 2;
const MOST_ATTEMPTS = 50;
const { signal } = new AbortController();
const scratch = await mkdtemp(join(tmpdir(), "walnut-mirror-faults-"));
await chmod(scratch, 0o755);
after(() => rm(scratch, { recursive: true }));

const answering = (status: number, code: string): HttpFault => ({
  answer: { status, body: errorDocument(code, "told so") },
});
const REFUSED = answering(403, "AccessDenied");

function makeFault(random: Random): HttpFault | undefined {
  if (random.next() >= FAULT_SHARE) return undefined;
  const faults: readonly HttpFault[] = [
    { loseAnswer: true },
    answering(200, "InternalError"),
    answering(503, "SlowDown"),
    { resetAfterBytes: Math.floor(random.next() * 3000) },
    { truncateAfterBytes: Math.floor(random.next() * 300) },
    { corruptByte: Math.floor(random.next() * 300) },
    { corruptRequestByte: Math.floor(random.next() * 1500) },
  ];
  return faults[Math.floor(random.next() * faults.length)];
}

interface Side {
  readonly server: S3Emulation;
  readonly proxy: FaultProxy;
  readonly settings: Readonly<Record<string, string>>;
}

async function startSide(stack: AsyncDisposableStack): Promise<Side> {
  const server = stack.use(await S3Emulation.start());
  const proxy = stack.use(await FaultProxy.start(server.endpoint));
  const settings = {
    WALG_S3_PREFIX: `s3://${server.bucket}/main`,
    AWS_ENDPOINT: proxy.endpoint,
    AWS_S3_FORCE_PATH_STYLE: "true",
    AWS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: server.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
  };
  return { server, proxy, settings };
}

/** Both stores, and the settings of a program that has them. */
async function startStores(stack: AsyncDisposableStack, random: Random, queue: string) {
  const [primary, mirror] = [await startSide(stack), await startSide(stack)];
  const setFaults = (isOn: boolean): void => {
    for (const { proxy } of [primary, mirror]) {
      proxy.rule = () => (isOn ? makeFault(random) : undefined);
    }
  };
  const settings = {
    ...primary.settings,
    WALNUT_MIRROR: JSON.stringify({ second: mirror.settings }),
    WALNUT_MIRROR_QUEUE_DIRECTORY: queue,
    WALNUT_REQUEST_TIMEOUT: "20s",
    WALG_COMPRESSION_METHOD: "zstd",
  };
  return { primary, mirror, settings, setFaults };
}

/** Of all that the two stores are to share. */
const sumByKey = ({ server }: Side) =>
  new Map(
    [...server.objects]
      .filter(([key]) => key !== `main/${CREATE_ONLY_KEY}`)
      .map(([key, { bytes }]) => [key, createHash("sha256").update(bytes).digest("hex")]),
  );

async function decoded(object: Uint8Array): Promise<Buffer> {
  const options = { jobs: 1, signal };
  return await readAll(codecOf("zstd").decompress(bytesSource(object).open(), options));
}

test(`${PUSHES} pushes, some of them killed, are in both stores in the end`, async () => {
  await using stack = new AsyncDisposableStack();
  const random = seededRandom();
  const seedNote = `WALNUT_SEED=${random.seed} repeats this`;
  const stores = await startStores(stack, random, join(scratch, "queue"));
  const env = { ...stores.settings, WALNUT_CACHE_DIR: join(scratch, "cache") };
  const run = (words: readonly string[], killAfterMs?: number) =>
    runWalnut(words, {
      cwd: scratch,
      env,
      ...(killAfterMs === undefined ? {} : { killAfterMs }),
    });
  const contents = new Map<string, Uint8Array>();
  let pushMs = 500;
  stores.setFaults(true);
  for (let number = 1; number <= PUSHES; number++) {
    const dataBytes = 2000 + number;
    const records = [{ dataBytes, data: patternBytes(dataBytes, number) }, SWITCH];
    const [segment] = writeWal({ firstSegment: BigInt(number), records }).segments;
    assert.ok(segment !== undefined);
    const path = join(scratch, segment.name);
    await writeFile(path, segment.bytes);
    const isKilled = number % KILL_SHARE === 0;
    if (isKilled) await run(["wal-push", path], random.next() * pushMs);
    for (let attempt = 1; ; attempt++) {
      const { code, stderr, tookMs } = await run(["wal-push", path]);
      pushMs = tookMs;
      if (code === 0) break;
      assert.ok(attempt < MOST_ATTEMPTS, `${seedNote}\n${stderr}`);
    }
    contents.set(segment.name, segment.bytes);
    await rm(path);
  }
  stores.setFaults(false);
  const synced = await run(["st", "sync"]);
  assert.equal(synced.code, 0, `${seedNote}\n${synced.stderr}`);
  const compared = await run(["st", "diff", "--content"]);
  assert.equal(compared.code, 0, `${seedNote}\n${compared.stdout}${compared.stderr}`);
  assert.deepEqual(sumByKey(stores.mirror), sumByKey(stores.primary), seedNote);
  for (const [name, bytes] of contents) {
    const object = stores.mirror.server.objects.get(`main/wal_005/${name}.zst`);
    assert.ok(object !== undefined, `${name} is missing: ${seedNote}`);
    assert.ok((await decoded(object.bytes)).equals(bytes), `${name}: ${seedNote}`);
  }

  // A dead primary: the mirror is read, and nothing is taken.
  stores.primary.proxy.rule = () => REFUSED;
  const [[name = "", bytes] = []] = contents;
  const fetched = join(scratch, "fetched");
  const fetching = await run(["wal-fetch", name, fetched]);
  assert.equal(fetching.code, 0, fetching.stderr);
  assert.deepEqual(await readFile(fetched), Buffer.from(bytes ?? []));
  const missing = await run(["wal-fetch", "0000000100000009000000EE", join(scratch, "missing")]);
  assert.equal(missing.code, 200, "not proved: PostgreSQL must not end its recovery");
  const [segment] = writeWal({ firstSegment: 1000n, records: [{ dataBytes: 100 }] }).segments;
  const path = join(scratch, segment?.name ?? "");
  await writeFile(path, segment?.bytes ?? "");
  const refused = await run(["wal-push", path]);
  assert.ok(refused.code !== null && refused.code > 0 && refused.code < 126, refused.stderr);
  assert.match(refused.stderr, /first store must take every object: its mirrors only follow/);
  assert.match(refused.stderr, /WALG_FAILOVER_STORAGES/);
});

if (IS_LONG) {
  test("backups of a server, some of them killed, are in both stores in the end", async () => {
    await using stack = new AsyncDisposableStack();
    const random = seededRandom();
    const cluster = stack.use(
      await initCluster({ major: 18, segmentMiB: 1, settings: { archive_mode: "on" } }),
    );
    const stores = await startStores(stack, random, await cluster.makeDirectory("queue"));
    const walnut = await install(cluster, { ...stores.settings, WALG_DELTA_MAX_STEPS: "3" });
    await chmod(walnut.configFile, 0o644);
    await cluster.configure({ archive_command: walnut.archiveCommand });
    await cluster.start();
    await cluster.query("create table t (id int)");
    stores.setFaults(true);
    for (let round = 1; round <= 6; round++) {
      await cluster.query("insert into t select generate_series(1, 1000)");
      const words = ["--config", walnut.configFile, "backup-push", cluster.dataDirectory];
      const killAfterMs = 500 + random.next() * 4000;
      await runWalnut(words, { cwd: cluster.dataDirectory, user: cluster.user, killAfterMs });
      await walnut.mustRun("backup-push", cluster.dataDirectory);
    }
    await cluster.switchWal();
    await cluster.waitForArchiver();
    stores.setFaults(false);
    await walnut.mustRun("st", "sync");
    await walnut.mustRun("st", "diff", "--content");
    assert.deepEqual(sumByKey(stores.mirror), sumByKey(stores.primary));

    stores.primary.proxy.rule = () => REFUSED;
    const target = join(cluster.directory, "restored");
    await walnut.mustRun("--target-storage=second", "backup-fetch", target, "LATEST");
    await using restored = await restoreCluster(target, {
      major: 18,
      signal: "recovery",
      restoreCommand: walnut.restoreCommand.replace(
        " wal-fetch ",
        " --target-storage=second wal-fetch ",
      ),
    });
    assert.equal(restored.outcome, "promoted");
    assert.equal(await restored.value("select count(*) from t"), "6000");
  });
}
