import { stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { RefusedError, systemErrorCode } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";

/** Bytes that are going to be written below a directory, which need not exist yet. */
export interface SpaceNeed {
  readonly directory: string;
  readonly sizeBytes: number;
}

/** Free bytes for us on the file system of a directory, or of where it will be made. */
export async function freeBytes(directory: string): Promise<number> {
  return (await fileSystemOf(directory)).freeBytes;
}

interface FileSystem {
  readonly device: number;
  readonly freeBytes: number;
}

async function fileSystemOf(directory: string): Promise<FileSystem> {
  try {
    const { dev } = await stat(directory);
    const { bavail, bsize } = await statfs(directory);
    return { device: dev, freeBytes: bavail * bsize };
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT" || directory === dirname(directory)) {
      throw localFileError("look at", directory, error);
    }
    return await fileSystemOf(dirname(directory));
  }
}

/**
 * Throws RefusedError, before anything is written, for a file system that can't hold its share;
 * `otherwise` ends the hint: what to do but to make room.
 */
export async function requireSpace(
  needs: readonly SpaceNeed[],
  otherwise = "restore to another file system",
): Promise<void> {
  const found = new Map<number, { directory: string; neededBytes: number; freeBytes: number }>();
  for (const { directory, sizeBytes } of needs) {
    const { device, freeBytes } = await fileSystemOf(directory);
    const entry = found.get(device);
    if (entry === undefined) found.set(device, { directory, neededBytes: sizeBytes, freeBytes });
    else entry.neededBytes += sizeBytes;
  }
  for (const { directory, neededBytes, freeBytes } of found.values()) {
    if (neededBytes <= freeBytes) continue;
    throw new RefusedError(
      `${directory} needs ${neededBytes} bytes, its file system has ${freeBytes} free`,
      { hint: `Free ${neededBytes - freeBytes} bytes there, or ${otherwise}.` },
    );
  }
}
