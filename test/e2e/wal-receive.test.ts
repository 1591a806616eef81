/** The real wal-receive and wal-fetch with real servers: what was acknowledged is there again. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readdir, readFile, rename } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";
import { type Cluster, type Major, restoreCluster, startCluster } from "../support/postgres.ts";
import { seededRandom } from "../support/random.ts";
import { type Installation, install } from "../support/repository.ts";
import { walnutCommand } from "../support/walnut.ts";
import { heardAgain } from "../archive/receiver.ts";
import { pause, until } from "../support/until.ts";

const MIB = 1024 * 1024;
const { signal } = new AbortController();
const random = seededRandom();
const seedNote = `WALNUT_SEED=${random.seed} repeats this`;
const FLUSHED = "SELECT flush_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication";

interface Setup extends AsyncDisposable {
  readonly cluster: Cluster;
  readonly walnut: Installation;
  readonly repository: string;
  /** A copy of the data directory before anything was received. */
  readonly baseCopy: string;
}

/** A server, a repository beside it, and a plain copy of the stopped data directory. */
async function setUp(
  major: Major,
  settings: Readonly<Record<string, string>> = {},
  storesOf: (cluster: Cluster) => Promise<Readonly<Record<string, string>>> = async () => ({}),
): Promise<Setup> {
  const cluster = await startCluster({
    major,
    segmentMiB: 1,
    settings: {
      wal_level: "replica",
      autovacuum: "off",
      wal_keep_size: "1GB",
      wal_sender_timeout: "6s",
    },
  });
  await cluster.query("CREATE TABLE counted (n bigint PRIMARY KEY); CREATE TABLE filler (t text)");
  await cluster.stop();
  const baseCopy = join(cluster.directory, "base copy");
  await cp(cluster.dataDirectory, baseCopy, { recursive: true });
  await cluster.configure(settings);
  await cluster.start();
  const repository = await cluster.makeDirectory("repository");
  const walnut = await install(cluster, {
    WALG_FILE_PREFIX: repository,
    WALNUT_RECEIVE_PARTIAL_INTERVAL: "500ms",
    ...(await storesOf(cluster)),
  });
  return {
    cluster,
    walnut,
    repository,
    baseCopy,
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}

interface Service extends AsyncDisposable {
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Resolves when it has logged this. */
  said(pattern: RegExp): Promise<void>;
  output(): string;
  /** What it ended by, once it has. */
  signalCode(): NodeJS.Signals | null;
}

/** Starts wal-receive as the server's user. */
function startReceiving({ cluster, walnut }: Setup, ...words: readonly string[]): Service {
  const [program = "", ...first] = walnutCommand();
  const args = [...first, "--config", walnut.configFile, "wal-receive", ...words];
  const child: ChildProcess = spawn(program, args, {
    ...cluster.user,
    cwd: cluster.directory,
    env: { PATH: process.env["PATH"], HOME: cluster.directory, TMPDIR: tmpdir() },
    stdio: ["ignore", "inherit", "pipe"],
  });
  const text = { all: "" };
  child.stderr?.setEncoding("utf8").on("data", (chunk: string) => (text.all += chunk));
  const kill = async (how: NodeJS.Signals): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const closed = once(child, "close");
    child.kill(how);
    await closed;
  };
  return {
    kill,
    output: () => text.all,
    signalCode: () => child.signalCode,
    async said(pattern) {
      await until(
        `${pattern} is said`,
        () => {
          if (pattern.test(text.all)) return true;
          if (child.exitCode !== null) throw new Error(`${pattern}: ${text.all}`);
          return false;
        },
        () => text.all,
      );
    },
    [Symbol.asyncDispose]: () => kill("SIGKILL"),
  };
}

async function stored(repository: string, name: string): Promise<Buffer | undefined> {
  const path = join(repository, "wal_005", `${name}.zst`);
  const bytes = await readFile(path).catch(() => undefined);
  if (bytes === undefined) return undefined;
  return await readAll(codecOf("zstd").decompress(bytesSource(bytes).open(), { jobs: 1, signal }));
}

/**
 * Every byte before `end`, from the first segment that was ever stored on, is in the repository.
 */
async function checkHeld(setup: Setup, end: bigint): Promise<void> {
  const { cluster, repository } = setup;
  const names = await readdir(join(repository, "wal_005"));
  const [first = ""] = names.filter((name) => /^[0-9A-F]{24}/.test(name)).toSorted();
  const from = BigInt(Number.parseInt(first.slice(16, 24), 16)) * BigInt(MIB);
  for (let at = from; at < end; at += BigInt(MIB)) {
    const name = formatSegmentName(1, at / BigInt(MIB), MIB);
    const size = Math.min(MIB, Number(end - at));
    const held = (await stored(repository, name)) ?? (await stored(repository, `${name}.partial`));
    const file = await readFile(join(cluster.dataDirectory, "pg_wal", name));
    assert.equal(held?.length, MIB, `${name}; ${seedNote}`);
    assert.ok(held.subarray(0, size).equals(file.subarray(0, size)), `${name}; ${seedNote}`);
  }
}

