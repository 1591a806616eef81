import { randomBytes } from "node:crypto";
import { lstat, mkdir, readdir, readFile, realpath, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FormatError, OperationError, RefusedError, systemErrorCode } from "../errors.ts";
import { createFileDurably, fsyncDirectory, writeFileDurably } from "../io/durable.ts";
import { describeProcess, isProcessAlive } from "../io/process-identity.ts";
import { localFileError } from "../io/system-error.ts";
import type { BackupName } from "../layout/backup-name.ts";
import {
  formatRestoreMarker,
  readRestoreMarker,
  RESTORE_MARKER_PATH,
  type RestoreMarker,
  TABLESPACE_MARKER_NAME,
} from "./restore-marker.ts";
import { mappingHint, type TablespacePlan } from "./tablespace-plan.ts";

/** What a destination is before a restore; see RESTORE.md. Anything else is refused. */
export type DestinationState =
  | { readonly kind: "empty" }
  | { readonly kind: "ours"; readonly marker: RestoreMarker }
  | { readonly kind: "finishing"; readonly control: Buffer };

/** A temporary file of `writeFileDurably` may be left beside a marker. */
const MARKER_LEFTOVER = /^pg_control\.walnut(\.tmp-[0-9a-f]+)?$/;
const LOCATION_LEFTOVER = /^walnut_restore\.json(\.tmp-[0-9a-f]+)?$/;

/**
 * The destination as the file system knows it: absolute, links above it and itself resolved; what
 * is not there yet stays as it is.
 */
export async function resolveDestination(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw localFileError("look at", path, error);
    return path === dirname(path)
      ? path
      : join(await resolveDestination(dirname(path)), basename(path));
  }
}

/**
 * Looks at the destination and changes nothing. Throws RefusedError unless we may restore there.
 */
export async function inspectDestination(destination: string): Promise<DestinationState> {
  const names = await listDirectory(destination);
  if (names.includes("postmaster.pid")) {
    throw new RefusedError(`a server uses ${destination}: it holds postmaster.pid`, {
      hint: "Stop the server and restore into an empty directory.",
    });
  }
  if (names.includes("global")) await requireDirectory(destination, join(destination, "global"));
  const globals = await listDirectory(join(destination, "global"));
  const isEmpty =
    names.every((name) => name === "global") && globals.every((name) => MARKER_LEFTOVER.test(name));
  if (globals.includes(basename(RESTORE_MARKER_PATH)) && !globals.includes("pg_control")) {
    return await readMarker(destination);
  }
  if (isEmpty) return { kind: "empty" };
  throw notEmpty(destination);
}

async function requireDirectory(destination: string, path: string): Promise<void> {
  const stats = await onDisk("look at", path, lstat(path));
  if (!stats.isDirectory()) throw notEmpty(destination);
}

/** The destination holds something that no interrupted restore of ours left. */
export function notEmpty(destination: string): RefusedError {
  return new RefusedError(`destination ${destination} is not empty`, {
    hint: "Restore into a directory that is empty or does not exist; nothing was changed.",
  });
}

async function readMarker(destination: string): Promise<DestinationState> {
  const path = join(destination, RESTORE_MARKER_PATH);
  const bytes = await onDisk("read", path, readFile(path));
  try {
    const found = readRestoreMarker(bytes);
    if (found.kind === "finishing") return { kind: "finishing", control: bytes };
    requireOther(destination, found.marker);
    return { kind: "ours", marker: found.marker };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new RefusedError(`${path} is no marker of ours: ${error.message}`, {
      hint: `Empty ${destination} yourself, if nothing in it is needed.`,
      cause: error,
    });
  }
}

/**
 * Removes a marker that stands beside a control file: a delta restore was killed before it changed
 * anything. Throws RefusedError when the process that wrote it still lives.
 */
export async function removeStaleMarker(destination: string): Promise<void> {
  const globals = await listDirectory(join(destination, "global"));
  if (!globals.includes(basename(RESTORE_MARKER_PATH))) return;
  await readMarker(destination);
  await removeMarker(destination);
}

function requireOther(destination: string, { process: owner }: RestoreMarker): void {
  if (owner === undefined || owner === describeProcess() || !isProcessAlive(owner)) return;
  const [pid] = owner.split(":");
  throw new RefusedError(`process ${pid} is restoring into ${destination} at this moment`, {
    hint: "Wait for it, or stop it and start again: the restore goes on where it was.",
  });
}

/**
 * Looks at the locations of tablespaces and changes nothing. Throws RefusedError for one that is
 * not empty, unless `marker`'s restore was writing there.
 */
export async function inspectLocations(
  tablespaces: readonly TablespacePlan[],
  marker: RestoreMarker | undefined,
): Promise<void> {
  for (const { oid, location } of tablespaces) {
    const names = await listDirectory(location);
    const found = names.includes(TABLESPACE_MARKER_NAME)
      ? await readLocationMarker(location)
      : undefined;
    if (found !== undefined && found.id === marker?.id) continue;
    if (found !== undefined) requireOther(location, found);
    if (names.every((name) => LOCATION_LEFTOVER.test(name))) continue;
    throw new RefusedError(`location ${location} of tablespace ${oid} is not empty`, {
      hint: `${mappingHint(oid)} Nothing was changed.`,
    });
  }
}

