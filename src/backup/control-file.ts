import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, LocalFileError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { localFileError } from "../io/system-error.ts";
import { parsePgControl, type PgControl } from "../postgres/pg-control.ts";
import { CONTROL_FILE } from "./exclusion.ts";

/** The control file of a running server, and what it says. */
export interface ControlFile {
  readonly bytes: Buffer;
  readonly control: PgControl;
}

const ATTEMPTS = 20;
const RETRY_MS = 10;

/**
 * Reads global/pg_control. The server may be writing it: then its CRC is wrong for a moment, and it
 * is read again. Rejects with LocalFileError when it can't be read or stays damaged.
 *
 * @source get_controlfile, src/common/controldata_utils.c
 */
export async function readControlFile(
  dataDirectory: string,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<ControlFile> {
  const path = join(dataDirectory, CONTROL_FILE);
  for (let attempt = 1; ; attempt += 1) {
    const bytes = await readFile(path).catch((error: unknown) => {
      throw localFileError("read", path, error);
    });
    try {
      return { bytes, control: parsePgControl(bytes) };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      if (attempt === ATTEMPTS) {
        throw new LocalFileError(`${path} can't be read: ${error.message}`, { cause: error });
      }
      await clock.sleep(RETRY_MS, { signal });
    }
  }
}
