import { closeSync, fsync, openSync } from "node:fs";
import { chmod, link, lstat, mkdir, readdir, rename, symlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { DamagedError, FormatError, OperationError, systemErrorCode } from "../errors.ts";
import { fsyncDirectory, writeFileDurably } from "../io/durable.ts";
import type { Log } from "../io/log.ts";
import { boundedParallel } from "../io/ordered.ts";
import { localFileError } from "../io/system-error.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { findPathThroughLink } from "./extract-path.ts";
import type { SpecialFile } from "./part-extract.ts";
import { CONTROL_PATH, RESTORE_MARKER_PATH } from "./restore-marker.ts";
import { entryError, type RestoreTree } from "./restore-tree.ts";

const WAL_DIRECTORY = "pg_wal";
const TABLESPACES_DIRECTORY = "pg_tblspc";

/**
 * What a server needs and does not make itself, or makes with a warning only.
 *
 * @source subdirs, src/bin/initdb/initdb.c; excludeDirContents, src/backend/backup/basebackup.c
 */
const SERVER_DIRECTORIES = [
  WAL_DIRECTORY,
  "pg_commit_ts",
  "pg_dynshmem",
  "pg_notify",
  "pg_replslot",
  "pg_serial",
  "pg_snapshots",
  "pg_stat",
  "pg_stat_tmp",
  "pg_subtrans",
  TABLESPACES_DIRECTORY,
  "pg_twophase",
];

/**
 * The only modes of a data directory that PostgreSQL accepts. @source checkDataDir, postmaster.c
 */
const PRIVATE_MODE = 0o700;
const GROUP_READABLE_MODE = 0o750;

/** Flushes under way at the same time: the disk orders them, few are enough to keep it busy. */
const FSYNC_JOBS = 8;

/** Links of a backup, which are made when everything else is there. */
export interface HeldBackLinks {
  /** Targets by path below the data directory. */
  readonly symbolic: ReadonlyMap<string, string>;
  /** Paths of the other name by path. */
  readonly hard: ReadonlyMap<string, string>;
}

/** Makes the directories that a server needs, and gives the data directory a mode that it takes. */
export function completeDirectories(tree: RestoreTree, links: HeldBackLinks): void {
  const isGroupReadable = tree.modes.get(tree.destination) === GROUP_READABLE_MODE;
  const mode = isGroupReadable ? GROUP_READABLE_MODE : PRIVATE_MODE;
  tree.addDirectory("", mode);
  for (const path of SERVER_DIRECTORIES) {
    // Links to tablespaces are made in it: a link there would lead them elsewhere.
    if (links.symbolic.has(path) && path !== TABLESPACES_DIRECTORY) continue;
    tree.addDirectory(path, tree.modes.get(tree.locate(path)) ?? mode);
  }
}

/**
 * Makes hard links, then symbolic links, then those of the tablespaces. Throws DamagedError for one
 * that the other entries of the backup leave no room for.
 */
export async function makeLinks(
  tree: RestoreTree,
  links: HeldBackLinks,
  { backup, log }: { readonly backup: BackupName; readonly log: Log },
): Promise<void> {
  const symbolic = [...links.symbolic].toSorted(([one], [other]) => (one < other ? -1 : 1));
  const paths = [...links.symbolic.keys(), ...links.hard.keys(), ...links.hard.values()];
  const through = findPathThroughLink(paths, new Set(links.symbolic.keys()));
  if (through !== undefined) throw refused(backup, through, "it lies behind a symbolic link");
  for (const [path, other] of links.hard) {
    await onEntry(backup, path, () => makeHardLink(tree, path, other));
  }
  for (const [path, target] of symbolic) {
    await onEntry(backup, path, async () => {
      if (path === WAL_DIRECTORY) await makeWalLink(tree, target, log);
      else await makeLink(tree, path, target);
    });
  }
  for (const { link: path, location } of tree.tablespaces) {
    tree.addDirectory(dirname(path));
    await onEntry(backup, path, () => symlink(location, join(tree.destination, path)));
  }
}

async function makeHardLink(tree: RestoreTree, path: string, other: string): Promise<void> {
  const from = tree.locate(other);
  const stats = await lstat(from);
  if (!stats.isFile()) throw new FormatError(`it is a hard link to ${other}, which is no file`);
  tree.addDirectory(dirname(path));
  await link(from, tree.locate(path));
  tree.keep(path);
}

async function makeLink(tree: RestoreTree, path: string, target: string): Promise<void> {
  tree.addDirectory(dirname(path));
  await symlink(target, tree.locate(path));
}

/**
 * A pg_wal on a disk of its own. Where the place is in use, perhaps by the very server that was
 * backed up, two servers would write into it: then pg_wal becomes a plain directory.
 */
async function makeWalLink(tree: RestoreTree, target: string, log: Log): Promise<void> {
  const place = resolve(tree.destination, target);
  if (await isFree(place)) {
    await onDisk("make directory", place, () => mkdir(place, { recursive: true, mode: 0o700 }));
    await fsyncDirectory(dirname(place));
    await makeLink(tree, WAL_DIRECTORY, target);
    return;
  }
  tree.addDirectory(WAL_DIRECTORY);
  log.warning(
    "pg_wal was a link to a place that is not empty here: it is a plain directory now; " +
      "move it and make a link before the server starts if you want it elsewhere",
    { target },
  );
}

async function isFree(place: string): Promise<boolean> {
  try {
    return (await readdir(place)).length === 0;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "ENOENT") return true;
    if (code === "ENOTDIR" || code === "EACCES") return false;
    throw localFileError("list", place, error);
  }
}

