import { link, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "../errors.ts";
import { randomHex } from "../io/random.ts";
import type { ArchiveQueue } from "./archive-status.ts";

/** The name of a hard link to postmaster.pid in a directory that one start of a server believes. */
export const SERVER_LINK = "server";

type Server = Pick<ArchiveQueue, "dataDirectory">;

/**
 * Ties a directory to this start of the server, for shells that setup told to look for it. Each
 * start makes postmaster.pid anew, and as long as the link is there its inode is not used again: so
 * no later start, copy or restore of either has the same file in both places, whatever its clock
 * and its process numbers. Gives false where the file system can't.
 *
 * @source CreateLockFile, src/backend/utils/init/miscinit.c: O_EXCL, after unlink of a stale one
 */
export async function linkServer({ dataDirectory }: Server, directory: string): Promise<boolean> {
  const path = join(directory, SERVER_LINK);
  try {
    await rm(path, { force: true });
    await link(join(dataDirectory, "postmaster.pid"), path);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return false;
  }
}

/** Whether files of the data directory have hard links in `directory` that can be told to be such. */
export async function canLinkServer(
  { dataDirectory }: Server,
  directory: string,
): Promise<boolean> {
  // A server may not run yet.
  const file = join(dataDirectory, "PG_VERSION");
  const probe = join(directory, `.${SERVER_LINK}-${randomHex(8)}`);
  try {
    await link(file, probe);
    const [one, other] = [await stat(file), await stat(probe)];
    return one.ino === other.ino && one.dev === other.dev;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return false;
  } finally {
    await rm(probe, { force: true });
  }
}
