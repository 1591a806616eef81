import { compareKeys, isTemporaryName, isValidKey, temporaryNameParts } from "./key.ts";
import type { CallOptions, ListOptions, ObjectInfo, UnfinishedPut } from "./storage.ts";

export interface FolderSearch extends ListOptions {
  readonly prefix: string;
}

/** What a folder holds: another folder, or a file with its size and time. */
export type FolderEntry =
  | { readonly kind: "folder"; readonly name: string }
  | {
      readonly kind: "file";
      readonly name: string;
      readonly sizeBytes: number;
      readonly modifiedAt: Date;
    };

/** Reads one folder; `folder` is "" or ends in "/". A missing one is empty. */
export type ReadFolder = (folder: string, options: CallOptions) => Promise<readonly FolderEntry[]>;

/**
 * The files of a tree of folders as objects, in byte order of their keys. Holds one folder on each
 * level, not the whole tree.
 */
export async function* listFolders(
  read: ReadFolder,
  search: FolderSearch,
): AsyncIterable<ObjectInfo> {
  const folder = search.prefix.slice(0, search.prefix.lastIndexOf("/") + 1);
  if (folder !== "" && !isValidKey(folder.slice(0, -1))) return;
  yield* listFolder(read, folder, search);
}

/** Half-written files, which `listFolders` leaves out. `prefix` as for a list. */
export async function* listTemporaryFiles(
  read: ReadFolder,
  prefix: string,
  options: CallOptions,
): AsyncIterable<UnfinishedPut> {
  const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
  for await (const put of walkTemporary(read, folder, options)) {
    if (put.key.startsWith(prefix)) yield put;
  }
}

/**
 * Whether a key, or the keys in a folder (it ends in "/"), can be what is searched for.
 */
export function mayMatch(key: string, { prefix, startAfter }: FolderSearch): boolean {
  if (!key.endsWith("/")) {
    return key.startsWith(prefix) && (startAfter === undefined || compareKeys(key, startAfter) > 0);
  }
  if (!key.startsWith(prefix) && !prefix.startsWith(key)) return false;
  // All keys of a folder come before `startAfter`, or none, unless it lies in the folder.
  return startAfter === undefined || startAfter.startsWith(key) || compareKeys(key, startAfter) > 0;
}

async function* listFolder(
  read: ReadFolder,
  folder: string,
  search: FolderSearch,
): AsyncIterable<ObjectInfo> {
  search.signal.throwIfAborted();
  const found = (await read(folder, search)).flatMap((entry) => {
    const key = `${folder}${entry.name}${entry.kind === "folder" ? "/" : ""}`;
    const isOurs = isValidKey(`${folder}${entry.name}`) && !isTemporaryName(entry.name);
    return isOurs && mayMatch(key, search) ? [{ key, entry }] : [];
  });
  for (const { key, entry } of found.toSorted((a, b) => compareKeys(a.key, b.key))) {
    search.signal.throwIfAborted();
    if (entry.kind === "folder") yield* listFolder(read, key, search);
    else yield { key, sizeBytes: entry.sizeBytes, modifiedAt: entry.modifiedAt };
  }
}

async function* walkTemporary(
  read: ReadFolder,
  folder: string,
  options: CallOptions,
): AsyncGenerator<UnfinishedPut> {
  options.signal.throwIfAborted();
  const entries = await read(folder, options);
  for (const entry of entries) {
    const parts = entry.kind === "file" ? temporaryNameParts(entry.name) : undefined;
    if (parts === undefined) continue;
    yield { key: `${folder}${parts.name}`, id: entry.name, startedAt: parts.startedAt };
  }
  const folders = entries.filter(({ kind }) => kind === "folder").map(({ name }) => name);
  for (const name of folders.toSorted()) yield* walkTemporary(read, `${folder}${name}/`, options);
}