async function readLocationMarker(location: string): Promise<RestoreMarker | undefined> {
  try {
    const bytes = await readFile(join(location, TABLESPACE_MARKER_NAME));
    const found = readRestoreMarker(bytes);
    return found.kind === "under way" ? found.marker : undefined;
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw localFileError("read", join(location, TABLESPACE_MARKER_NAME), error);
  }
}

export interface TakeOptions {
  readonly signal: AbortSignal;
  /** The marker that was found, whose id goes on. */
  readonly found: RestoreMarker | undefined;
}

/**
 * Makes the destination and the locations ours, and empties from older tablespaces what the found
 * marker's restore put there. The first thing that a restore writes.
 */
export async function takeDestination(
  destination: string,
  backup: BackupName,
  tablespaces: readonly TablespacePlan[],
  { signal, found }: TakeOptions,
): Promise<void> {
  const locations = tablespaces.map(({ location }) => location);
  const dropped = (found?.locations ?? []).filter((location) => !locations.includes(location));
  const marker: RestoreMarker = {
    id: found?.id ?? randomBytes(16).toString("hex"),
    backup,
    process: describeProcess(),
    locations: [...locations, ...dropped],
  };
  await makeDirectories(destination);
  await makeDirectories(join(destination, dirname(RESTORE_MARKER_PATH)));
  await writeMarker(join(destination, RESTORE_MARKER_PATH), marker, { signal, found });
  for (const location of dropped) await clearLocation(location, marker);
  for (const location of locations) {
    await makeDirectories(location);
    const path = join(location, TABLESPACE_MARKER_NAME);
    await writeFileDurably(path, Buffer.from(formatRestoreMarker(marker)), { signal });
    await removeLeftovers(location, LOCATION_LEFTOVER, TABLESPACE_MARKER_NAME);
  }
  const directory = join(destination, dirname(RESTORE_MARKER_PATH));
  await removeLeftovers(directory, MARKER_LEFTOVER, basename(RESTORE_MARKER_PATH));
}

/** Temporary files of a process that was killed while it wrote a marker. */
async function removeLeftovers(directory: string, pattern: RegExp, marker: string): Promise<void> {
  for (const name of await listDirectory(directory)) {
    if (name === marker || !pattern.test(name)) continue;
    await onDisk("remove", join(directory, name), rm(join(directory, name), { force: true }));
  }
}

async function writeMarker(
  path: string,
  marker: RestoreMarker,
  { signal, found }: TakeOptions,
): Promise<void> {
  const bytes = Buffer.from(formatRestoreMarker(marker));
  if (found !== undefined) return await writeFileDurably(path, bytes, { signal });
  if (await createFileDurably(path, bytes, { signal })) return;
  throw new RefusedError(`another restore into ${dirname(dirname(path))} began at this moment`, {
    hint: "Wait for it.",
  });
}

/** A directory for its owner alone, those above it for everybody; the new ones durable. */
async function makeDirectories(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "EEXIST") return;
    if (code !== "ENOENT") throw localFileError("make directory", path, error);
    const parent = dirname(path);
    const first = await onDisk("make directory", parent, mkdir(parent, { recursive: true }));
    for (let made = parent; made.length >= (first ?? path).length; made = dirname(made)) {
      await fsyncDirectory(dirname(made));
    }
    return await makeDirectories(path);
  }
  await fsyncDirectory(dirname(path));
}

/**
 * Removes everything below the destination but its marker, and everything in the locations that
 * hold one with the same id but that. Links are removed, never followed.
 */
export async function clearDestination(
  destination: string,
  tablespaces: readonly TablespacePlan[],
): Promise<void> {
  await clearDirectory(destination, new Set(["global"]));
  const kept = new Set([basename(RESTORE_MARKER_PATH)]);
  await clearDirectory(join(destination, "global"), kept);
  for (const { location } of tablespaces) {
    await clearDirectory(location, new Set([TABLESPACE_MARKER_NAME]));
  }
}

async function clearLocation(location: string, { id }: RestoreMarker): Promise<void> {
  const names = await listDirectory(location);
  if (!names.includes(TABLESPACE_MARKER_NAME)) return;
  if ((await readLocationMarker(location))?.id !== id) return;
  await clearDirectory(location, new Set([TABLESPACE_MARKER_NAME]));
  await removeLocationMarker(location);
}

/** Removes the marker in a tablespace location: the last step there. */
export async function removeLocationMarker(location: string): Promise<void> {
  const path = join(location, TABLESPACE_MARKER_NAME);
  await onDisk("remove", path, rm(path, { force: true }));
  await fsyncDirectory(location);
}

/** Ends a restore that is not to give a server: without the marker nothing goes on with it. */
export async function removeMarker(destination: string): Promise<void> {
  const path = join(destination, RESTORE_MARKER_PATH);
  await onDisk("remove", path, rm(path, { force: true }));
  await fsyncDirectory(dirname(path));
}

async function clearDirectory(path: string, kept: ReadonlySet<string>): Promise<void> {
  for (const name of await listDirectory(path)) {
    if (kept.has(name)) continue;
    const entry = join(path, name);
    await onDisk("remove", entry, rm(entry, { recursive: true, force: true }));
  }
}

/** Names in a directory; none if it is not there. Throws RefusedError for what is no directory. */
async function listDirectory(path: string): Promise<readonly string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "ENOENT") return [];
    if (code === "ENOTDIR") throw new RefusedError(`${path} is not a directory`, { cause: error });
    throw localFileError("list", path, error);
  }
}

async function onDisk<T>(action: string, path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof OperationError) throw error;
    throw localFileError(action, path, error);
  }
}
