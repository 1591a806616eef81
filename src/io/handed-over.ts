import { constants } from "node:fs";
import { type FileHandle, mkdir, open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { systemErrorCode } from "../errors.ts";
import { ownUserId } from "./own-user.ts";

const ROOT = 0;

/**
 * What root makes in somebody else's directory is given to the owner of that directory: an
 * administrator's command in a repository or a cache of PostgreSQL's user must leave nothing there
 * that keeps this user out afterwards. Where the file system does not allow that it stays root's.
 */
export async function handOver(handle: FileHandle, path: string): Promise<void> {
  if (ownUserId() !== ROOT) return;
  try {
    const above = await stat(dirname(path));
    if (above.uid === ROOT || (await handle.stat()).uid !== ROOT) return;
    await handle.chown(above.uid, above.gid);
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
  }
}

/** Makes one directory. Rejects with what the file system says, also that it exists. */
export async function makeDirectory(path: string, mode: number): Promise<void> {
  await mkdir(path, { mode });
  await handOverDirectory(path);
}

/**
 * Makes a directory and those above it that are missing; gives the first that it made. Rejects with
 * what the file system says.
 */
export async function makeDirectories(path: string, mode: number): Promise<string | undefined> {
  const first = await mkdir(path, { recursive: true, mode });
  if (first === undefined || ownUserId() !== ROOT) return first;
  for (const one of pathsBetween(first, path)) await handOverDirectory(one);
  return first;
}

/** From above downwards. */
function pathsBetween(first: string, last: string): readonly string[] {
  if (last === first || last === dirname(last)) return [last];
  return [...pathsBetween(first, dirname(last)), last];
}

async function handOverDirectory(path: string): Promise<void> {
  if (ownUserId() !== ROOT) return;
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
  // Opened, because its owner-to-be may put something else in its place meanwhile.
  const handle = await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW).catch(() => undefined);
  if (handle === undefined) return;
  await using opened = handle;
  await handOver(opened, path);
}
