import { readdir, realpath, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { systemErrorCode } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";

/** What `writeFileDurably` puts behind the path while it writes. */
const TEMPORARY_SUFFIX = /^\.tmp-[0-9a-f]{16}$/;

/** Where a file is to be put: behind a symbolic link, if there is one, so that the link stays. */
export async function resolveDestination(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return path;
    throw localFileError("resolve", path, error);
  }
}

/**
 * Removes what a killed run left beside `path`. Should that run still be alive, it fails when it
 * comes to rename its file, which is better than both writing into one.
 */
export async function removeStaleTemporaries(path: string): Promise<void> {
  const directory = dirname(path);
  const prefix = basename(path);
  try {
    for (const name of await readdir(directory)) {
      if (!name.startsWith(prefix) || !TEMPORARY_SUFFIX.test(name.slice(prefix.length))) continue;
      await unlink(join(directory, name));
    }
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return;
    throw localFileError("clean", directory, error);
  }
}
