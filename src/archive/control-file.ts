import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { FormatError, LocalFileError } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import { parsePgControl, type PgControl } from "../postgres/pg-control.ts";

/** The server may be writing it: then its CRC is wrong for a moment. */
const ATTEMPTS = 20;
const RETRY_MS = 10;

/**
 * What pg_control of a data directory says. Rejects with LocalFileError where it can't be read, or
 * stays damaged; the system's error is the cause of the former.
 */
export async function readControlFile(dataDirectory: string): Promise<PgControl> {
  const path = join(dataDirectory, "global", "pg_control");
  for (let attempt = 1; ; attempt += 1) {
    try {
      return parsePgControl(await readFile(path));
    } catch (error) {
      if (!(error instanceof FormatError)) throw localFileError("read", path, error);
      if (attempt === ATTEMPTS) {
        throw new LocalFileError(`${path} can't be read: ${error.message}`, { cause: error });
      }
      await pause(RETRY_MS);
    }
  }
}