/** Gives directories the modes of the server that was backed up. */
export async function setDirectoryModes(tree: RestoreTree): Promise<void> {
  for (const [absolute, mode] of tree.modes) {
    await onDisk("change the mode of", absolute, () => chmod(absolute, mode));
  }
}

/** Makes every file and directory of the tree durable; directories last, for their names. */
export async function fsyncTree(tree: RestoreTree, signal: AbortSignal): Promise<void> {
  await boundedParallel(tree.unflushedFiles(), FSYNC_JOBS, fsyncPath, { signal });
  await boundedParallel(tree.directories, FSYNC_JOBS, fsyncDirectory, { signal });
  await fsyncDirectory(dirname(tree.destination));
}

const fsyncDescriptor = promisify(fsync);

async function fsyncPath(absolute: string): Promise<void> {
  await onDisk("fsync", absolute, async () => {
    const file = openSync(absolute, "r");
    try {
      await fsyncDescriptor(file);
    } finally {
      closeSync(file);
    }
  });
}

/** The last step: the marker becomes the control file, and a server may start. */
export async function putControlFile(
  destination: string,
  control: SpecialFile,
  signal: AbortSignal,
): Promise<void> {
  const marker = join(destination, RESTORE_MARKER_PATH);
  await writeFileDurably(marker, control.bytes, { signal, mode: control.mode & 0o777 });
  await finishDestination(destination);
}

/**
 * Renames a marker that has become the control file: also what a restore lacks that was killed
 * here.
 */
export async function finishDestination(destination: string): Promise<void> {
  const marker = join(destination, RESTORE_MARKER_PATH);
  const control = join(destination, CONTROL_PATH);
  await onDisk("rename", marker, () => rename(marker, control));
  await fsyncDirectory(dirname(control));
}

/** Says it as a fault of the entry where it is one. */
async function onEntry(backup: BackupName, path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const explained = entryError("make the link", path, error);
    if (!(explained instanceof FormatError)) throw explained;
    throw refused(backup, path, explained.message);
  }
}

function refused(backup: BackupName, path: string, reason: string): DamagedError {
  return new DamagedError(
    `entry ${JSON.stringify(path)} of backup ${backup} is refused: ${reason}`,
    {
      hint: "Restore another backup: this one does not come from a data directory.",
    },
  );
}

async function onDisk<T>(action: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof OperationError) throw error;
    throw localFileError(action, path, error);
  }
}
