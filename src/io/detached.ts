import { closeSync, openSync, statSync, writeFileSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { childProcess } from "./builtin.ts";

export interface DetachedOptions {
  readonly workingDirectory: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /**
   * Its output is appended there, to at most 1 MiB from before: a pipe of ours would keep who reads
   * that waiting.
   */
  readonly outputPath: string;
  readonly use?: DetachedUse | undefined;
}

export interface DetachedUse {
  /** It gets what CPU nobody else wants. */
  readonly isBackground?: boolean;
  /** Called when it has ended, or could not be started, if we still run then. */
  readonly onEnd?: () => void;
}

/**
 * Starts a program that outlives us, in a session of its own, and does not wait for it. Throws what
 * the file system throws for the output; that the program can't be started only `onEnd` notices.
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
    const { isBackground = false, onEnd = () => {} } = options.use ?? {};
    if (isBackground && child.pid !== undefined) yieldCpu(child.pid);
    child.on("error", onEnd);
    child.on("exit", onEnd);
    child.unref();
  } finally {
    closeSync(output);
  }
}

/**
 * Before it has threads of its own, which inherit this. Where the kernel makes a group of each
 * session, it is the group's nice value that counts against others: sched(7), autogroup.
 */
function yieldCpu(pid: number): void {
  const { PRIORITY_LOW } = constants.priority;
  try {
    setPriority(pid, PRIORITY_LOW);
    writeFileSync(`/proc/${pid}/autogroup`, String(PRIORITY_LOW));
  } catch {
    // It has ended already, or there are no such groups.
  }
}

const OLD_OUTPUT_BYTES_MAX = 1024 * 1024;

function isLong(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > OLD_OUTPUT_BYTES_MAX;
}
