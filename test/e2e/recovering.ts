/** Recoveries from an archive, with the restore_command that setup prints. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  type Cluster,
  initCluster,
  type Major,
  restoreCluster,
  type RestoredCluster,
  type RestoreOptions,
} from "../support/postgres.ts";
import { type Installation, install } from "../support/repository.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { until } from "../support/until.ts";

export interface Archived extends AsyncDisposable {
  /** Stopped. */
  readonly primary: Cluster;
  readonly walnut: Installation;
  /** Where a directory store is, unless other settings were given. */
  readonly repository: string;
  /** A data directory as it was before any of the archived WAL. */
  readonly backup: string;
  /** Archived segments of timeline 1. */
  readonly segments: readonly string[];
  /** Of the table "filler". */
  readonly rowCount: string;
}

/** A server whose WAL, some forty segments, is archived, and a cold copy from before it. */
export async function archive({
  major = 17,
  segmentCount = 40,
  settings = {},
}: {
  readonly major?: Major;
  readonly segmentCount?: number;
  /** Of the store; a directory unless there are any. */
  readonly settings?: Readonly<Record<string, string>>;
} = {}): Promise<Archived> {
  const primary = await initCluster({
    major,
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
  const store = Object.keys(settings).length === 0 ? { WALG_FILE_PREFIX: repository } : settings;
  const walnut = await install(primary, store);
  await primary.start();
  await primary.query("CREATE TABLE filler (id bigserial PRIMARY KEY, content text)");
  await primary.stop();
  const backup = join(primary.directory, "backup");
  await cp(primary.dataDirectory, backup, { recursive: true });

  await primary.configure({ archive_command: walnut.archiveCommand });
  await primary.start();
  while (archivedNames(primary).length < segmentCount) {
    await primary.query(
      `INSERT INTO filler (content) SELECT string_agg(md5(random()::text), '')
       FROM generate_series(1, 40000) AS n GROUP BY n % 1000`,
    );
  }
  await primary.switchWal();
  await primary.waitForArchiver();
  const rowCount = await primary.value("SELECT count(*) FROM filler");
  await primary.stop();
  return {
    primary,
    walnut,
    repository,
    backup,
    segments: archivedNames(primary),
    rowCount,
    [Symbol.asyncDispose]: () => primary[Symbol.asyncDispose](),
  };
}

/** Segments that have been, or are to be, archived. */
export function archivedNames({ dataDirectory }: Cluster): string[] {
  return readdirSync(join(dataDirectory, "pg_wal", "archive_status"))
    .map((name) => name.replace(/\.(ready|done)$/, ""))
    .filter((name) => /^0000000[1-9][0-9A-F]{16}$/.test(name))
    .toSorted();
}

export interface Recovering extends AsyncDisposable {
  readonly server: RestoredCluster;
  readonly dataDirectory: string;
  readonly spool: string;
  /** Files for which the shell had to start a process. */
  readonly calls: () => string[];
}

export interface RecoverOptions extends Partial<RestoreOptions> {
  /** That of the archived cluster unless told. */
  readonly walnut?: Installation;
  /** Told before the server starts. */
  readonly onPlace?: (dataDirectory: string) => unknown;
}

/** A server that recovers with the line that setup prints. */
export async function recover(
  archived: Archived,
  options: RecoverOptions = {},
): Promise<Recovering> {
  const { primary, backup } = archived;
  const { walnut = archived.walnut, onPlace, ...restoring } = options;
  const place = await primary.makeDirectory(`restored-${readdirSync(primary.directory).length}`);
  const dataDirectory = join(place, "data");
  await cp(backup, dataDirectory, { recursive: true });
  await chownTree(dataDirectory, serverUser());
  const line = await setupLine(walnut, dataDirectory);
  const calls = join(place, "calls");
  await onPlace?.(dataDirectory);
  const server = await restoreCluster(dataDirectory, {
    major: primary.major,
    signal: "recovery",
    restoreCommand: notingCalls(line, calls),
    ...restoring,
  });
  return {
    server,
    dataDirectory,
    spool: `${dataDirectory}.walnut`,
    calls: () => (existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n") : []),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await untilNoPrefetcher(dataDirectory);
      await rm(place, { recursive: true, force: true });
    },
  };
}

/** The line with a shell before walnut that notes each call of it. */
function notingCalls(line: string, calls: string): string {
  const noting = `/bin/sh -c 'echo %f >> ${calls}; exec "$@"' sh `;
  const noted = line.replace(/^exec |set -- /, (words) => `${words}${noting}`);
  assert.notEqual(noted, line);
  return noted;
}

/** Starts a server that may be killed again until it has got to the end; `note` is for a failure. */
export async function toTheEnd({ server }: Recovering, note: string): Promise<void> {
  await until(
    "the end of recovery",
    async () => {
      try {
        await server.waitFor("SELECT NOT pg_is_in_recovery()", { timeoutMs: 60_000 });
        return true;
      } catch {
        // Processes of the killed server may still hold its memory: then this fails, too.
        await server.start().catch(() => {});
        return false;
      }
    },
    () => `${note} ${server.log().slice(-3000)}`,
  );
}

async function setupLine(walnut: Installation, dataDirectory: string): Promise<string> {
  const { stdout } = await walnut.mustRun("setup", dataDirectory);
  const line = /^restore_command = '(.*)'$/m.exec(stdout)?.[1];
  assert.ok(line !== undefined, stdout);
  return line.replaceAll("''", "'");
}

export function prefetcherPids(dataDirectory: string): number[] {
  const { stdout } = spawnSync("pgrep", ["-f", `wal-prefetch ${dataDirectory} `], {
    encoding: "utf8",
  });
  return stdout.trim().split("\n").filter(Boolean).map(Number);
}

export async function untilNoPrefetcher(dataDirectory: string): Promise<void> {
  await until("the prefetcher ends", () => prefetcherPids(dataDirectory).length === 0);
}