/**
 * Opens the base copy with nothing but the repository, and gives the highest number that is there.
 */
async function recover(setup: Setup, until: "promoted" | "consistent" = "promoted") {
  const recovered = await restoreCluster(setup.baseCopy, {
    major: setup.cluster.major,
    signal: until === "promoted" ? "recovery" : "standby",
    restoreCommand: setup.walnut.restoreCommand,
    settings: {
      synchronous_standby_names: "",
      wal_retrieve_retry_interval: "200ms",
      recovery_target_timeline: "latest",
    },
  });
  assert.equal(recovered.outcome, until, recovered.log());
  return recovered;
}

const hasMovedFrom = (slotLsn: string) =>
  `SELECT count(*) > 0 FROM pg_replication_slots WHERE restart_lsn::text <> '${slotLsn}'`;
const hasReached = (n: number) => `SELECT max(n) = ${n} FROM counted`;
const COUNTED = "SELECT coalesce(max(n), 0)::text || ' ' || count(*)::text FROM counted";

test("killed at any moment, it has lost nothing that it acknowledged", async () => {
  await using setup = await setUp(15);
  const { cluster, repository } = setup;
  const state = { isOver: false };
  const writing = (async () => {
    for (let n = 1; !state.isOver; n += 1) {
      await cluster.query(
        `INSERT INTO counted VALUES (${n});
         INSERT INTO filler SELECT repeat(md5(g::text), 8) FROM generate_series(1, 400) AS g`,
      );
      await pause(15);
    }
  })();
  try {
    const seen = { rounds: 0, confirmed: new Set<string>() };
    for (let round = 1; round <= 12; round += 1) {
      await using service = startReceiving(setup, ...(round % 2 === 0 ? ["--synchronous"] : []));
      // The program has to load first, or all kills would hit it there.
      if (round % 4 !== 0) await service.said(/receiving WAL/);
      // In some rounds it is to have confirmed something; how fast it is, is not the matter.
      if (round % 4 === 1) await cluster.waitFor(hasMovedFrom([...seen.confirmed].at(-1) ?? ""));
      await pause(random.next() * 700);
      await service.kill("SIGKILL");
      const slot = await cluster.value("SELECT max(restart_lsn) FROM pg_replication_slots");
      if (slot === "") continue;
      seen.rounds += 1;
      seen.confirmed.add(slot);
      const names = await readdir(join(repository, "wal_005")).catch(() => []);
      if (names.length > 0 && seen.confirmed.size > 1) await checkHeld(setup, parseLsn(slot));
    }
    assert.ok(seen.rounds >= 8 && seen.confirmed.size >= 3, JSON.stringify([...seen.confirmed]));
  } finally {
    state.isOver = true;
    await writing;
  }

  await using service = startReceiving(setup);
  await service.said(/receiving WAL/);
  await cluster.waitFor(FLUSHED);
  await checkHeld(setup, parseLsn(await cluster.value("SELECT pg_current_wal_flush_lsn()")));
  const names = await readdir(join(repository, "wal_005"));
  const partials = names.filter((name) => name.endsWith(".partial.zst"));
  assert.equal(partials.length, 1, partials.join());
  const before = await cluster.value(COUNTED);
  await cluster.stop("immediate");
  await service.kill("SIGTERM");
  // It is made to be stopped: that is no error, and its caller sees by what it ended.
  assert.match(service.output(), /^INFO: \S+ \S+ stopped by SIGTERM$/m);
  assert.equal(service.signalCode(), "SIGTERM");
  await using recovered = await recover(setup);
  assert.equal(await recovered.value(COUNTED), before, seedNote);
});

/** Another storage that takes the first one's place, and a mirror of both. */
async function severalStores(cluster: Cluster): Promise<Readonly<Record<string, string>>> {
  const [spare, mirror] = [
    await cluster.makeDirectory("spare"),
    await cluster.makeDirectory("mirror"),
  ];
  return {
    WALG_FAILOVER_STORAGES: JSON.stringify({ spare: { WALG_FILE_PREFIX: spare } }),
    // Or the first storage would not be written to for a while after it came back.
    WALG_FAILOVER_STORAGES_CHECK: "false",
    WALNUT_MIRROR: JSON.stringify({ second: { WALG_FILE_PREFIX: mirror } }),
    WALNUT_MIRROR_QUEUE_DIRECTORY: await cluster.makeDirectory("queue"),
  };
}

