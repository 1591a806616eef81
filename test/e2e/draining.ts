/**
 * What the tests of pushing ahead share: a server with a backlog, setup's line, kills and proof.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { type Cluster, initCluster } from "../support/postgres.ts";
import type { Random } from "../support/random.ts";
import { type Installation, install } from "../support/repository.ts";
import { until } from "../support/until.ts";

const { signal } = new AbortController();

export interface Draining {
  readonly cluster: Cluster;
  readonly walnut: Installation;
  /** A directory store, unless the settings name another one. */
  readonly repository: string;
  readonly walDirectory: string;
}

/** Gives the object of a WAL file, compressed. */
export type ReadObject = (name: string) => Promise<Buffer>;

/** A server with `count` segments that are ready and can't be archived yet. */
export async function startWithBacklog(
  count: number,
  settings: Readonly<Record<string, string>> = {},
): Promise<Draining> {
  const cluster = await initCluster({
    major: 17,
    segmentMiB: 1,
    settings: {
      archive_mode: "on",
      archive_command: "false",
      max_wal_size: "4GB",
      min_wal_size: "1GB",
      checkpoint_timeout: "1h",
      autovacuum: "off",
    },
  });
  try {
    const repository = await cluster.makeDirectory("repository");
    const isElsewhere = "WALG_S3_PREFIX" in settings;
    const place = isElsewhere ? {} : { WALG_FILE_PREFIX: repository };
    const walnut = await install(cluster, { ...place, ...settings });
    await cluster.start();
    const draining = {
      cluster,
      walnut,
      repository,
      walDirectory: join(cluster.dataDirectory, "pg_wal"),
    };
    await fill(draining, count);
    return draining;
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

export async function fill({ cluster, walDirectory }: Draining, count: number): Promise<void> {
  await cluster.query("CREATE TABLE IF NOT EXISTS filler (id bigserial, content text)");
  const wanted = (await readyNames(walDirectory)).length + count;
  while ((await readyNames(walDirectory)).length < wanted) {
    await cluster.query(
      `INSERT INTO filler (content) SELECT string_agg(md5(random()::text), '')
       FROM generate_series(1, 40000) AS n GROUP BY n % 1000`,
    );
  }
  await cluster.switchWal();
}

export async function readyNames(walDirectory: string): Promise<string[]> {
  const names = await readdir(join(walDirectory, "archive_status"));
  return names.filter((name) => name.endsWith(".ready")).map((name) => name.slice(0, -6));
}

export async function doneNames(walDirectory: string): Promise<string[]> {
  const names = await readdir(join(walDirectory, "archive_status"));
  return names.filter((name) => name.endsWith(".done")).map((name) => name.slice(0, -5));
}

/** The archive_command that `walnut setup` prints. */
export async function setupLine({ walnut, cluster }: Draining): Promise<string> {
  const { stdout } = await walnut.mustRun("setup", cluster.dataDirectory);
  const line = /^archive_command = '(.*)'$/m.exec(stdout)?.[1];
  assert.ok(line !== undefined, stdout);
  return line.replaceAll("''", "'");
}

/** Every file that PostgreSQL took as archived is in the repository as it is on the disk. */
export async function assertNothingLost(
  { walDirectory, repository }: Draining,
  {
    note = "",
    verified = new Set<string>(),
    readObject = (name) => readFile(join(repository, "wal_005", `${name}.zst`)),
  }: {
    readonly note?: string;
    readonly verified?: Set<string>;
    readonly readObject?: ReadObject;
  } = {},
): Promise<number> {
  const done = await doneNames(walDirectory);
  for (const name of done) {
    if (verified.has(name)) continue;
    const object = await readObject(name);
    const decoded = codecOf("zstd").decompress(bytesSource(object).open(), { jobs: 1, signal });
    const original = await readFile(join(walDirectory, name));
    assert.ok(original.equals(await readAll(decoded)), `${name} was lost; ${note}`);
    verified.add(name);
  }
  return done.length;
}

/** Ids of the drainers of this cluster. */
function drainerPids(cluster: Cluster): number[] {
  return pidsOf(`wal-drain ${cluster.dataDirectory}`);
}

/** Ids of the processes with this in their command line. */
export function pidsOf(pattern: string): number[] {
  const { stdout } = spawnSync("pgrep", ["-f", pattern], { encoding: "utf8" });
  return stdout.trim().split("\n").filter(Boolean).map(Number);
}

/** Nothing is archived from now on, and nothing is left that would. */
export async function stopArchiving({ cluster }: Draining): Promise<void> {
  await cluster.configure({ archive_command: "false" });
  await until("nothing is pushed", () => pidsOf(`${cluster.directory}.*wal-push`).length === 0);
  for (const pid of drainerPids(cluster)) process.kill(pid, "SIGKILL");
  await until("the drainer is dead", () => drainerPids(cluster).length === 0);
}

/** Kills what runs for the archiver: all drainers, or all pushes. */
export function killSome({ cluster }: Draining, random: Random): void {
  const pattern = random.next() < 0.5 ? "wal-drain" : "wal-push";
  const found = spawnSync("pgrep", ["-f", `${cluster.directory}.*${pattern}`], {
    encoding: "utf8",
  });
  for (const pid of found.stdout.trim().split("\n").filter(Boolean)) {
    // Not the archiver's own shell: without it the archiver itself would end.
    if (isShell(pid)) continue;
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // It has ended.
    }
  }
}

/**
 * The line such that a killed command is one that failed: a killed shell ends the archiver itself
 * for a minute.
 */
export function survivingKills(line: string): string {
  return line.replace(" || exec ", " || ").concat(" || exit 1");
}

function isShell(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith("sh\0");
  } catch {
    return true;
  }
}

/** The drainer ends with its server. */
export async function stopAll(cluster: Cluster): Promise<void> {
  await cluster.stop("fast");
  await until("the drainer ends", () => drainerPids(cluster).length === 0);
}
