import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { appendFile, chown, cp, mkdir, readdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "pg";
import {
  clientProgram,
  type Major,
  serverEnvironment,
  serverProgram,
} from "./postgres-programs.ts";
import type { Cluster, StopMode, WaitOptions } from "./postgres.ts";
import { chownTree, type ServerUser } from "./server-user.ts";

export interface ServerParts {
  readonly major: Major;
  readonly directory: string;
  readonly dataDirectory: string;
  readonly user: ServerUser | undefined;
  readonly port: number;
  readonly environment: Readonly<Record<string, string>>;
  /** Given on the command line, so that they win over every file. */
  readonly settings: Readonly<Record<string, string>>;
}

export type Goal = "promoted" | "consistent";

export const READY_TIMEOUT_MS = 60_000;
const POLL_MS = 25;
const SIGNALS = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const;
const READY = {
  promoted: /database system is ready to accept connections/,
  consistent: /database system is ready to accept (read[- ]only )?connections/,
};
const MAX_DUMP_BYTES = 1024 * 1024 * 1024;
/** A socket's path must stay below 108 bytes. */
const MAX_SOCKET_DIRECTORY_LENGTH = 80;

/** One postmaster at a time on one data directory. */
export class Server implements Cluster {
  readonly major: Major;
  readonly port: number;
  readonly directory: string;
  readonly dataDirectory: string;
  readonly user: ServerUser | undefined;
  readonly connection: Readonly<Record<string, string>>;
  readonly #parts: ServerParts;
  readonly #listeners = new Set<() => void>();
  #child: ChildProcess | undefined;
  #log = "";

  constructor(parts: ServerParts) {
    this.#parts = parts;
    this.major = parts.major;
    this.port = parts.port;
    this.directory = parts.directory;
    this.dataDirectory = parts.dataDirectory;
    this.user = parts.user;
    this.connection = {
      PGHOST: "127.0.0.1",
      PGPORT: String(parts.port),
      PGUSER: "postgres",
      PGDATABASE: "postgres",
    };
  }

  async start(): Promise<void> {
    if ((await this.launch("consistent", READY_TIMEOUT_MS)) === "exited") {
      throw new Error(`PostgreSQL ${this.major} did not start:\n${this.#log}`);
    }
  }

  /** Starts the postmaster; resolves when it got to the goal or ended by itself. */
  async launch(goal: Goal, timeoutMs: number): Promise<Goal | "exited"> {
    const from = this.#log.length;
    this.#spawn();
    return await this.#waitForEvent(`"${goal}"`, timeoutMs, () => {
      if (READY[goal].test(this.#log.slice(from))) return goal;
      return this.#isRunning() ? undefined : "exited";
    });
  }

  async stop(mode: StopMode = "fast"): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.#isRunning()) return;
    const exit = once(child, "exit");
    child.kill(SIGNALS[mode]);
    await exit;
  }

  async exited(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    return await this.#waitForEvent("exit of the server", READY_TIMEOUT_MS, () => {
      const child = this.#child;
      if (child === undefined || this.#isRunning()) return undefined;
      return { code: child.exitCode, signal: child.signalCode };
    });
  }

  async query(
    sql: string,
    database = "postgres",
  ): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const { port } = this;
    const client = new Client({ host: "127.0.0.1", port, user: "postgres", database });
    // A server that is stopped ends the session; the query that is under way rejects by itself.
    client.on("error", () => {});
    await client.connect();
    try {
      const result = await client.query<Record<string, unknown>>(sql);
      return result.rows ?? [];
    } finally {
      await client.end();
    }
  }

  async value(sql: string, database?: string): Promise<string> {
    const [row] = await this.query(sql, database);
    return text(row === undefined ? undefined : Object.values(row)[0]);
  }

  log(): string {
    return this.#log;
  }

  async waitFor(sql: string, { timeoutMs = READY_TIMEOUT_MS }: WaitOptions = {}): Promise<void> {
    const signal = AbortSignal.timeout(timeoutMs);
    while ((await this.value(sql)) !== "true") {
      if (signal.aborted) throw new Error(`not true within ${timeoutMs} ms: ${sql}`);
      await delay(POLL_MS);
    }
  }

  async waitForLog(
    pattern: RegExp,
    { timeoutMs = READY_TIMEOUT_MS, from = 0 }: WaitOptions & { readonly from?: number } = {},
  ): Promise<void> {
    const isFound = await this.#waitForEvent(`${pattern} in the log`, timeoutMs, () => {
      if (pattern.test(this.#log.slice(from))) return true;
      return this.#isRunning() ? undefined : false;
    });
    if (!isFound) throw new Error(`server ended without ${pattern} in its log:\n${this.#log}`);
  }

  async switchWal(): Promise<string> {
    return await this.value(
      "SELECT pg_walfile_name(lsn) FROM (SELECT pg_switch_wal() AS lsn) AS switched",
    );
  }

  async configure(settings: Readonly<Record<string, string>>): Promise<void> {
    const lines = Object.entries(settings).map(
      ([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`,
    );
    await appendFile(join(this.dataDirectory, "postgresql.conf"), lines.join(""));
    if (this.#isRunning()) await this.query("SELECT pg_reload_conf()");
  }

  async moveWal(directory: string): Promise<void> {
    if (this.#isRunning()) throw new Error("pg_wal of a running server can't be moved");
    const link = join(this.dataDirectory, "pg_wal");
    await cp(link, directory, { recursive: true });
    await chownTree(directory, this.user);
    await rm(link, { recursive: true });
    await symlink(directory, link);
    await chownTree(link, this.user);
  }

  async waitForArchiver({ timeoutMs = READY_TIMEOUT_MS }: WaitOptions = {}): Promise<void> {
    const signal = AbortSignal.timeout(timeoutMs);
    const status = join(this.dataDirectory, "pg_wal", "archive_status");
    while ((await readdir(status)).some((name) => name.endsWith(".ready"))) {
      if (signal.aborted) {
        throw new Error(`archiver not done within ${timeoutMs} ms; server log:\n${this.#log}`);
      }
      await delay(POLL_MS);
    }
  }

  async makeDirectory(name: string): Promise<string> {
    const path = join(this.directory, name);
    await mkdir(path);
    if (this.user !== undefined) await chown(path, this.user.uid, this.user.gid);
    return path;
  }

  dumpAll(): string | undefined {
    const program = clientProgram(this.major, "pg_dumpall");
    if (program === undefined) return undefined;
    const dump = spawnSync(program, ["--no-sync"], {
      encoding: "utf8",
      env: { PATH: process.env["PATH"], ...this.connection },
      maxBuffer: MAX_DUMP_BYTES,
    });
    if (dump.status !== 0) throw new Error(`pg_dumpall failed: ${dump.stderr}`);
    return dump.stdout;
  }

  async contents(): Promise<string> {
    const lines: string[] = [];
    for (const { rolname } of await this.query("SELECT rolname FROM pg_roles ORDER BY 1")) {
      lines.push(`role ${text(rolname)}`);
    }
    const sql = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1";
    for (const { datname } of await this.query(sql)) {
      lines.push(...(await this.#databaseContents(text(datname))));
    }
    return `${lines.join("\n")}\n`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("immediate");
    await rm(this.directory, { recursive: true, force: true });
  }

  async #databaseContents(database: string): Promise<readonly string[]> {
    const relations = await this.query(
      `SELECT format('%I.%I', nspname, relname) AS name, relkind::text AS kind
         FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relkind IN ('r', 'm', 'S') AND nspname NOT IN ('pg_catalog', 'information_schema')
          AND relpersistence <> 't' AND nspname NOT LIKE 'pg\\_toast%'
        ORDER BY 1`,
      database,
    );
    const lines: string[] = [];
    for (const relation of relations) {
      const name = text(relation["name"]);
      const sql =
        relation["kind"] === "S"
          ? `SELECT last_value::text || ' ' || is_called::text FROM ${name}`
          : `SELECT count(*) || ' ' ||
                    coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '')
               FROM ${name} AS t`;
      lines.push(`${database} ${name} ${await this.value(sql, database)}`);
    }
    return lines;
  }

  #isRunning(): boolean {
    const child = this.#child;
    return child?.pid !== undefined && child.exitCode === null && child.signalCode === null;
  }

  #spawn(): void {
    const { directory, dataDirectory } = this;
    const settings = {
      listen_addresses: "127.0.0.1",
      port: String(this.port),
      unix_socket_directories: directory.length < MAX_SOCKET_DIRECTORY_LENGTH ? directory : "",
      fsync: "off",
      logging_collector: "off",
      log_destination: "stderr",
      ...this.#parts.settings,
    };
    const words = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const program = serverProgram(this.major, "postgres");
    const child = spawn(program, ["-D", dataDirectory, ...words], {
      ...this.user,
      cwd: dataDirectory,
      env: serverEnvironment(directory, this.#parts.environment),
      stdio: ["ignore", "ignore", "pipe"],
    });
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      this.#log += chunk;
      this.#changed();
    });
    // A test run that ends early must not leave servers behind.
    const kill = (): boolean => child.kill("SIGQUIT");
    process.once("exit", kill);
    // "exit", not "close": a command that the server started may keep our pipe open for longer.
    child.once("exit", () => {
      process.off("exit", kill);
      this.#changed();
    });
    child.once("error", (error) => {
      this.#log += `${error.message}\n`;
      this.#changed();
    });
    this.#child = child;
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Resolves at the first event of the server at which `check` gives a value. */
  async #waitForEvent<T>(what: string, timeoutMs: number, check: () => T | undefined): Promise<T> {
    const found = check();
    if (found !== undefined) return found;
    return await new Promise<T>((resolve, reject) => {
      const finish = (): void => {
        const value = check();
        if (value === undefined) return;
        clearTimeout(timer);
        this.#listeners.delete(finish);
        resolve(value);
      };
      const timer = setTimeout(() => {
        this.#listeners.delete(finish);
        reject(new Error(`no ${what} within ${timeoutMs} ms; server log:\n${this.#log}`));
      }, timeoutMs);
      this.#listeners.add(finish);
    });
  }
}

function text(value: unknown): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}
