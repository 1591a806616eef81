import { readFileSync } from "node:fs";
import { lchown, lstat, readdir } from "node:fs/promises";
import { join } from "node:path";

/** What `spawn` takes to run a program as somebody else. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** Whom PostgreSQL runs as: undefined = ourselves; for root "postgres", else "nobody". */
export function serverUser(): ServerUser | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"));
  for (const wanted of ["postgres", "nobody"]) {
    const fields = users.find(([name]) => name === wanted);
    if (fields !== undefined) return { uid: Number(fields[2]), gid: Number(fields[3]) };
  }
  throw new Error("neither a user postgres nor a user nobody exists to run PostgreSQL as");
}

/** Gives a file or directory and all below it to the user; links are not followed. */
export async function chownTree(path: string, user: ServerUser | undefined): Promise<void> {
  if (user === undefined) return;
  await lchown(path, user.uid, user.gid);
  if (!(await lstat(path)).isDirectory()) return;
  for (const entry of await readdir(path, { withFileTypes: true, recursive: true })) {
    await lchown(join(entry.parentPath, entry.name), user.uid, user.gid);
  }
}
