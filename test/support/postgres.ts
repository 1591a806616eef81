/**
 * Throw-away PostgreSQL servers of every supported release, from the npm packages pg13 to pg18.
 *
 * As root they run as the user "postgres" (or "nobody"), because PostgreSQL refuses root.
 */
import { chmod, chown, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DataDirectoryOptions, makeDataDirectory } from "./data-directory.ts";
import { freePort, type Major } from "./postgres-programs.ts";
import { READY_TIMEOUT_MS, Server } from "./postgres-server.ts";
import { chownTree, type ServerUser, serverUser } from "./server-user.ts";

export { type Major, MAJORS } from "./postgres-programs.ts";

export interface ClusterOptions extends DataDirectoryOptions {
  /** Lines of postgresql.conf by name; values are quoted here. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Turns archive_mode on. */
  readonly archiveCommand?: string;
  /**
   * Environment of the server and of the commands that it starts; PATH, HOME and TMPDIR are set.
   */
  readonly environment?: Readonly<Record<string, string>>;
  /** "data" unless told; may hold blanks. */
  readonly dataDirectoryName?: string;
}

export type StopMode = "smart" | "fast" | "immediate";

export interface WaitOptions {
  readonly timeoutMs?: number;
}

export interface Cluster extends AsyncDisposable {
  readonly major: Major;
  readonly port: number;
  /** Parent of everything of this cluster; belongs to the server's user; removed on dispose. */
  readonly directory: string;
  readonly dataDirectory: string;
  /** Whom the server runs as; undefined = as ourselves. */
  readonly user: ServerUser | undefined;
  /** What libpq and `pg` need: PGHOST, PGPORT, PGUSER, PGDATABASE. */
  readonly connection: Readonly<Record<string, string>>;

  /** Starts the server and waits until it takes connections; rejects with its log if it exits. */
  start(): Promise<void>;
  /** Resolves when the postmaster has exited. */
  stop(mode?: StopMode): Promise<void>;
  /** Resolves with how the running server ended. */
  exited(): Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  query(sql: string, database?: string): Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** First column of the first row as text, "" for null or no row. */
  value(sql: string, database?: string): Promise<string>;
  /** Asks until the value is "true" (as text). */
  waitFor(sql: string, options?: WaitOptions): Promise<void>;
  /** Everything that the server and its commands wrote to stderr since the cluster was made. */
  log(): string;
  /** Resolves when the log has the text; rejects when the server exits without it. */
  waitForLog(pattern: RegExp, options?: WaitOptions & { readonly from?: number }): Promise<void>;
  /** Finishes the current segment and returns its name. */
  switchWal(): Promise<string>;
  /** Adds lines to postgresql.conf; a running server reads them again. */
  configure(settings: Readonly<Record<string, string>>): Promise<void>;
  /** Moves pg_wal of a stopped server there and leaves a symbolic link. */
  moveWal(directory: string): Promise<void>;
  /** Resolves when no file in archive_status waits for the archiver. */
  waitForArchiver(options?: WaitOptions): Promise<void>;
  /** A new directory below `directory` that the server's user owns. */
  makeDirectory(name: string): Promise<string>;
  /**
   * pg_dumpall's text, or undefined when the machine has no client tool of this release or later.
   */
  dumpAll(): string | undefined;
  /** Row count and hash of every table, sequences, roles: equal before and after a good restore. */
  contents(): Promise<string>;
}

/** Makes a cluster and starts it. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const cluster = await initCluster(options);
  try {
    await cluster.start();
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
  return cluster;
}

/** Makes a cluster without starting it. */
export async function initCluster(options: ClusterOptions): Promise<Cluster> {
  const { major } = options;
  const user = serverUser();
  const directory = await makeRoot(user);
  const dataDirectory = join(directory, options.dataDirectoryName ?? "data");
  makeDataDirectory(options, { root: directory, dataDirectory, user });

  const archiving =
    options.archiveCommand === undefined
      ? {}
      : { archive_mode: "on", archive_command: options.archiveCommand };
  const cluster = new Server({
    major,
    directory,
    dataDirectory,
    user,
    port: await freePort(),
    environment: options.environment ?? {},
    settings: {},
  });
  await cluster.configure({ ...archiving, ...options.settings });
  return cluster;
}

export interface RestoreOptions {
  readonly major: Major;
  readonly signal: "recovery" | "standby";
  readonly restoreCommand: string;
  /** Override what postgresql.conf says; archive_mode is off unless told. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly environment?: Readonly<Record<string, string>>;
  /** Until when to wait: recovery waits for "promoted" unless told, a standby for "consistent". */
  readonly until?: "promoted" | "consistent";
  readonly timeoutMs?: number;
}

export interface RestoredCluster extends Cluster {
  /** "exited": the server ended by itself before it got there; see `log()`. */
  readonly outcome: "promoted" | "consistent" | "exited";
}

/**
 * Starts a server on a restored data directory (which the caller keeps owning and removes), as
 * PostgreSQL's user would: the tree is given to the server's user first.
 */
export async function restoreCluster(
  dataDirectory: string,
  options: RestoreOptions,
): Promise<RestoredCluster> {
  const user = serverUser();
  await writeFile(join(dataDirectory, `${options.signal}.signal`), "");
  await rm(join(dataDirectory, "postmaster.pid"), { force: true });
  await chmod(dataDirectory, 0o700);
  await chownTree(dataDirectory, user);
  const cluster = new Server({
    major: options.major,
    directory: await makeRoot(user),
    dataDirectory,
    user,
    port: await freePort(),
    environment: options.environment ?? {},
    settings: {
      archive_mode: "off",
      restore_command: options.restoreCommand,
      hot_standby: "on",
      ...options.settings,
    },
  });
  const until = options.until ?? (options.signal === "recovery" ? "promoted" : "consistent");
  try {
    const outcome = await cluster.launch(until, options.timeoutMs ?? READY_TIMEOUT_MS);
    return Object.assign(cluster, { outcome });
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

async function makeRoot(user: ServerUser | undefined): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "walnut-pg-"));
  await chmod(directory, 0o755);
  if (user !== undefined) await chown(directory, user.uid, user.gid);
  return directory;
}
