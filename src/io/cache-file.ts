import { constants } from "node:fs";
import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { handOver, makeDirectories } from "./handed-over.ts";

/**
 * Writes a file that may be lost: whole under its name, but not fsynced, so that a power cut may
 * empty it. Its directory is made when it is missing. What root makes belongs to the owner of the
 * directory that it is in. Rejects with what the file system says.
 */
export async function writeCacheFile(path: string, text: string): Promise<void> {
  // One fixed name: a process killed here leaves one file, which the next one writes over.
  const temporaryPath = `${path}.tmp`;
  await makeDirectories(dirname(path), 0o700);
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  {
    await using handle = await open(
      temporaryPath,
      O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
      0o600,
    );
    await handOver(handle, temporaryPath);
    await handle.writeFile(text);
  }
  await rename(temporaryPath, path);
}
