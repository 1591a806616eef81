import type { Codec } from "../codec/codec.ts";
import { DamagedError, FormatError, ObjectNotFoundError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import { collected } from "../io/collected.ts";
import type { BackupName } from "../layout/backup-name.ts";
import {
  type FilesMetadataItem,
  parseEmbeddedFilesMetadata,
  parseFilesMetadata,
} from "../layout/files-metadata.ts";
import { filesMetadataKey, manifestKey, metadataKey, sentinelKey } from "../layout/keys.ts";
import {
  type ManifestHeader,
  type ManifestLine,
  type ManifestPart,
  parseManifest,
} from "../layout/manifest.ts";
import { parseSentinel, type Sentinel } from "../layout/sentinel.ts";
import type { Storage } from "../storage/storage.ts";
import { parseEntryName } from "./extract-path.ts";
import { ManifestFiles, UnchangedFiles } from "./manifest-table.ts";
import { type ByPath, PathList, PathValues } from "./path-set.ts";
import { PathTable } from "./path-table.ts";

/** What the documents of one backup say. */
export interface BackupDocuments {
  readonly name: BackupName;
  readonly sentinel: Sentinel;
  /** Ours; absent for what other tools made. */
  readonly manifest?: ManifestIndex | undefined;
  /** Absent when there is our manifest, and when the backup was made without it. */
  readonly files?: FilesIndex | undefined;
}

/** Our manifest by path below the data directory. */
export interface ManifestIndex {
  readonly header: ManifestHeader;
  readonly parts: ReadonlyMap<string, ManifestPart>;
  readonly files: ManifestFiles;
  /** Files that are as they were in the base. */
  readonly unchanged: UnchangedFiles;
  /** Permission bits. */
  readonly directories: ReadonlyMap<string, number>;
  /** Targets. */
  readonly links: ReadonlyMap<string, string>;
  /** Content of all files. */
  readonly sizeBytes: number;
}

/** Where a file of a backup is: in its parts, in them as changed pages only, or in the base. */
export type FileState = "here" | "incremented" | "skipped";

/** files_metadata.json by path below the data directory. */
export interface FilesIndex {
  /** Regular files, directories and links; not told apart. */
  readonly states: ByPath<FileState>;
  /** Paths in each part, by the last component of its key. Empty for remote backups. */
  readonly parts: ReadonlyMap<string, Iterable<string>>;
}

export interface ReadDocumentsOptions {
  /** Decompresses our manifest. */
  readonly zstd: Codec;
  readonly signal: AbortSignal;
}

/** What the documents of several backups share, so that they need less memory. */
export interface SharedDocuments {
  /** One for all of them. */
  readonly paths?: PathTable | undefined;
  /** Those of the increment that has this backup as its base. */
  readonly above?: BackupDocuments | undefined;
}

/** What is left of a line of a manifest, and of an item of files_metadata.json. */
const LINE_GARBAGE_BYTES = 1024;
const ITEM_GARBAGE_BYTES = 4096;

/** A sentinel is a small document; a larger object is none. Version 1 sentinels hold file lists. */
const MAX_SENTINEL_BYTES = 512 * 1024 * 1024;

/**
 * Reads sentinel and file list of a backup that exists. Throws DamagedError for a document that
 * can't be read, with the way out.
 */
export async function readBackupDocuments(
  storage: Storage,
  name: BackupName,
  { paths = new PathTable(), above, ...options }: ReadDocumentsOptions & SharedDocuments,
): Promise<BackupDocuments> {
  const { signal } = options;
  const sentinel = await readSentinel(storage, name, { signal });
  const manifest = await readManifest(storage, name, { ...options, paths, above });
  if (manifest !== undefined) {
    requireSameBackup(manifest, name, sentinel);
    return { name, sentinel, manifest };
  }
  return {
    name,
    sentinel,
    files: await readFilesIndex(storage, name, sentinel, { paths, signal }),
  };
}

/** Throws DamagedError if the object is there but is no sentinel. */
export async function readSentinel(
  storage: Storage,
  name: BackupName,
  { signal }: { readonly signal: AbortSignal },
): Promise<Sentinel> {
  const key = sentinelKey(name);
  return await undamaged(name, key, async () => {
    const bytes = await readAll(storage.get(key, { signal }), MAX_SENTINEL_BYTES);
    return parseSentinel(name, bytes.toString());
  });
}

/**
 * Our manifest line by line; rejects with ObjectNotFoundError when the backup has none, and with
 * FormatError for a damaged one.
 */
export async function* readManifestLines(
  storage: Storage,
  name: BackupName,
  { zstd, signal }: ReadDocumentsOptions,
): AsyncGenerator<ManifestLine> {
  const stored = storage.get(manifestKey(name), { signal });
  const lines = parseManifest(zstd.decompress(stored, { jobs: 1, signal }));
  yield* collected(lines, LINE_GARBAGE_BYTES);
}

/**
 * files_metadata.json item by item; rejects with ObjectNotFoundError when the backup has none, and
 * with FormatError for a damaged one.
 */
export async function* readFilesMetadata(
  storage: Storage,
  name: BackupName,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<FilesMetadataItem> {
  const stored = storage.get(filesMetadataKey(name), { signal });
  yield* collected(parseFilesMetadata(name, stored), ITEM_GARBAGE_BYTES);
}

async function readManifest(
  storage: Storage,
  name: BackupName,
  options: ReadDocumentsOptions & SharedDocuments,
): Promise<ManifestIndex | undefined> {
  const key = manifestKey(name);
  return await undamaged(name, key, async () => {
    try {
      return await indexManifest(readManifestLines(storage, name, options), options);
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  });
}

/**
 * Collects the lines of our manifest. Throws FormatError for names that occur twice or lead away.
 */
export async function indexManifest(
  lines: AsyncIterable<ManifestLine>,
  shared: SharedDocuments = {},
): Promise<ManifestIndex> {
  let header: ManifestHeader | undefined;
  let files: FileTables | undefined;
  let sizeBytes = 0;
  const parts = new Map<string, ManifestPart>();
  const directories = new Map<string, number>();
  const links = new Map<string, string>();
  for await (const line of lines) {
    switch (line.kind) {
      case "header":
        header = line;
        files = fileTables(line, shared);
        break;
      case "part":
        addOnce(parts, line.name, line);
        break;
      case "file":
        if (files !== undefined) requireNew(line, files.here.set(parseEntryName(line.name), line));
        break;
      case "unchanged":
        if (files === undefined) break;
        requireNew(line, files.unchanged.set(parseEntryName(line.name), line));
        break;
      case "database":
        break;
      case "directory":
        addOnce(directories, parseEntryName(line.name), line.mode);
        break;
      case "link":
        addOnce(links, parseEntryName(line.name), line.target);
        break;
      case "end":
        sizeBytes = line.sizeBytes;
    }
  }
  if (header === undefined || files === undefined) {
    throw new FormatError("manifest has no header");
  }
  const { here, unchanged } = files;
  requireConsistent(files, parts);
  return { header, parts, files: here, unchanged, directories, links, sizeBytes };
}

interface FileTables {
  readonly here: ManifestFiles;
  readonly unchanged: UnchangedFiles;
}

function fileTables({ hash }: ManifestHeader, shared: SharedDocuments): FileTables {
  const table = shared.paths ?? new PathTable();
  const above = shared.above?.manifest;
  const isComparable = shared.paths !== undefined && above?.header.hash === hash;
  const known = isComparable ? above.unchanged : undefined;
  const unchanged = new UnchangedFiles(table, hash, known);
  return { here: new ManifestFiles(table, hash, known), unchanged };
}

function requireConsistent(
  { here, unchanged }: FileTables,
  parts: ReadonlyMap<string, ManifestPart>,
): void {
  const unknown = [...here.partNames].find((part) => !parts.has(part));
  if (unknown !== undefined)
    throw new FormatError(`manifest puts files into unknown part ${unknown}`);
  if (unchanged.size === 0) return;
  for (let id = 0; id < here.table.count; id += 1) {
    if (!here.hasId(id) || !unchanged.hasId(id)) continue;
    const path = here.table.pathOf(id);
    throw new FormatError(`manifest says of ${path} that it is unchanged and that it is here`);
  }
}

function addOnce<T>(map: Map<string, T>, name: string, value: T): void {
  requireNew({ name }, !map.has(name));
  map.set(name, value);
}

function requireNew({ name }: { readonly name: string }, isNew: boolean): void {
  if (!isNew) throw new FormatError(`manifest names ${JSON.stringify(name)} twice`);
}

function requireSameBackup(manifest: ManifestIndex, name: BackupName, sentinel: Sentinel): void {
  const { backup, systemId, base } = manifest.header;
  if (backup !== name || (sentinel.systemId ?? systemId) !== systemId) {
    throw new DamagedError(
      `manifest of backup ${name} is that of ${backup} of the cluster ${systemId}`,
      { hint: manifestHint(name) },
    );
  }
  // A catch-up backup has a base without a name.
  if (base !== (sentinel.base?.name || undefined)) {
    throw new DamagedError(
      `manifest of backup ${name} has the base ${base}, the sentinel ${sentinel.base?.name}`,
      { hint: "Restore another backup." },
    );
  }
}

async function readFilesIndex(
  storage: Storage,
  name: BackupName,
  sentinel: Sentinel,
  { paths, signal }: { readonly paths: PathTable; readonly signal: AbortSignal },
): Promise<FilesIndex | undefined> {
  if (sentinel.isFilesMetadataDisabled) return undefined;
  if (sentinel.embeddedFilesMetadata !== undefined) {
    const items = parseEmbeddedFilesMetadata(name, sentinel.embeddedFilesMetadata);
    return await indexFiles(items, paths);
  }
  const key = filesMetadataKey(name);
  return await undamaged(name, key, async () => {
    try {
      return await indexFiles(readFilesMetadata(storage, name, { signal }), paths);
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  });
}

/** State of every file of a backup, as far as its documents tell. */
export function* fileStates({
  manifest,
  files,
}: BackupDocuments): Generator<readonly [path: string, state: FileState]> {
  if (manifest === undefined) {
    yield* files?.states ?? [];
    return;
  }
  const { files: here, unchanged } = manifest;
  for (const id of here.ids()) {
    yield [here.table.pathOf(id), here.isIncrementId(id) ? "incremented" : "here"];
  }
  for (const path of unchanged.keys()) yield [path, "skipped"];
}

/** Collects the file list; undefined if it names no file. Throws FormatError for wrong names. */
export async function indexFiles(
  items: AsyncIterable<FilesMetadataItem> | Iterable<FilesMetadataItem>,
  table: PathTable = new PathTable(),
): Promise<FilesIndex | undefined> {
  const states = new PathValues<FileState>(table);
  const parts = new Map<string, PathList>();
  for await (const item of items) {
    if (item.kind === "file") {
      const state = item.isSkipped ? "skipped" : item.isIncremented ? "incremented" : "here";
      states.set(pathOf(item.name), state);
    } else if (item.kind === "member") {
      const paths = parts.get(item.part) ?? new PathList(table);
      paths.push(pathOf(item.name));
      parts.set(item.part, paths);
    }
  }
  return states.size === 0 ? undefined : { states, parts };
}

function pathOf(name: string): string {
  try {
    return parseEntryName(name);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new FormatError(`entry ${JSON.stringify(name)} is refused: ${error.message}`, {
      cause: error,
    });
  }
}

function manifestHint(name: BackupName): string {
  return (
    "Restore another backup; or move the object " +
    `${manifestKey(name)} away, to restore this one with what the other documents can check.`
  );
}

/** Turns what a parser throws into a DamagedError that names the object. */
export async function undamaged<T>(
  name: BackupName,
  key: string,
  read: () => Promise<T>,
): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof RangeError)) throw error;
    const hint =
      key === manifestKey(name)
        ? manifestHint(name)
        : key === metadataKey(name)
          ? "A restore does not need it. While it can't be read, no retention removes the backup."
          : "Restore another backup.";
    throw new DamagedError(`${key} is damaged: ${error.message}`, { hint, cause: error });
  }
}
