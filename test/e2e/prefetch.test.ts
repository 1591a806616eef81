/**
 * Fetching ahead with real servers: setup's line in PostgreSQL's own shell, a change of timeline,
 * damage, kills, and a standby that asks again and again.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cp, readdir, readFile, rm } from "node:fs/promises";
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
  assert.deepEqual(names.filter((name) => !/^[0-9A-F]{8}/.test(name)).toSorted(), [
    "archive_status",
    ...(names.includes("summaries") ? ["summaries"] : []),
  ]);
  const log = await readFile(join(spool, "prefetch.log"), "utf8");
  assert.doesNotMatch(log, /ERROR|WARNING/);
});
