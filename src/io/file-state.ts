import { statSync } from "node:fs";
import { systemErrorCode } from "../errors.ts";

/**
 * Changes with every write to a file and with every replacement of it; undefined where there is no
 * file, or none that we may look at.
 */
export function fileState(path: string): string | undefined {
  try {
    const found = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (found?.isFile() !== true) return undefined;
    return `${found.dev} ${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs}`;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}
