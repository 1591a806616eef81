import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { callDaemon, type CallResult } from "../../src/daemon/client.ts";
import type { DaemonMessage } from "../../src/daemon/protocol.ts";
import type { ServerUser } from "./server-user.ts";
import { type RunResult, runWalnut, walnutCommand } from "./walnut.ts";
import { until } from "./until.ts";

/** `walnut daemon` as a process of its own. */
export interface RunningDaemon extends AsyncDisposable {
  readonly socketPath: string;
  readonly processId: number;
  /** All that it wrote to standard error until now. */
  log(): string;
  /** Resolves when the log has the text; rejects when the daemon ends without it. */
  logged(pattern: RegExp): Promise<void>;
  call(message: DaemonMessage): Promise<CallResult>;
  /** Runs our client in the data directory, on words behind the socket. */
  client(...words: readonly string[]): Promise<RunResult>;
  kill(signal: NodeJS.Signals): void;
  /** Resolves when the process has ended. */
  ended(): Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  /** Resident memory in bytes. */
  residentBytes(): number;
}

export interface DaemonOptions {
  readonly dataDirectory: string;
  readonly socketPath: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Flags before the command. */
  readonly words?: readonly string[];
  readonly user?: ServerUser | undefined;
}

/** Starts the daemon and waits until it answers; rejects with its log if it ends first. */
export async function startDaemon(options: DaemonOptions): Promise<RunningDaemon> {
  const { dataDirectory, socketPath, user } = options;
  const [program = "", ...rest] = walnutCommand();
  const words = [...rest, ...(options.words ?? []), "daemon", socketPath];
  const child = spawn(program, words, {
    ...user,
    cwd: dataDirectory,
    env: {
      PATH: process.env["PATH"],
      HOME: dataDirectory,
      TMPDIR: tmpdir(),
      PGDATA: dataDirectory,
      ...options.env,
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (log += text));
  const closed = once(child, "close");
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null;
  const untilIt = async (what: string, isTrue: () => boolean | Promise<boolean>): Promise<void> => {
    await until(
      what,
      async () => {
        if (await isTrue()) return true;
        if (isOver()) throw new Error(`the daemon has ended: ${log}`);
        return false;
      },
      () => log,
    );
  };
  const times = { connectMs: 0, answerMs: 120_000 };
  // Also where a killed one has left its socket.
  await untilIt(
    "the daemon answers",
    async () => (await callDaemon(socketPath, { kind: "check" }, times)).kind === "reply",
  );
  return {
    socketPath,
    processId: child.pid ?? 0,
    log: () => log,
    logged: (pattern) => untilIt(`${pattern} is logged`, () => pattern.test(log)),
    call: (message) => callDaemon(socketPath, message, times),
    client: (...more) => runWalnut(["client", socketPath, ...more], { cwd: dataDirectory }),
    kill: (signal) => void child.kill(signal),
    async ended() {
      await closed;
      return { code: child.exitCode, signal: child.signalCode };
    },
    residentBytes() {
      const status = readFileSync(join("/proc", String(child.pid), "status"), "utf8");
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
    },
    async [Symbol.asyncDispose]() {
      if (!isOver()) child.kill("SIGKILL");
      await closed;
    },
  };
}
