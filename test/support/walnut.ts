import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reachable } from "./reachable.ts";
import type { ServerUser } from "./server-user.ts";

const ROOT = join(import.meta.dirname, "..", "..");

/**
 * How tests start the product: WALNUT_BINARY, else dist/walnut if it is newer than the source, else
 * the source itself on Bun.
 */
export function walnutCommand(): readonly string[] {
  const wanted = process.env["WALNUT_BINARY"];
  if (wanted !== undefined) return [reachable(wanted)];
  const built = join(ROOT, "dist", "walnut");
  if (existsSync(built) && statSync(built).mtimeMs > newestChangeMs()) return [reachable(built)];
  return [process.execPath, "run", join(ROOT, "src", "main.ts")];
}

/** `walnutCommand()` for a shell, as archive_command and restore_command need it. */
export function walnutShellCommand(): string {
  return walnutCommand().map(shellWord).join(" ");
}

/** Quotes one word for a POSIX shell. */
export function shellWord(word: string): string {
  return /^[\w./:=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

export interface RunOptions {
  /**
   * The whole environment beside PATH, HOME and TMPDIR: nothing leaks in from the tests' own.
   * Undefined takes one of these away.
   */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** SIGKILL after this time. */
  readonly killAfterMs?: number;
  readonly user?: ServerUser | undefined;
}

export interface RunResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly tookMs: number;
}

/** Runs the product to its end. */
export async function runWalnut(
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const [program, ...words] = walnutCommand();
  if (program === undefined) throw new Error("no command");
  const cwd = options.cwd ?? tmpdir();
  const startedMs = performance.now();
  const child = spawn(program, [...words, ...args], {
    ...options.user,
    cwd,
    env: { PATH: process.env["PATH"], HOME: cwd, TMPDIR: tmpdir(), ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (output.stderr += text));
  const timer =
    options.killAfterMs === undefined
      ? undefined
      : setTimeout(() => child.kill("SIGKILL"), options.killAfterMs);
  await once(child, "close");
  clearTimeout(timer);
  const tookMs = performance.now() - startedMs;
  return { code: child.exitCode, signal: child.signalCode, ...output, tookMs };
}

function newestChangeMs(): number {
  const source = join(ROOT, "src");
  const times = readdirSync(source, { recursive: true, encoding: "utf8" }).map(
    (name) => statSync(join(source, name)).mtimeMs,
  );
  return Math.max(...times);
}
