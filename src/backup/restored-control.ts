import { DamagedError, FormatError } from "../errors.ts";
import { parsePgControl, PG_CONTROL_BYTES } from "../postgres/pg-control.ts";
import type { Sentinel } from "../layout/sentinel.ts";
import type { BackupName } from "../layout/backup-name.ts";

/** Releases whose control file we can read. */
const FIRST_KNOWN_VERSION = 130_000;
const FIRST_UNKNOWN_VERSION = 190_000;

/** Throws DamagedError unless `bytes` are a control file of the backup's cluster. */
export function requireControlFile(
  backup: BackupName,
  sentinel: Sentinel,
  bytes: Uint8Array,
): void {
  const problem = problemOf(sentinel, bytes);
  if (problem === undefined) return;
  throw new DamagedError(`pg_control of backup ${backup} can't be used: ${problem}`, {
    hint: "Restore another backup.",
  });
}

function problemOf({ pgVersion = 0, systemId }: Sentinel, bytes: Uint8Array): string | undefined {
  if (bytes.length !== PG_CONTROL_BYTES) {
    return `it has ${bytes.length} bytes, not ${PG_CONTROL_BYTES}`;
  }
  const found = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).readBigUInt64LE(0);
  if (systemId !== undefined && found !== systemId) {
    return `it is of cluster ${found}, the sentinel of ${systemId}`;
  }
  if (pgVersion < FIRST_KNOWN_VERSION || pgVersion >= FIRST_UNKNOWN_VERSION) return undefined;
  try {
    parsePgControl(bytes);
    return undefined;
  } catch (error) {
    if (error instanceof FormatError) return error.message;
    throw error;
  }
}
