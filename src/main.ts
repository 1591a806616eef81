import { appendFileSync, existsSync, readlinkSync, writeSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename } from "node:path";
import { errorExitCode } from "./commands/exit-codes.ts";
import { commandEntry } from "./commands/index.ts";
import type { Machine, Output } from "./commands/program.ts";
import type { CallOutcome } from "./commands/ready-call.ts";
import { InterruptedError, LocalFileError, systemErrorCode } from "./errors.ts";
import { systemClock } from "./io/clock.ts";
import { descriptorWriter } from "./io/output.ts";
import { homeDirectory as findHomeDirectory, ownUserId } from "./io/own-user.ts";

/** Written into the program by scripts/build.ts; absent when it runs from source. */
declare const WALNUT_BUILD: { readonly version: string; readonly commit: string } | undefined;

const STOP_SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
type StopSignal = (typeof STOP_SIGNALS)[number];

/** How long what a library left open may keep the process after all is done and written. */
const LINGER_MS = 500;

/** Names under which the program is the daemon's client. */
const CLIENT_NAMES: ReadonlySet<string> = new Set(["walnut-client", "walg-daemon-client"]);

async function main(): Promise<void> {
  const words = process.argv.slice(2);
  const isClient = CLIENT_NAMES.has(basename(process.argv0)) || words[0] === "client";
  if (!isClient) return await runMain(words);
  // PostgreSQL calls it for each file: nothing else is loaded, and signals have their default.
  process.on("uncaughtException", (error) => endByBug(words, error));
  process.on("unhandledRejection", (error) => endByBug(words, error));
  const { runClient } = await import("./commands/client.ts");
  const outcome = await runClient(words[0] === "client" ? words.slice(1) : words, {
    versionText: versionText(),
    workingDirectory: process.cwd(),
    dataDirectory: process.env["PGDATA"],
    fileExists: existsSync,
    writeOutput: standardOutput(),
    writeError: standardError().write,
  });
  if (outcome.kind === "exit") process.exit(outcome.code);
  process.removeAllListeners("uncaughtException");
  process.removeAllListeners("unhandledRejection");
  await runMain(outcome.args);
}

async function runMain(args: readonly string[]): Promise<void> {
  // Before anything else is loaded: monitoring asks often.
  if (args.length === 1 && ["--version", "-v", "version"].includes(args[0] ?? "")) {
    await standardOutput()(versionText());
    return;
  }

  const ready = await findReady(args);
  if (ready?.isDone === true) return;

  const stop = listenForStop();
  process.on("uncaughtException", (error) => endByBug(args, error));
  process.on("unhandledRejection", (error) => {
    // What was stopped with the run may reject when nobody waits for it any more.
    if (error !== stop.signal.reason || !stop.signal.aborted) endByBug(args, error);
  });
  const stderr = standardError();
  const { runProgram } = await import("./commands/program.ts");
  const writeOutput = standardOutput();
  const exitCode = await runProgram({
    ...readMachine(args),
    caller: ready?.caller,
    signal: stop.signal,
    onSignal: stop.take,
    writeOutput,
    writeBytes: writeOutput,
    stderr,
  });
  await stderr.write("");
  process.exitCode = exitCode;
  if (exitCode !== 0) stop.endBySignal();
  setTimeout(() => process.exit(), LINGER_MS).unref();
}

/** PostgreSQL waits for each of these calls, and most of them find their work done. */
async function findReady(args: readonly string[]): Promise<CallOutcome | undefined> {
  if (!args.includes("wal-push") && !args.includes("wal-fetch")) return undefined;
  const { answerAtOnce } = await import("./commands/ready-call.ts");
  const homeDirectory = findHomeDirectory();
  return await answerAtOnce({
    args,
    environment: process.env,
    workingDirectory: process.cwd(),
    ...(homeDirectory === undefined ? {} : { homeDirectory }),
    versionText: versionText(),
    userId: ownUserId(),
  });
}

function versionText(): string {
  const bunVersion = process.versions["bun"];
  const runtime = bunVersion === undefined ? `node ${process.versions.node}` : `bun ${bunVersion}`;
  const { version, commit } =
    typeof WALNUT_BUILD === "undefined" ? { version: "0.0.0", commit: "source" } : WALNUT_BUILD;
  return `walnut version ${version}\t${commit}\t${runtime}\tPostgreSQL 13-18\n`;
}

