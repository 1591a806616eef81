/**
 * Fetching ahead with real servers: setup's line in PostgreSQL's own shell, a change of timeline,
 * damage, kills, and a standby that asks again and again.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { cp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  type Cluster,
  initCluster,
  restoreCluster,
  type RestoredCluster,
  type RestoreOptions,
} from "../support/postgres.ts";
import { type Installation, install } from "../support/repository.ts";
import { chownTree, serverUser } from "../support/server-user.ts";

const SEGMENT_COUNT = 40;

interface Archived {
  readonly primary: Cluster;
  readonly walnut: Installation;
  readonly repository: string;
  /** A data directory as it was before any of the archived WAL. */
  readonly backup: string;
  /** Archived segments of timeline 1. */
  readonly segments: readonly string[];
  readonly rowCount: string;
}

let archived: Archived;
before(async () => {
  archived = await archive();
});
after(() => archived.primary[Symbol.asyncDispose]());

/** A server whose WAL, some forty segments, is archived, and a cold copy from before it. */
async function archive(): Promise<Archived> {
  const primary = await initCluster({
    major: 17,
    segmentMiB: 1,
    settings: {
      archive_mode: "on",
      autovacuum: "off",
      checkpoint_timeout: "1h",
      max_wal_size: "4GB",
      wal_keep_size: "1GB",
    },
  });
  const repository = await primary.makeDirectory("repository");
  const walnut = await install(primary, { WALG_FILE_PREFIX: repository });
  await primary.start();
  await primary.query("CREATE TABLE filler (id bigserial PRIMARY KEY, content text)");
  await primary.stop();
  const backup = join(primary.directory, "backup");
  await cp(primary.dataDirectory, backup, { recursive: true });

  await primary.configure({ archive_command: walnut.archiveCommand });
  await primary.start();
  while (archivedNames(primary).length < SEGMENT_COUNT) {
    await primary.query(
      `INSERT INTO filler (content) SELECT string_agg(md5(random()::text), '')
       FROM generate_series(1, 40000) AS n GROUP BY n % 1000`,
    );
  }
  await primary.switchWal();
  await primary.waitForArchiver();
  const rowCount = await primary.value("SELECT count(*) FROM filler");
  await primary.stop();
  return { primary, walnut, repository, backup, segments: archivedNames(primary), rowCount };
}

function archivedNames({ dataDirectory }: Cluster): string[] {
  return readdirSync(join(dataDirectory, "pg_wal", "archive_status"))
    .map((name) => name.replace(/\.(ready|done)$/, ""))
    .filter((name) => /^0000000[1-9][0-9A-F]{16}$/.test(name))
    .toSorted();
}

interface Recovering extends AsyncDisposable {
  readonly server: RestoredCluster;
  readonly dataDirectory: string;
  readonly spool: string;
  /** Files for which the shell had to start a process. */
  readonly calls: () => string[];
}

let count = 0;

/** A server that recovers with the line that setup prints. */
async function recover(
  options: Partial<RestoreOptions> & { readonly walnut?: Installation } = {},
): Promise<Recovering> {
  const { primary, backup } = archived;
  const { walnut = archived.walnut, ...restoring } = options;
  const dataDirectory = join(primary.directory, `restored-${(count += 1)}`);
  await cp(backup, dataDirectory, { recursive: true });
  await chownTree(dataDirectory, serverUser());
  const line = await setupLine(walnut, dataDirectory);
  const calls = `${dataDirectory}.calls`;
  const server = await restoreCluster(dataDirectory, {
    major: 17,
    signal: "recovery",
    restoreCommand: line.replace(" || exec ", ` || { echo %f >> ${calls}; false; } || exec `),
    ...restoring,
  });
  const spool = `${dataDirectory}.walnut`;
  return {
    server,
    dataDirectory,
    spool,
    calls: () => (existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n") : []),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await untilNoPrefetcher(dataDirectory);
      for (const path of [dataDirectory, spool, calls]) {
        await rm(path, { recursive: true, force: true });
      }
    },
  };
}

async function setupLine(walnut: Installation, dataDirectory: string): Promise<string> {
  const { stdout } = await walnut.mustRun("setup", dataDirectory);
  const line = /^restore_command = '(.*)'$/m.exec(stdout)?.[1];
  assert.ok(line !== undefined, stdout);
  return line.replaceAll("''", "'");
}

