import { lstat, readdir, readFile, realpath, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { RefusedError, systemErrorCode, WrongClusterError } from "../errors.ts";
import { fsyncDirectory } from "../io/durable.ts";
import { localFileError } from "../io/system-error.ts";
import type { Sentinel } from "../layout/sentinel.ts";
import { CONTROL_PATH } from "./restore-marker.ts";
import type { TablespacePlan } from "./tablespace-plan.ts";

/** What `backup-fetch --delta` may do to a data directory. */
export interface DeltaPermissions {
  /** Whether it may belong to another cluster than the backup. */
  readonly isOtherClusterAllowed: boolean;
  /** Whether WAL in it that waits to be archived may be lost. */
  readonly isWalDiscarded: boolean;
}

/**
 * Whether a whole data directory is there, which a delta restore may rewrite. Changes nothing.
 * Throws RefusedError for one that a server may use, or whose WAL would be lost, and
 * WrongClusterError for one of another cluster.
 */
export async function inspectExisting(
  destination: string,
  sentinel: Sentinel,
  permissions: DeltaPermissions,
): Promise<boolean> {
  const control = await readOptional(join(destination, CONTROL_PATH));
  if (control === undefined) return false;
  const names = await readdir(destination).catch((error: unknown) => {
    throw localFileError("list", destination, error);
  });
  if (names.includes("postmaster.pid")) {
    throw new RefusedError(`a server may use ${destination}: it holds postmaster.pid`, {
      hint: "Stop the server. If it is sure that none runs on it, remove that file. Nothing was changed.",
    });
  }
  if (!names.includes("PG_VERSION") || control.length < 8) {
    throw new RefusedError(`${destination} is no data directory of PostgreSQL`, {
      hint: "--delta rewrites one that is there; nothing was changed.",
    });
  }
  const found = control.readBigUInt64LE(0);
  if (found !== sentinel.systemId && !permissions.isOtherClusterAllowed) {
    throw new WrongClusterError(
      `${destination} belongs to cluster ${found}, the backup to ${sentinel.systemId}`,
      { hint: "With --delta-other-cluster it is overwritten all the same. Nothing was changed." },
    );
  }
  if (!permissions.isWalDiscarded) await requireArchivedWal(destination);
  return true;
}

async function requireArchivedWal(destination: string): Promise<void> {
  const status = join(destination, "pg_wal", "archive_status");
  const names = await readdir(status).catch((error: unknown) => {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw localFileError("list", status, error);
  });
  const waiting = names.filter((name) => name.endsWith(".ready"));
  if (waiting.length === 0) return;
  throw new RefusedError(
    `${waiting.length} files in ${join(destination, "pg_wal")} were never archived, the first is ` +
      basename(waiting.toSorted()[0] ?? "", ".ready"),
    {
      hint:
        "They may hold commits that are nowhere else: archive each by wal-push, or copy pg_wal " +
        "away. With --discard-wal they are removed. Nothing was changed.",
    },
  );
}

/**
 * The tablespaces whose location is in use by this very data directory: what is there may be
 * rewritten. The others have to be empty.
 */
export async function ownLocations(
  destination: string,
  tablespaces: readonly TablespacePlan[],
): Promise<ReadonlySet<string>> {
  const own = new Set<string>();
  for (const { link, location } of tablespaces) {
    const [linked, actual] = [
      await resolveOptional(join(destination, link)),
      await resolveOptional(location),
    ];
    if (linked !== undefined && linked === actual) own.add(location);
  }
  return own;
}

/**
 * The first change: from now on no server starts, until the restore has put another control file
 * there. The marker has to stand already.
 */
export async function removeControlFile(destination: string): Promise<void> {
  const path = join(destination, CONTROL_PATH);
  await rm(path, { force: true }).catch((error: unknown) => {
    throw localFileError("remove", path, error);
  });
  await fsyncDirectory(dirname(path));
}

async function readOptional(path: string): Promise<Buffer | undefined> {
  try {
    const stats = await lstat(path);
    return stats.isFile() ? await readFile(path) : undefined;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw localFileError("read", path, error);
  }
}

async function resolveOptional(path: string): Promise<string | undefined> {
  try {
    return await realpath(path);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw localFileError("look at", path, error);
  }
}
