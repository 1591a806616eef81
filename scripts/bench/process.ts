/** Runs whole processes and measures them from outside, children included. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

interface Subprocess {
  readonly exited: Promise<number>;
  readonly stderr: ReadableStream<Uint8Array>;
  resourceUsage(): { maxRSS: number; cpuTime: { total: bigint | number } } | undefined;
}
interface Spawner {
  spawn(
    words: string[],
    options: {
      cwd: string;
      env: Record<string, string | undefined>;
      stdout: "ignore";
      stderr: "pipe";
      stdin: "ignore";
    },
  ): Subprocess;
}
declare const Bun: Spawner;

export interface Measurement {
  readonly wallMs: number;
  /** User and system time of the process and of all the children that it waited for. */
  readonly cpuMs: number;
  /** The largest single process among them. */
  readonly peakMiB: number;
}

export interface ProcessOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Run as this user when we are root: PostgreSQL's programs refuse root. */
  readonly user?: string;
}

function asUser(words: readonly string[], user: string | undefined): string[] {
  if (user === undefined || process.getuid?.() !== 0) return [...words];
  const identity = [`--reuid=${user}`, `--regid=${user}`, "--clear-groups"];
  return ["setpriv", ...identity, ...words];
}

/** What a measured program gets of ours: no variable that it may take for a setting. */
export function plainEnvironment(cwd: string): Readonly<Record<string, string | undefined>> {
  return { PATH: process.env["PATH"], HOME: cwd, LC_ALL: "C.UTF-8" };
}

/** Runs to the end; throws with the program's own words if it fails. */
export async function measure(
  words: readonly string[],
  { cwd, env = {}, user }: ProcessOptions,
): Promise<Measurement> {
  const startedAt = performance.now();
  const child = Bun.spawn(asUser(words, user), {
    cwd,
    env: { ...plainEnvironment(cwd), ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const [code, errors] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  const wallMs = performance.now() - startedAt;
  if (code !== 0) throw new Error(`${words.join(" ")} ended with ${code}: ${errors.slice(-2000)}`);
  const usage = child.resourceUsage();
  return {
    wallMs,
    cpuMs: Number(usage?.cpuTime.total ?? 0) / 1000,
    peakMiB: (usage?.maxRSS ?? 0) / 1024 / 1024,
  };
}

const END_POLL_MS = 20;

/** Ends the processes that have these words in their command line, and waits until they are gone. */
export async function endProcesses(words: readonly string[]): Promise<void> {
  for (let pids = processesOf(words); pids.length > 0; pids = processesOf(words)) {
    // One may have ended by itself.
    spawnSync("kill", pids);
    await new Promise((resolve) => setTimeout(resolve, END_POLL_MS));
  }
}

function processesOf(words: readonly string[]): string[] {
  const wanted = ["", ...words, ""].join("\0");
  return readdirSync("/proc").filter(
    (name) => /^\d+$/.test(name) && commandLineOf(name).includes(wanted),
  );
}

function commandLineOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}
