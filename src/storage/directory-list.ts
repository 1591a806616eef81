import type { Dirent } from "node:fs";
import { opendir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { StorageError } from "../errors.ts";
import { directoryError, isMissing } from "./directory-errors.ts";
import { compareKeys, isTemporaryName, isValidKey } from "./key.ts";
import type { ListOptions, ObjectInfo } from "./storage.ts";

interface Search extends ListOptions {
  readonly prefix: string;
}

/** Files asked for their size at the same time. */
const STAT_CONCURRENCY = 32;

/**
 * The files below `root` as objects, in byte order of their keys. Holds the names of one folder on
 * each level, not those of the whole tree. What vanishes meanwhile is left out.
 */
export async function* listDirectory(root: string, search: Search): AsyncIterable<ObjectInfo> {
  const folder = search.prefix.slice(0, search.prefix.lastIndexOf("/") + 1);
  if (folder !== "" && !isValidKey(folder.slice(0, -1))) return;
  yield* listFolder(root, folder, search);
}

/** `folder` is "" or ends in "/". */
async function* listFolder(
  root: string,
  folder: string,
  search: Search,
): AsyncIterable<ObjectInfo> {
  const names = await readNames(root, folder, search);
  for (let start = 0; start < names.length;) {
    search.signal.throwIfAborted();
    const name = names[start] ?? "";
    if (name.endsWith("/")) {
      yield* listFolder(root, name, search);
      start++;
      continue;
    }
    const files = takeFiles(names, start);
    start += files.length;
    for (const info of await Promise.all(files.map((key) => statObject(root, key)))) {
      if (info !== undefined) yield info;
    }
  }
}

function takeFiles(names: readonly string[], start: number): string[] {
  const files: string[] = [];
  for (const name of names.slice(start, start + STAT_CONCURRENCY)) {
    if (name.endsWith("/")) break;
    files.push(name);
  }
  return files;
}

/**
 * What of a folder can hold keys that are searched for: keys of files, and of folders with "/" at
 * the end, so that both sort as the keys inside them do.
 */
async function readNames(root: string, folder: string, search: Search): Promise<string[]> {
  const path = join(root, folder);
  const names: string[] = [];
  try {
    for await (const entry of await opendir(path)) {
      if (isTemporaryName(entry.name)) continue;
      const key = await entryKey(root, folder, entry);
      if (key !== undefined && mayMatch(key, search)) names.push(key);
    }
  } catch (error) {
    if (!isMissing(error)) throw directoryError("list", path, error);
  }
  return names.toSorted(compareKeys);
}

async function entryKey(root: string, folder: string, entry: Dirent): Promise<string | undefined> {
  const key = `${folder}${entry.name}`;
  if (entry.isFile()) return key;
  if (entry.isDirectory()) return `${key}/`;

  // A symbolic link, or a file system that tells no types.
  try {
    const stats = await stat(join(root, key));
    if (stats.isFile()) return key;
    if (!stats.isDirectory()) return undefined;
    if (entry.isSymbolicLink()) await refuseCircle(root, folder, key);
    return `${key}/`;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** A link to a folder in which it lies itself would be followed until the system gives up. */
async function refuseCircle(root: string, folder: string, link: string): Promise<void> {
  const [holder, target] = await Promise.all([
    realpath(join(root, folder)),
    realpath(join(root, link)),
  ]);
  if (!`${holder}/`.startsWith(`${target}/`)) return;
  throw new StorageError(`${join(root, link)} is a symbolic link that leads back to ${target}`, {
    isRetryable: false,
    hint: "Remove the link: a repository that holds itself can't be listed.",
  });
}

function mayMatch(key: string, { prefix, startAfter }: Search): boolean {
  if (!key.endsWith("/")) {
    return key.startsWith(prefix) && (startAfter === undefined || compareKeys(key, startAfter) > 0);
  }
  if (!key.startsWith(prefix) && !prefix.startsWith(key)) return false;
  // All keys of a folder come before `startAfter`, or none, unless it lies in the folder.
  return startAfter === undefined || startAfter.startsWith(key) || compareKeys(key, startAfter) > 0;
}

async function statObject(root: string, key: string): Promise<ObjectInfo | undefined> {
  const path = join(root, key);
  try {
    const stats = await stat(path);
    return stats.isFile() ? { key, sizeBytes: stats.size, modifiedAt: stats.mtime } : undefined;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw directoryError("stat", path, error);
  }
}
