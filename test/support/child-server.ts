import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { ServerUser } from "./server-user.ts";

/** A server program that we started; `stop` ends it by its pid and waits until it is gone. */
export interface ChildServer {
  readonly pid: number;
  /** Its first line on standard output. */
  firstLine(): Promise<string>;
  /** Resolves once 127.0.0.1:port accepts a connection; rejects if the program ends before. */
  listening(port: number): Promise<void>;
  stop(): Promise<void>;
}

export interface ChildServerOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly user?: ServerUser | undefined;
  readonly cwd: string;
}

/** Many times what any takes, even where the machine is slow and busy. */
const START_TIMEOUT_MS = 120_000;
const POLL_MS = 20;

/** Starts a server that the kernel ends with us, however we end. */
export function startChildServer(
  command: string,
  words: readonly string[],
  { env = {}, user, cwd }: ChildServerOptions,
): ChildServer {
  const child = spawn("setpriv", ["--pdeathsig", "KILL", command, ...words], {
    cwd,
    env: { PATH: process.env["PATH"], HOME: cwd, TMPDIR: cwd, LC_ALL: "C.UTF-8", ...env },
    stdio: ["ignore", "pipe", "pipe"],
    ...user,
  });
  let output = "";
  let errors = "";
  let isEnded = false;
  child.stdout.on("data", (chunk: Buffer) => (output = (output + chunk.toString()).slice(0, 4096)));
  child.stderr.on("data", (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-4096)));
  const ended = once(child, "close").then(() => (isEnded = true));

  const poll = async (isReady: () => Promise<boolean>): Promise<void> => {
    const deadline = performance.now() + START_TIMEOUT_MS;
    while (!(await isReady())) {
      if (isEnded || performance.now() > deadline) {
        child.kill("SIGKILL");
        throw new Error(`${command} ${words.join(" ")} did not start: ${errors}${output}`);
      }
      await delay(POLL_MS);
    }
  };

  return {
    pid: child.pid ?? 0,
    async firstLine() {
      await poll(async () => output.includes("\n"));
      return output.slice(0, output.indexOf("\n"));
    },
    listening: (port) => poll(() => accepts(port)),
    async stop() {
      if (!isEnded) child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 3000);
      await ended;
      clearTimeout(timer);
    },
  };
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect({ host: "127.0.0.1", port });
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