type ReadMachine = Omit<Machine, "signal" | "onSignal" | "writeOutput" | "stderr">;

function readMachine(args: readonly string[]): ReadMachine {
  const homeDirectory = findHomeDirectory();
  return {
    args,
    environment: process.env,
    ...(homeDirectory === undefined ? {} : { homeDirectory }),
    workingDirectory: process.cwd(),
    cpuCount: availableParallelism(),
    versionText: versionText(),
    clock: systemClock,
    isUtc: isUtc(),
    fileExists: existsSync,
    exportVariable(name, value) {
      process.env[name] = value;
    },
    programWords: programWords(),
    appendFile: (path, text) => appendFileSync(path, text),
    processId: process.pid,
  };
}

/** A compiled program has its own script inside; any other needs to be told it. */
function programWords(): readonly string[] {
  const [, script] = process.argv;
  const isInside = script === undefined || script.startsWith("/$bunfs/") || !existsSync(script);
  return isInside || script === process.execPath ? [process.execPath] : [process.execPath, script];
}

/** Whether the zone of the process is UTC; false where that can't be found out. */
function isUtc(): boolean {
  const zone = process.env["TZ"];
  if (zone !== undefined) return /^:?(Etc\/)?(UTC|UTC0|UCT|GMT|GMT0|Zulu|Universal)?$/.test(zone);
  try {
    return /\/(UTC|UCT|GMT|GMT0|Zulu|Universal)$/.test(readlinkSync("/etc/localtime"));
  } catch (error) {
    // Without a file the system's zone is UTC; a file that is no link may be any zone.
    return systemErrorCode(error) === "ENOENT";
  }
}

/**
 * The first signal aborts, so that what is running can leave everything in order; the second one
 * ends the process at once.
 */
function listenForStop(): {
  readonly signal: AbortSignal;
  readonly take: Machine["onSignal"];
  endBySignal(): void;
} {
  const taken = new Map<string, () => void>();
  const controller = new AbortController();
  const received: StopSignal[] = [];
  const endBy = (signal: StopSignal) => {
    for (const one of STOP_SIGNALS) process.removeAllListeners(one);
    // PostgreSQL tells a program that was stopped from one that failed by how it ended.
    process.kill(process.pid, signal);
  };
  for (const signal of STOP_SIGNALS) {
    process.on(signal, () => {
      const listener = taken.get(signal);
      if (listener !== undefined) return listener();
      received.push(signal);
      if (received.length > 1) endBy(signal);
      else controller.abort(new InterruptedError(`stopped by ${signal}`));
    });
  }
  return {
    signal: controller.signal,
    take(signal, listener) {
      taken.set(signal, listener);
      if (signal === "SIGUSR1") process.on(signal, listener);
    },
    endBySignal() {
      const [first] = received;
      if (first !== undefined) endBy(first);
    },
  };
}

function standardOutput(): (text: string | Uint8Array) => Promise<void> {
  const write = descriptorWriter(1);
  return async (text) => {
    try {
      await write(text);
    } catch (error) {
      const code = systemErrorCode(error);
      // A reader that has seen enough, as in `walnut backup-list | head -1`, is no failure.
      if (code === "EPIPE") return;
      if (code === undefined) throw error;
      throw new LocalFileError(`standard output can't be written: ${code}`, { cause: error });
    }
  };
}

function standardError(): Output {
  const write = descriptorWriter(2);
  return {
    get isTerminal() {
      return process.stderr.isTTY;
    },
    get columns() {
      return process.stderr.columns;
    },
    // There is no place left to say that standard error can't be written.
    write: (text) => write(text).catch(() => {}),
  };
}

/** Something was thrown where nobody waits for it. */
function endByBug(args: readonly string[], error: unknown): never {
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  try {
    writeSync(2, `ERROR: a bug in walnut\n${stack}\nHINT: Please report this.\n`);
  } catch {
    // Nobody reads it.
  }
  const entry = commandEntry(args.find((word) => commandEntry(word) !== undefined));
  const exitCode = (entry?.exitCode ?? errorExitCode)(error, {
    workingDirectory: ".",
    positionals: args,
    fileExists: existsSync,
  });
  process.exit(exitCode);
}

void main();
