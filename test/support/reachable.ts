import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { serverUser } from "./server-user.ts";

/**
 * A file or directory tree where the server's user can use it: `path` itself, or a copy below the
 * directory for temporary files when root has cloned the project where nobody else may look, such
 * as its home. Copies are kept for the next run.
 */
export function reachable(path: string): string {
  if (serverUser() === undefined || isOpen(path)) return path;
  const { mtimeMs, size } = statSync(path);
  const id = createHash("sha256").update(`${path}\0${mtimeMs}\0${size}`).digest("hex");
  const directory = join(tmpdir(), "walnut-programs");
  const copy = join(directory, id.slice(0, 16), basename(path));
  if (existsSync(copy)) return copy;
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const draft = `${dirname(copy)}.${process.pid}`;
  cpSync(path, join(draft, basename(path)), { recursive: true, verbatimSymlinks: true });
  try {
    renameSync(draft, dirname(copy));
  } catch (error) {
    // Another process was faster.
    rmSync(draft, { recursive: true, force: true });
    if (!existsSync(copy)) throw error;
  }
  return copy;
}

/** Whether everybody may pass all directories above `path`. */
function isOpen(path: string): boolean {
  for (let directory = dirname(path); ; directory = dirname(directory)) {
    if ((statSync(directory).mode & 0o001) === 0) return false;
    if (directory === dirname(directory)) return true;
  }
}
