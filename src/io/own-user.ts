import { lstatSync, mkdirSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

/** The number of the user as whom we run; the system may have no name for it, as in containers. */
export function ownUserId(): number {
  return process.geteuid?.() ?? -1;
}

/**
 * HOME, or what the system's list says. Undefined for a user who is not in that list either: the
 * runtime throws then.
 */
export function homeDirectory(): string | undefined {
  try {
    return homedir() || undefined;
  } catch {
    return undefined;
  }
}

/**
 * A directory of this user alone in `parent`, where everybody may make some; made if it is missing.
 * Its name can be guessed, so that somebody else may have been faster: undefined where it is not
 * ours, and where it can't be made.
 */
export function ownTemporaryDirectory(name: string, parent = tmpdir()): string | undefined {
  const path = join(parent, `${name}-${ownUserId()}`);
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const found = lstatSync(path);
    const isOurs = found.uid === ownUserId() && (found.mode & 0o077) === 0;
    return isOurs && found.isDirectory() ? path : undefined;
  } catch {
    return undefined;
  }
}
