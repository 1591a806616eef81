/** One machine of a cluster that is treated badly: a data directory, its server and its walnut. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { appendFile, chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Path } from "./chaos-line.ts";
import type { Major } from "./postgres-programs.ts";
import { Server } from "./postgres-server.ts";
import { chownTree, serverUser } from "./server-user.ts";
import { until } from "./until.ts";
import { type RunResult, runWalnut } from "./walnut.ts";

export interface NodeParts {
  readonly name: string;
  /** Of this node alone. */
  readonly directory: string;
  readonly major: Major;
  readonly port: number;
  /** Of the store. */
  readonly settings: Readonly<Record<string, string>>;
  readonly archiveMode: "on" | "always";
}

export type Role = "primary" | "standby" | "down";

export interface StartOptions {
  readonly role: "primary" | "standby" | "recovery";
  readonly settings?: Readonly<Record<string, string>>;
}

export class ChaosNode {
  readonly name: string;
  readonly port: number;
  readonly directory: string;
  readonly dataDirectory: string;
  readonly configFile: string;
  role: Role = "down";
  /** What its WAL may be, at the most. */
  path: Path = [];
  /** When it ran last. */
  wasStandby = true;
  readonly #parts: NodeParts;
  readonly #servers: Server[] = [];

  private constructor(parts: NodeParts) {
    this.#parts = parts;
    this.name = parts.name;
    this.port = parts.port;
    this.directory = parts.directory;
    this.dataDirectory = join(parts.directory, "data");
    this.configFile = join(parts.directory, "walnut.json");
  }

  static async make(parts: NodeParts): Promise<ChaosNode> {
    const node = new ChaosNode(parts);
    const cache = join(parts.directory, "cache");
    await mkdir(cache, { recursive: true });
    const connection = { PGHOST: "127.0.0.1", PGUSER: "postgres", PGDATABASE: "postgres" };
    const settings = {
      WALNUT_CACHE_DIR: cache,
      ...connection,
      PGPORT: String(parts.port),
      ...parts.settings,
    };
    await writeFile(node.configFile, JSON.stringify(settings));
    await chownTree(parts.directory, serverUser());
    return node;
  }

  get server(): Server {
    const server = this.#servers.at(-1);
    if (server === undefined) throw new Error(`${this.name} was never started`);
    return server;
  }

  /** Of all its starts. */
  log(): string {
    return this.#servers.map((server) => server.log()).join("\n--- started again\n");
  }

  run(words: readonly string[], killAfterMs = 120_000): Promise<RunResult> {
    const args = ["--config", this.configFile, ...words];
    return runWalnut(args, { cwd: this.directory, user: serverUser(), killAfterMs });
  }

  async mustRun(...words: readonly string[]): Promise<string> {
    const { code, signal, stdout, stderr } = await this.run(words);
    assert.equal(code, 0, `${this.name}: ${words.join(" ")}: ${signal}\n${stdout}${stderr}`);
    return stdout;
  }

  /** Lines that PostgreSQL reads after all others. */
  async configure(settings: Readonly<Record<string, string>>): Promise<void> {
    const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'\n`);
    await appendFile(join(this.dataDirectory, "postgresql.auto.conf"), lines.join(""));
    if (this.role !== "down") await this.server.query("SELECT pg_reload_conf()");
  }