function prefetcherPids(dataDirectory: string): number[] {
  const { stdout } = spawnSync("pgrep", ["-f", `wal-prefetch ${dataDirectory} `], {
    encoding: "utf8",
  });
  return stdout.trim().split("\n").filter(Boolean).map(Number);
}

async function untilNoPrefetcher(dataDirectory: string): Promise<void> {
  const endsAt = performance.now() + 60_000;
  while (prefetcherPids(dataDirectory).length > 0) {
    assert.ok(performance.now() < endsAt, "the prefetcher outlives its server");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function assertAllThere({ server }: Recovering): Promise<void> {
  assert.equal(server.outcome, "promoted", server.log());
  assert.equal(await server.value("SELECT count(*) FROM filler"), archived.rowCount);
}

test("a recovery takes most segments without a process, and leaves nothing behind", async () => {
  await using recovering = await recover();
  await assertAllThere(recovering);
  const { dataDirectory, spool, calls } = recovering;
  const segmentCalls = calls().filter((name) => name.length === 24);
  assert.ok(segmentCalls.length < archived.segments.length / 2, calls().join());
  await untilNoPrefetcher(dataDirectory);
  assert.deepEqual(await readdir(join(spool, "prefetch")), []);
  assert.ok(!existsSync(join(spool, "prefetch.sock")));
  const names = await readdir(join(dataDirectory, "pg_wal"));
  const others = names.filter(
    (name) => !/^[0-9A-F]{8}(\.history|[0-9A-F]{16}(\.partial)?)$/.test(name),
  );
  assert.deepEqual(
    others.filter((name) => !/^(archive_status|summaries)$/.test(name)),
    [],
  );
  assert.doesNotMatch(await readFile(join(spool, "prefetch.log"), "utf8"), /ERROR|WARNING/);
});

test("a plain restore_command is answered by the prefetcher, too", async () => {
  const { walnut } = archived;
  await using recovering = await recover({ restoreCommand: walnut.restoreCommand });
  await assertAllThere(recovering);
  await untilNoPrefetcher(recovering.dataDirectory);
  const log = await readFile(join(recovering.spool, "prefetch.log"), "utf8");
  const taken = [...log.matchAll(/prefetcher ends .* takenCount=(\d+)/g)].map(([, n]) => Number(n));
  assert.ok(Math.max(...taken) > archived.segments.length / 2, log);
});

test("WALG_DOWNLOAD_CONCURRENCY=1 fetches nothing ahead", async () => {
  const { primary, repository } = archived;
  const settings = { WALG_FILE_PREFIX: repository, WALG_DOWNLOAD_CONCURRENCY: "1" };
  const walnut = await install(primary, settings, "alone");
  await using recovering = await recover({ walnut });
  await assertAllThere(recovering);
  assert.ok(!existsSync(join(recovering.spool, "prefetch.log")));
});

test("a damaged segment stops recovery where it is, and what is before it was served", async () => {
  const { primary, repository, segments } = archived;
  const damaged = join(primary.directory, "damaged");
  await cp(repository, damaged, { recursive: true });
  await chownTree(damaged, serverUser());
  const middle = segments[Math.floor(segments.length / 2)] ?? "";
  const object = join(damaged, "wal_005", `${middle}.zst`);
  const bytes = await readFile(object);
  bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
  await writeFile(object, bytes);
  const walnut = await install(primary, { WALG_FILE_PREFIX: damaged }, "damaged");
  await using recovering = await recover({ walnut });
  assert.equal(recovering.server.outcome, "exited");
  const log = recovering.server.log();
  assert.match(log, new RegExp(`object wal_005/${middle}.zst .* is damaged`));
  assert.match(log, new RegExp(`could not restore file "${middle}" from archive`));
  // The cold copy has the first one.
  for (const name of segments.slice(1).filter((one) => one < middle)) {
    assert.match(log, new RegExp(`restored log file "${name}"`));
  }

  // Once it is whole again, the same server goes on to the end.
  await writeFile(object, await readFile(join(repository, "wal_005", `${middle}.zst`)));
  await recovering.server.start();
  await recovering.server.waitFor("SELECT NOT pg_is_in_recovery()");
  assert.equal(await recovering.server.value("SELECT count(*) FROM filler"), archived.rowCount);
});

test("recovery goes through a change of timeline, and past what the old one left", async () => {
  const { primary, segments, repository } = archived;
  const own = join(primary.directory, "two-timelines");
  await cp(repository, own, { recursive: true });
  await chownTree(own, serverUser());
  const both = await install(primary, { WALG_FILE_PREFIX: own }, "both");
  const middle = segments[Math.floor(segments.length / 2)] ?? "";
  const position = `${Number.parseInt(middle.slice(8, 16), 16)}/${middle.slice(-3)}80000`;
  let onTwo: string[];
  {
    await using promoted = await recover({
      walnut: both,
      settings: {
        archive_mode: "on",
        archive_command: both.archiveCommand,
        recovery_target_lsn: position,
        recovery_target_action: "promote",
      },
    });
    const { server } = promoted;
    assert.equal(server.outcome, "promoted", server.log());
    await server.query("CREATE TABLE later AS SELECT generate_series(1, 60000) AS id");
    await server.switchWal();
    await server.waitForArchiver();
    onTwo = archivedNames(server).filter((name) => name.startsWith("00000002"));
    assert.ok(onTwo.length > 3, onTwo.join());
  }
  await using recovering = await recover({ walnut: both });
  const { server, calls } = recovering;
  assert.equal(server.outcome, "promoted", server.log());
  assert.equal(await server.value("SELECT count(*) FROM later"), "60000");
  const log = server.log();
  for (const name of onTwo) assert.match(log, new RegExp(`restored log file "${name}"`));
  const called = calls().filter((name) => onTwo.includes(name));
  assert.ok(called.length <= onTwo.length / 2, `${called.join()} of ${onTwo.join()}`);
});

test("a standby at the end of the archive: one prefetcher, nothing piles up", async () => {
  const { primary, repository, segments } = archived;
  const growing = join(primary.directory, "growing");
  await cp(repository, growing, { recursive: true });
  await chownTree(growing, serverUser());
  const half = Math.floor(segments.length / 2);
  const later = segments.slice(half);
  const objectOf = (place: string, name: string) => join(place, "wal_005", `${name}.zst`);
  for (const name of later) await rm(objectOf(growing, name));
  const walnut = await install(primary, { WALG_FILE_PREFIX: growing }, "growing");
  await using recovering = await recover({
    walnut,
    signal: "standby",
    settings: { wal_retrieve_retry_interval: "100ms" },
  });
  const { server, dataDirectory, spool, calls } = recovering;
  const asked = (name: string | undefined) => calls().filter((one) => one === name).length;
  const until = async (isTrue: () => boolean, what: string) => {
    const endsAt = performance.now() + 60_000;
    while (!isTrue()) {
      assert.ok(performance.now() < endsAt, `never: ${what}; ${server.log().slice(-2000)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  await until(() => asked(later[0]) >= 5, "the standby asks again");
  const [pid, ...others] = prefetcherPids(dataDirectory);
  assert.ok(pid !== undefined && others.length === 0);
  // Nothing of the server is held open: a dropped table's space would not come back.
  const open = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return "";
    }
  });
  assert.deepEqual(
    open.filter((path) => path.startsWith(`${dataDirectory}/`)),
    [],
  );
  const status: unknown = JSON.parse(
    (await walnut.mustRun("wal-prefetch", dataDirectory, "--status")).stdout,
  );
  assert.ok(typeof status === "object" && status !== null && "ready" in status);
  assert.equal(status.ready, 0);
  assert.deepEqual(readdirSync(join(spool, "prefetch", runOf(spool))), []);

  // A segment comes, then all the others.
  const [first = "", ...more] = later.slice(0, -1);
  const arrive = async (name: string) => {
    await cp(objectOf(repository, name), `${objectOf(growing, name)}.new`);
    await chownTree(`${objectOf(growing, name)}.new`, serverUser());
    await rename(`${objectOf(growing, name)}.new`, objectOf(growing, name));
  };
  await arrive(first);
  await until(() => asked(more[0]) >= 2, "the next one is asked for");
  for (const name of more) await arrive(name);
  await until(() => asked(later.at(-1)) >= 2, "the end is asked for");
  assert.deepEqual(prefetcherPids(dataDirectory), [pid]);
  for (const name of [first, ...more])
    assert.match(server.log(), new RegExp(`restored log file "${name}"`));
  const log = await readFile(join(spool, "prefetch.log"), "utf8");
  assert.doesNotMatch(log, /ERROR|WARNING/);
  assert.ok(log.split("\n").length < 10, log);
});

function runOf(spool: string): string {
  return readdirSync(join(spool, "prefetch")).find((name) => name.startsWith("run-")) ?? "none";
}
