import { statSync } from "node:fs";
import { systemErrorCode } from "../errors.ts";

/**
 * What tells a directory from every other one on this machine, by whatever path (a link, another
 * container's mount) it is reached; undefined where there is none.
 */
export function directoryIdentity(path: string): string | undefined {
  try {
    const stats = statSync(path, { bigint: true });
    return stats.isDirectory() ? `${stats.dev}:${stats.ino}` : undefined;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}