  /** Starts the server, however it was ended before, and gives what it got to. */
  async start({
    role,
    settings = {},
  }: StartOptions): Promise<"promoted" | "consistent" | "exited"> {
    const { major, directory, port, archiveMode } = this.#parts;
    const { dataDirectory } = this;
    const user = serverUser();
    for (const name of ["standby", "recovery"]) {
      await rm(join(dataDirectory, `${name}.signal`), { force: true });
      if (role === name) await writeFile(join(dataDirectory, `${name}.signal`), "");
    }
    await chmod(dataDirectory, 0o700);
    await chownTree(dataDirectory, user);
    await untilNoServer(dataDirectory);
    await rm(join(dataDirectory, "postmaster.pid"), { force: true });
    const server = new Server({
      major,
      directory,
      dataDirectory,
      user,
      port,
      environment: {},
      settings: {
        archive_mode: archiveMode,
        ...(await this.#lines()),
        recovery_target_timeline: "latest",
        wal_retrieve_retry_interval: "200ms",
        wal_log_hints: "on",
        autovacuum: "off",
        max_wal_senders: "10",
        ...settings,
      },
    });
    this.#servers.push(server);
    const outcome = await server.launch(role === "standby" ? "consistent" : "promoted", 60_000);
    if (outcome === "exited") this.role = "down";
    else this.role = role === "standby" ? "standby" : "primary";
    this.wasStandby = role === "standby";
    return outcome;
  }

  /** As an administrator ends it, or with its postmaster killed. */
  async stop(how: "fast" | "immediate" | "kill"): Promise<void> {
    if (this.role === "down") return;
    this.role = "down";
    if (how !== "kill") return await this.server.stop(how);
    // A standby whose restore_command was killed has ended by itself.
    const pidFile = join(this.dataDirectory, "postmaster.pid");
    if (!existsSync(pidFile)) return;
    kill(Number(readFileSync(pidFile, "utf8").split("\n")[0]));
    await this.server.exited();
    await untilNoServer(this.dataDirectory);
  }

  /** What walnut runs for this data directory. */
  walnutPids(): { readonly pid: number; readonly what: string }[] {
    return processes().flatMap(({ pid, words }) => {
      // Not the archiver's shell, whose line holds all of it in one word.
      const isOwn = (word: string) =>
        word === this.configFile || word === `--config=${this.configFile}`;
      const at = words.findIndex(isOwn);
      return at < 0 ? [] : [{ pid, what: words[at + 1] ?? "" }];
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.role = "down";
    for (const server of this.#servers) await server.stop("immediate");
    for (const { pid } of this.walnutPids()) kill(pid);
    await untilNoServer(this.dataDirectory);
    await rm(this.directory, { recursive: true, force: true });
  }

  /** The commands that `walnut setup` prints. */
  async #lines(): Promise<Record<string, string>> {
    const stdout = await this.mustRun("setup", this.dataDirectory);
    const line = (name: string): string => {
      const text = new RegExp(`^${name} = '(.*)'$`, "m").exec(stdout)?.[1];
      assert.ok(text !== undefined, stdout);
      return text.replaceAll("''", "'");
    };
    // A killed command is to be one that failed, not the end of the archiver for ten seconds.
    const archiving = line("archive_command").replace(" || exec ", " || ").concat(" || exit 1");
    return { archive_command: archiving, restore_command: line("restore_command") };
  }
}

export function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

interface Process {
  readonly pid: number;
  readonly words: readonly string[];
}

function processes(): Process[] {
  return readdirSync("/proc").flatMap((name) => {
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      return /^\d+$/.test(name) ? [{ pid: Number(name), words }] : [];
    } catch {
      // It is none, or has ended.
      return [];
    }
  });
}

/** The processes of a server that was killed hold its memory for a moment. */
async function untilNoServer(dataDirectory: string): Promise<void> {
  const isOfServer = ({ pid }: Process): boolean => {
    try {
      const isThere = readlinkSync(`/proc/${pid}/cwd`) === dataDirectory;
      return isThere && readlinkSync(`/proc/${pid}/exe`).endsWith("/postgres");
    } catch {
      return false;
    }
  };
  await until("the server's processes end", () => !processes().some(isOfServer));
}

/** Names of the files in pg_wal that wait for the archiver. */
export function waiting({ dataDirectory }: ChaosNode): string[] {
  return readdirSync(join(dataDirectory, "pg_wal", "archive_status")).filter((name) =>
    name.endsWith(".ready"),
  );
}
