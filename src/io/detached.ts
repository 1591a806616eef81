import { childProcess } from "./builtin.ts";
import { closeSync, openSync, statSync } from "node:fs";

export interface DetachedOptions {
  readonly workingDirectory: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /**
   * Its output is appended there, to at most 1 MiB from before: a pipe of ours would keep who reads
   * that waiting.
   */
  readonly outputPath: string;
}

/**
 * Starts a program that outlives us, in a session of its own, and does not wait for it. Throws what
 * the file system throws for the output; that the program can't be started is not noticed.
 */
export function startDetached(words: readonly string[], options: DetachedOptions): void {
  const [program, ...args] = words;
  if (program === undefined) throw new RangeError("no program to start");
  const output = openSync(options.outputPath, isLong(options.outputPath) ? "w" : "a", 0o600);
  try {
    const child = childProcess().spawn(program, args, {
      cwd: options.workingDirectory,
      env: options.environment,
      detached: true,
      stdio: ["ignore", output, output],
    });
    child.on("error", () => {});
    child.unref();
  } finally {
    closeSync(output);
  }
}

const OLD_OUTPUT_BYTES_MAX = 1024 * 1024;

function isLong(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > OLD_OUTPUT_BYTES_MAX;
}
