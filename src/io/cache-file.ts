import { mkdir, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Writes a file that may be lost: whole under its name, but not fsynced, so that a power cut may
 * empty it. Its directory is made when it is missing. Rejects with what the file system says.
 */
export async function writeCacheFile(path: string, text: string): Promise<void> {
  // One fixed name: a process killed here leaves one file, which the next one writes over.
  const temporaryPath = `${path}.tmp`;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await writeFile(temporaryPath, text, { mode: 0o600 });
  await rename(temporaryPath, path);
}
