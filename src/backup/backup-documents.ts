import type { Codec } from "../codec/codec.ts";
import { DamagedError, FormatError, ObjectNotFoundError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import type { BackupName } from "../layout/backup-name.ts";
import {
  type FilesMetadataItem,
  parseEmbeddedFilesMetadata,
  parseFilesMetadata,
} from "../layout/files-metadata.ts";
import { filesMetadataKey, manifestKey, sentinelKey } from "../layout/keys.ts";
import {
  type ManifestFile,
  type ManifestHeader,
  type ManifestLine,
  type ManifestPart,
  type ManifestUnchanged,
  parseManifest,
} from "../layout/manifest.ts";
import { parseSentinel, type Sentinel } from "../layout/sentinel.ts";
import type { Storage } from "../storage/storage.ts";
import { parseEntryName } from "./extract-path.ts";

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
  readonly files: ReadonlyMap<string, ManifestFile>;
  /** Files that are as they were in the base. */
  readonly unchanged: ReadonlyMap<string, ManifestUnchanged>;
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
  readonly states: ReadonlyMap<string, FileState>;
  /** Paths in each part, by the last component of its key. Empty for remote backups. */
  readonly parts: ReadonlyMap<string, readonly string[]>;
}

export interface ReadDocumentsOptions {
  /** Decompresses our manifest. */
  readonly zstd: Codec;
  readonly signal: AbortSignal;
}

/** A sentinel is a small document; a larger object is none. Version 1 sentinels hold file lists. */
const MAX_SENTINEL_BYTES = 512 * 1024 * 1024;

/**
 * Reads sentinel and file list of a backup that exists. Throws DamagedError for a document that
 * can't be read, with the way out.
 */
export async function readBackupDocuments(
  storage: Storage,
  name: BackupName,
  options: ReadDocumentsOptions,
): Promise<BackupDocuments> {
  const { signal } = options;
  const sentinel = await readSentinel(storage, name, { signal });
  const manifest = await readManifest(storage, name, options);
  if (manifest !== undefined) {
    requireSameBackup(manifest, name, sentinel);
    return { name, sentinel, manifest };
  }
  return { name, sentinel, files: await readFilesIndex(storage, name, sentinel, { signal }) };
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
export function readManifestLines(
  storage: Storage,
  name: BackupName,
  { zstd, signal }: ReadDocumentsOptions,
): AsyncGenerator<ManifestLine> {
  const stored = storage.get(manifestKey(name), { signal });
  return parseManifest(zstd.decompress(stored, { jobs: 1, signal }));
}

async function readManifest(
  storage: Storage,
  name: BackupName,
  options: ReadDocumentsOptions,
): Promise<ManifestIndex | undefined> {
  const key = manifestKey(name);
  return await undamaged(name, key, async () => {
    try {
      return await indexManifest(readManifestLines(storage, name, options));
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  });
}

/**
 * Collects the lines of our manifest. Throws FormatError for names that occur twice or lead away.
 */
export async function indexManifest(lines: AsyncIterable<ManifestLine>): Promise<ManifestIndex> {
  let header: ManifestHeader | undefined;
  let sizeBytes = 0;
  const parts = new Map<string, ManifestPart>();
  const files = new Map<string, ManifestFile>();
  const unchanged = new Map<string, ManifestUnchanged>();
  const directories = new Map<string, number>();
  const links = new Map<string, string>();
  for await (const line of lines) {
    switch (line.kind) {
      case "header":
        header = line;
        break;
      case "part":
        addOnce(parts, line.name, line);
        break;
      case "file":
        addOnce(files, parseEntryName(line.name), line);
        break;
      case "unchanged":
        addOnce(unchanged, parseEntryName(line.name), line);
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
  if (header === undefined) throw new FormatError("manifest has no header");
  for (const { name, part } of files.values()) {
    if (!parts.has(part)) throw new FormatError(`manifest puts ${name} into unknown part ${part}`);
  }
  for (const path of unchanged.keys()) {
    if (!files.has(path)) continue;
    throw new FormatError(`manifest says of ${path} that it is unchanged and that it is here`);
  }
  return { header, parts, files, unchanged, directories, links, sizeBytes };
}

function addOnce<T>(map: Map<string, T>, name: string, value: T): void {
  if (map.has(name)) throw new FormatError(`manifest names ${JSON.stringify(name)} twice`);
  map.set(name, value);
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
  { signal }: { readonly signal: AbortSignal },
): Promise<FilesIndex | undefined> {
  if (sentinel.isFilesMetadataDisabled) return undefined;
  if (sentinel.embeddedFilesMetadata !== undefined) {
    return await indexFiles(parseEmbeddedFilesMetadata(name, sentinel.embeddedFilesMetadata));
  }
  const key = filesMetadataKey(name);
  return await undamaged(name, key, async () => {
    try {
      return await indexFiles(parseFilesMetadata(name, storage.get(key, { signal })));
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
  for (const [path, { fullBytes }] of manifest.files) {
    yield [path, fullBytes === undefined ? "here" : "incremented"];
  }
  for (const path of manifest.unchanged.keys()) yield [path, "skipped"];
}

/** Collects the file list; undefined if it names no file. Throws FormatError for wrong names. */
export async function indexFiles(
  items: AsyncIterable<FilesMetadataItem> | Iterable<FilesMetadataItem>,
): Promise<FilesIndex | undefined> {
  const states = new Map<string, FileState>();
  const parts = new Map<string, string[]>();
  for await (const item of items) {
    if (item.kind === "file") {
      const state = item.isSkipped ? "skipped" : item.isIncremented ? "incremented" : "here";
      states.set(pathOf(item.name), state);
    } else if (item.kind === "member") {
      const paths = parts.get(item.part);
      if (paths === undefined) parts.set(item.part, [pathOf(item.name)]);
      else paths.push(pathOf(item.name));
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

async function undamaged<T>(name: BackupName, key: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof RangeError)) throw error;
    const hint = key === manifestKey(name) ? manifestHint(name) : "Restore another backup.";
    throw new DamagedError(`${key} is damaged: ${error.message}`, { hint, cause: error });
  }
}
