import { access, constants, lstat, mkdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { RefusedError, systemErrorCode } from "../errors.ts";
import { ownUserId } from "../io/own-user.ts";
import { sha256Hex } from "../io/runtime.ts";
import { localFileError } from "../io/system-error.ts";

/**
 * What is kept for one data directory between calls, outside of it. All of it may be lost but gaps.
 */
export interface Spool {
  readonly path: string;
  /** What push ahead has acknowledged: notes/<WAL file>. */
  readonly notes: string;
  /** Tells the configured repository from others; undefined where none was given. */
  readonly repository?: string | undefined;
  /** For segments that are fetched ahead. */
  readonly prefetch: string;
  /** What was given up under the policy "drop" and is not in the store's list yet. */
  readonly gaps: string;
  /** Where the drainer listens. */
  readonly socket: string;
  /** Where the prefetcher listens. */
  readonly prefetchSocket: string;
  /** A program that renames one file or starts us, for setup's restore_command; see rename-program.ts. */
  readonly renameProgram: string;
  /**
   * Whether it is on the file system of pg_wal: then files can be renamed there, and the times of
   * both come from one clock.
   */
  readonly isOnWalFileSystem: boolean;
}

export interface SpoolOptions {
  /** PGDATA, as anybody names it. */
  readonly dataDirectory: string;
  /** WALNUT_SPOOL_DIR: a directory for the spools of any number of data directories. */
  readonly configured?: string | undefined;
  readonly cacheDirectory: string;
  /** Where the repository is, as the settings name it. */
  readonly storage?: object | undefined;
  readonly storageFolder?: string | undefined;
}

/** Where a spool may be: tried in this order. */
export interface SpoolCandidate {
  readonly path: string;
  /** It must be on the file system of pg_wal to be worth its place. */
  readonly mustBeNearWal: boolean;
}

/**
 * The places for a spool, from real paths; never inside the data directory or pg_wal, where
 * pg_rewind and backups walk.
 */
export function spoolCandidates(places: {
  readonly dataDirectory: string;
  /** Where pg_wal really is. */
  readonly walDirectory: string;
  readonly configured?: string | undefined;
  readonly cacheDirectory: string;
}): readonly SpoolCandidate[] {
  const { dataDirectory, walDirectory, configured, cacheDirectory } = places;
  const hash = sha256Hex(dataDirectory).slice(0, 12);
  const ownName = `${basename(dataDirectory) || "data"}-${hash}`;
  const isWalElsewhere = !isInside(walDirectory, dataDirectory);
  const own = [
    { path: `${dataDirectory}.walnut`, mustBeNearWal: true },
    ...(isWalElsewhere ? [{ path: `${walDirectory}.walnut`, mustBeNearWal: true }] : []),
    { path: join(cacheDirectory, "spool", ownName), mustBeNearWal: false },
  ];
  const wanted =
    configured === undefined ? own : [{ path: join(configured, ownName), mustBeNearWal: false }];
  return wanted.filter(
    ({ path }) => !isInside(path, dataDirectory) && !isInside(path, walDirectory),
  );
}

/**
 * The spool of a data directory, made if it is missing. Rejects with RefusedError unless we are the
 * owner of the data directory, and when nothing can be made or what is there is not ours alone;
 * with LocalFileError when the data directory can't be looked at.
 */
export async function spoolDirectory(options: SpoolOptions): Promise<Spool> {
  const dataDirectory = await looked(options.dataDirectory, () => realpath(options.dataDirectory));
  const walPath = join(dataDirectory, "pg_wal");
  const walDirectory = await looked(walPath, () => realpath(walPath));
  const owner = await looked(dataDirectory, () => stat(dataDirectory));
  const uid = ownUserId();
  if (owner.uid !== uid) {
    throw new RefusedError(
      `data directory ${dataDirectory} belongs to user ${owner.uid}, we are ${uid}`,
      { hint: "Run this as the owner of the data directory, usually postgres." },
    );
  }
  const { dev } = await looked(walDirectory, () => stat(walDirectory));
  const candidates = spoolCandidates({ ...options, dataDirectory, walDirectory });
  for (const { path, mustBeNearWal } of candidates) {
    const device = await makeOwned(path, { uid, device: mustBeNearWal ? dev : undefined });
    if (device === undefined) continue;
    return {
      path,
      notes: join(path, "notes"),
      repository: repositoryOf(options),
      prefetch: join(path, "prefetch"),
      gaps: join(path, "gaps"),
      socket: join(path, "drain.sock"),
      prefetchSocket: join(path, "prefetch.sock"),
      // Lines of earlier versions call another program, "take", which must not become this one.
      renameProgram: join(path, "taker"),
      isOnWalFileSystem: device === dev,
    };
  }
  const tried = candidates.map(({ path }) => path).join(", ");
  throw new RefusedError(`no spool directory can be made for ${dataDirectory}: tried ${tried}`, {
    hint: "Set WALNUT_SPOOL_DIR to a directory that the owner of the data directory may write to.",
  });
}

function repositoryOf({ storage, storageFolder }: SpoolOptions): string | undefined {
  if (storage === undefined) return undefined;
  // It may hold secrets.
  return sha256Hex(JSON.stringify([storage, storageFolder ?? ""])).slice(0, 16);
}

/** The spool itself and the directories in it. */
const PARTS = ["", "notes", "prefetch", "gaps"] as const;

/** Gives the device, or undefined when the place can't be used. */
async function makeOwned(
  path: string,
  { uid, device }: { readonly uid: number; readonly device: number | undefined },
): Promise<number | undefined> {
  try {
    const found = (await isIncomplete(path)) ? await make(path, device) : await lstat(path);
    if (found === undefined || !found.isDirectory() || found.uid !== uid) return undefined;
    // Somebody else who can write here could make us believe that a segment is archived.
    if ((found.mode & 0o022) !== 0) return undefined;
    return device === undefined || found.dev === device ? found.dev : undefined;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}

async function make(path: string, device: number | undefined) {
  // Looked at first: nothing is left behind in a place that is not used.
  if (device !== undefined && (await stat(dirname(path))).dev !== device) return undefined;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  for (const part of PARTS) await mkdir(join(path, part), { recursive: true, mode: 0o700 });
  return await lstat(path);
}

/** Rejects with the system's error where it is there and can't be written to. */
async function isIncomplete(path: string): Promise<boolean> {
  try {
    // With the dot a file in the place of a directory is an error.
    for (const part of PARTS) await access(`${join(path, part)}/.`, constants.W_OK);
    return false;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return true;
    throw error;
  }
}

function isInside(path: string, directory: string): boolean {
  return (
    path === directory || path.startsWith(directory.endsWith(sep) ? directory : directory + sep)
  );
}

async function looked<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw localFileError("look at", path, error);
  }
}