for (const major of [13, 15, 18] as const) {
  const isSpread = major === 15;
  const about = isSpread ? ", nor with the first of several stores away" : "";
  test(`PostgreSQL ${major}: no commit that returned is lost with the primary${about}`, async () => {
    const settings = { synchronous_standby_names: "walnut" };
    await using setup = await setUp(major, settings, isSpread ? severalStores : undefined);
    const { cluster, repository, walnut } = setup;
    await using service = startReceiving(setup, "--synchronous");
    await service.said(/receiving WAL/);
    const commits = 20 + Math.floor(random.next() * 20);
    for (let n = 1; n <= commits; n += 1) {
      await cluster.query(`INSERT INTO counted VALUES (${n})`);
      if (n % 8 === 0) await cluster.query("INSERT INTO filler SELECT repeat('x', 600000)");
      if (isSpread && n === 10) await rename(repository, `${repository}-away`);
    }
    // The postmaster first; what it had started follows at once, and nothing is written any more.
    const pidFile = await readFile(join(cluster.dataDirectory, "postmaster.pid"), "utf8");
    process.kill(Number(pidFile.split("\n")[0]), "SIGKILL");
    await cluster.exited();
    await service.kill("SIGKILL");
    if (isSpread) await rename(`${repository}-away`, repository);

    await using recovered = await recover(setup);
    assert.equal(await recovered.value(COUNTED), `${commits} ${commits}`, seedNote);
    if (isSpread) {
      assert.ok((await readdir(join(cluster.directory, "spare", "wal_005"))).length > 0);
      await walnut.mustRun("st", "sync");
      await walnut.mustRun("st", "diff", "--content");
    }
    assert.equal(
      await recovered.value("SELECT pg_walfile_name(pg_current_wal_lsn()) LIKE '00000002%'"),
      "true",
    );
    assert.match(recovered.log(), /restored log file/);
  });
}

test("a commit waits while the store is away, and returns when it is back", async () => {
  await using setup = await setUp(15, { synchronous_standby_names: "walnut" });
  const { cluster, repository } = setup;
  await using service = startReceiving(setup, "--synchronous");
  await service.said(/receiving WAL/);
  await cluster.query("INSERT INTO counted VALUES (1)");

  const away = `${repository}-away`;
  await rename(repository, away);
  const restart = "SELECT restart_lsn FROM pg_replication_slots";
  const before = await cluster.value(restart);
  const state = { isCommitted: false };
  const committing = (async () => {
    await cluster.query("INSERT INTO counted VALUES (2)");
    state.isCommitted = true;
  })();
  await service.said(/storing WAL in .* failed/);
  await heardAgain(cluster);
  assert.equal(state.isCommitted, false);
  assert.equal(await cluster.value(restart), before);

  await rename(away, repository);
  await committing;
  await service.said(/storing WAL in .* works again/);
  assert.equal(service.output().match(/ failed/g)?.length, 1);
  await service.kill("SIGTERM");
  await cluster.stop("immediate");
  await using recovered = await recover(setup);
  assert.equal(await recovered.value(COUNTED), "2 2");
});

test("a standby follows the archive commit by commit, through a promotion", async () => {
  await using setup = await setUp(18);
  const { cluster, repository } = setup;
  // A standby that streams is what gets promoted; wal-receive listens to it.
  const copy = join(cluster.directory, "promoted");
  await mkdir(copy);
  await cp(setup.baseCopy, copy, { recursive: true });
  await using next = await restoreCluster(copy, {
    major: 18,
    signal: "standby",
    restoreCommand: "false",
    settings: { primary_conninfo: `host=127.0.0.1 port=${cluster.port} user=postgres` },
  });
  const walnut = await install(
    cluster,
    { WALG_FILE_PREFIX: repository, WALNUT_RECEIVE_PARTIAL_INTERVAL: "200ms", ...next.connection },
    "standby",
  );
  await using service = startReceiving({ ...setup, walnut });
  await service.said(/receiving WAL/);
  await cluster.query("INSERT INTO counted VALUES (1)");
  await using follower = await recover(setup, "consistent");
  await follower.waitFor(hasReached(1));
  await cluster.query("INSERT INTO counted VALUES (2)");
  await follower.waitFor(hasReached(2));

  await cluster.stop("immediate");
  await next.query("SELECT pg_promote()");
  await next.waitFor("SELECT NOT pg_is_in_recovery()");
  for (let n = 3; n <= 12; n += 1) {
    await next.query(
      `INSERT INTO counted VALUES (${n});
       INSERT INTO filler SELECT repeat(md5(g::text), 8) FROM generate_series(1, 1000) AS g`,
    );
  }
  await follower.waitFor(hasReached(12));
  const names = await readdir(join(repository, "wal_005"));
  assert.ok(names.includes("00000002.history.zst"));
  assert.equal(names.filter((name) => /^00000001.*\.partial/.test(name)).length, 1);
});
