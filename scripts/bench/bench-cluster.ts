import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Debian's PostgreSQL 15: its pgBackRest knows it, and pgbench comes with it. */
export const BIN = "/usr/lib/postgresql/15/bin";
const PORT = "54329";
/** In percent. Room on each page, so that an update of a row changes no other page. */
const FILL_FACTOR = "95";

export interface BenchClusterOptions {
  /** pgbench's: about 15.7 MB each. */
  readonly scale: number;
  /** The cluster is made in a folder of its own in there. */
  readonly base?: string | undefined;
  /** In there it is kept for the next run instead, stopped, and found again; one a release. */
  readonly keep?: string | undefined;
  /** Folder of initdb, pg_ctl and postgres; of 15 unless told. */
  readonly serverPrograms?: string;
  /** More lines for postgresql.conf. */
  readonly settings?: readonly string[];
}

/** A pgbench cluster for benchmarks, with an archive of its plain segments beside it. */
export interface BenchCluster extends Disposable {
  readonly home: string;
  readonly dataDirectory: string;
  readonly port: string;
  readonly user: string;
  /** Folder of complete segments, as PostgreSQL handed them over. */
  readonly segmentDirectory: string;
  sql(text: string): void;
  setArchiveCommand(command: string): void;
  /** Returns when nothing waits to be archived. */
  waitForArchiver(): void;
  segments(): string[];
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function configLines({
  home,
  archiveCommand,
  settings,
}: {
  readonly home: string;
  readonly archiveCommand: string;
  readonly settings: readonly string[];
}): readonly string[] {
  return [
    "listen_addresses = ''",
    `port = ${PORT}`,
    `unix_socket_directories = '${home}'`,
    "wal_level = replica",
    "archive_mode = on",
    `archive_command = '${archiveCommand}'`,
    "max_wal_size = 2GB",
    "shared_buffers = 512MB",
    ...settings,
    "",
  ];
}

/** What is left of a kept cluster when it is put away: its data, and nothing of those measured. */
function putAway(home: string): void {
  for (const name of readdirSync(home)) {
    if (name !== "data") rmSync(join(home, name), { recursive: true, force: true });
  }
}

function makeHome({ base = tmpdir(), keep, serverPrograms = BIN }: BenchClusterOptions): string {
  if (keep === undefined) return mkdtempSync(join(base, "walnut-bench-"));
  const home = join(keep, `walnut-bench${serverPrograms.replaceAll(/[^0-9a-z]+/gi, "-")}`);
  mkdirSync(home, { recursive: true });
  return home;
}

export function startBenchCluster(options: BenchClusterOptions): BenchCluster {
  const { scale, keep, serverPrograms = BIN, settings = [] } = options;
  const user = "postgres";
  const home = makeHome(options);
  const dataDirectory = join(home, "data");
  const isKept = existsSync(join(dataDirectory, "PG_VERSION"));
  const segmentDirectory = join(home, "segments");
  mkdirSync(segmentDirectory, { recursive: true });
  chmodSync(home, 0o755);
  if (isRoot()) execFileSync("chown", ["-R", `${user}:${user}`, home]);

  const run = (program: string, ...words: string[]) => {
    const identity = isRoot()
      ? ["setpriv", `--reuid=${user}`, `--regid=${user}`, "--clear-groups"]
      : [];
    const own = join(serverPrograms, program);
    const path = existsSync(own) ? own : join(BIN, program);
    const [command = "", ...rest] = [...identity, path, ...words];
    execFileSync(command, rest, { cwd: home, stdio: ["ignore", "ignore", "pipe"] });
  };
  const sql = (text: string) =>
    run("psql", "-X", "-q", "-h", home, "-p", PORT, "-U", user, "-d", "postgres", "-c", text);

  const make = (): void => {
    run("initdb", "-D", dataDirectory, "-U", user, "-A", "trust", "-k", "--locale=C", "-E", "UTF8");
    const config = configLines({ home, archiveCommand, settings });
    appendFileSync(join(dataDirectory, "postgresql.conf"), config.join("\n"));
  };
  const fill = (): void => {
    const target = ["-h", home, "-p", PORT, "-U", user, "postgres"];
    run("pgbench", "-i", "-q", "-s", String(scale), "-F", FILL_FACTOR, ...target);
    run("pgbench", "-T", "20", "-c", "4", ...target);
    sql("checkpoint");
  };
  const setArchiveCommand = (command: string): void => {
    sql(`alter system set archive_command = '${command.replaceAll("'", "''")}'`);
    sql("select pg_reload_conf()");
  };
  const archiveCommand = `cp %p ${segmentDirectory}/%f`;
  if (!isKept) make();
  run("pg_ctl", "-D", dataDirectory, "-l", join(home, "server.log"), "-w", "start");
  // Nobody keeps the segments of its making, which are as many bytes again.
  if (keep !== undefined) setArchiveCommand("/bin/true");
  if (!isKept) fill();
  if (keep !== undefined) setArchiveCommand(archiveCommand);

  return {
    home,
    dataDirectory,
    port: PORT,
    user,
    segmentDirectory,
    sql,
    setArchiveCommand,
    waitForArchiver() {
      const status = join(dataDirectory, "pg_wal", "archive_status");
      while (readdirSync(status).some((name) => name.endsWith(".ready"))) {
        execFileSync("sleep", ["0.1"]);
      }
    },
    segments: () =>
      readdirSync(segmentDirectory)
        .filter((name) => /^[0-9A-F]{24}$/.test(name))
        .toSorted(),
    [Symbol.dispose]() {
      if (keep !== undefined) setArchiveCommand("/bin/true");
      const mode = keep === undefined ? "immediate" : "fast";
      run("pg_ctl", "-D", dataDirectory, "-m", mode, "-t", "120", "-w", "stop");
      if (keep === undefined) rmSync(home, { recursive: true, force: true });
      else putAway(home);
    },
  };
}
