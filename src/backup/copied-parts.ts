import type { Codec } from "../codec/codec.ts";
import { DamagedError, ObjectNotFoundError } from "../errors.ts";
import { type ByteStream, CHUNK_BYTES } from "../io/bytes.ts";
import { createHasher, type Hasher } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import { boundedParallel } from "../io/ordered.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { copyName, parsePartKey, tarFolder } from "../layout/keys.ts";
import type { ManifestFile, ManifestPart } from "../layout/manifest.ts";
import type { Storage } from "../storage/storage.ts";
import { readFilesMetadata, readManifestLines } from "./backup-documents.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import { openForReading } from "./file-content.ts";
import type { FileJudge } from "./file-judge.ts";
import type { PartUpload } from "./part-upload.ts";
import type { Walked, WalkedFile } from "./walk.ts";

/** Parts that are on their way from the store and back at the same time. */
const COPY_JOBS = 2;

export interface CopySource {
  /** A full backup of ours. */
  readonly backup: BackupName;
  /** Tells what is unchanged since it. */
  readonly judge: FileJudge;
  /** In the algorithm of its manifest. */
  readonly hasher: Hasher;
}

export interface CopyOptions {
  readonly storage: Storage;
  readonly documents: DocumentsSpool;
  readonly upload: PartUpload;
  readonly zstd: Codec;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Stores the parts of an earlier backup again of which every file is unchanged. Gives the test by
 * which to leave out what is in them. See COMPOSE.md.
 */
export async function copyUnchangedParts(
  walk: Iterable<Walked>,
  source: CopySource,
  options: CopyOptions,
): Promise<(name: string) => boolean> {
  const { documents, upload, log, signal } = options;
  const parts = await readParts(source.backup, options);
  await judgeAll(walk, parts, source, options);
  const clean = [...parts.byName.values()].filter((part) => part.isClean());
  const copied = new Set<SourcePart>();
  const numbered = clean.map((part, index) => ({ part, index }));
  await boundedParallel(
    numbered,
    COPY_JOBS,
    async ({ part, index }, { signal: inner }) => {
      const { stored, files } = part;
      const key = `${tarFolder(source.backup)}${stored.name}`;
      const extension = parsePartKey(key)?.extension ?? "";
      const name = copyName(index, extension);
      try {
        const bytes = options.storage.get(key, { signal: inner });
        await upload.putStored(name, await checked(bytes, stored, key), stored);
      } catch (error) {
        if (!(error instanceof DamagedError || error instanceof ObjectNotFoundError)) throw error;
        log.warning("a part can't be copied; its files are packed", {
          part: key,
          why: error.message,
        });
        return;
      }
      copied.add(part);
      for (const file of files) addFile(documents, file, name);
      for (const directory of part.directories) documents.addPartName(name, directory);
    },
    { signal },
  );
  log.info("unchanged parts of an earlier backup are copied", {
    backup: source.backup,
    parts: copied.size,
    of: parts.byName.size,
  });
  return (name) => {
    const part = parts.partOf.get(name);
    return part !== undefined && copied.has(part);
  };
}

/** A part of the earlier backup, and what was seen of its content. */
class SourcePart {
  readonly stored: ManifestPart;
  readonly files: ManifestFile[] = [];
  readonly directories: string[] = [];
  isDirty = false;
  unchangedCount = 0;
  directoryCount = 0;

  constructor(stored: ManifestPart) {
    this.stored = stored;
  }

  isClean(): boolean {
    return (
      !this.isDirty &&
      this.files.length > 0 &&
      this.unchangedCount === this.files.length &&
      this.directoryCount === this.directories.length
    );
  }
}

interface SourceParts {
  readonly byName: ReadonlyMap<string, SourcePart>;
  /** The part of each file and directory, by the name of its entry. */
  readonly partOf: ReadonlyMap<string, SourcePart>;
  readonly files: ReadonlyMap<string, ManifestFile>;
}

/** Only parts of which all entries are known. */
async function readParts(
  backup: BackupName,
  { storage, zstd, signal }: CopyOptions,
): Promise<SourceParts> {
  const byName = new Map<string, SourcePart>();
  const files = new Map<string, ManifestFile>();
  for await (const line of readManifestLines(storage, backup, { zstd, signal })) {
    if (line.kind === "file") files.set(line.name, line);
    if (line.kind !== "part") continue;
    const kind = parsePartKey(`${tarFolder(backup)}${line.name}`)?.kind;
    if (kind === "part" || kind === "copy") byName.set(line.name, new SourcePart(line));
  }
  const partOf = new Map<string, SourcePart>();
  for (const file of files.values()) {
    const part = byName.get(file.part);
    if (part === undefined) continue;
    part.files.push(file);
    partOf.set(file.name, part);
    // Read again, damaged pages are told of again, or found to be whole.
    if (file.corruptPages !== undefined) part.isDirty = true;
  }
  const listed = new Set<string>();
  try {
    for await (const item of readFilesMetadata(storage, backup, { signal })) {
      if (item.kind !== "member") continue;
      listed.add(item.part);
      const part = byName.get(item.part);
      if (part === undefined || files.has(item.name)) continue;
      part.directories.push(item.name);
      // In two parts: a copy, and the part in which it was packed again.
      if (partOf.has(item.name)) part.isDirty = true;
      else partOf.set(item.name, part);
    }
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
  }
  for (const [name, part] of byName) if (!listed.has(name)) part.isDirty = true;
  return { byName, partOf, files };
}

async function judgeAll(
  walk: Iterable<Walked>,
  { partOf, files }: SourceParts,
  { judge, hasher }: CopySource,
  { signal }: CopyOptions,
): Promise<void> {
  const onRead = async (): Promise<void> => signal.throwIfAborted();
  const tools = { hasher, buffer: Buffer.allocUnsafeSlow(CHUNK_BYTES), onRead, onPages: onRead };
  for (const entry of walk) {
    const part = partOf.get(entry.name);
    if (part === undefined || part.isDirty) continue;
    if (entry.kind === "directory") part.directoryCount += 1;
    else if (entry.kind === "link") part.isDirty = true;
    else if (await isUnchanged(entry, files.get(entry.name))) part.unchangedCount += 1;
    else part.isDirty = true;
  }

  async function isUnchanged(
    entry: WalkedFile,
    listed: ManifestFile | undefined,
  ): Promise<boolean> {
    if (listed === undefined || listed.mode !== entry.mode) return false;
    const file = openForReading(entry.path);
    if (file === undefined) return false;
    using _closed = file;
    return (await judge.judge(entry, file, tools)).kind === "unchanged";
  }
}

function addFile(documents: DocumentsSpool, file: ManifestFile, part: string): void {
  const { name, mode, mtimeNs, sizeBytes, hash, offsetBytes } = file;
  const entry = { kind: "file" as const, path: "", name, mode, mtimeNs, sizeBytes, uid: 0, gid: 0 };
  documents.addFile(entry, { sizeBytes, hash, part, offsetBytes });
}

/** The bytes of a part; throws DamagedError at their end unless they are those that were stored. */
async function checked(
  bytes: ByteStream,
  { sizeBytes, xxh64 }: ManifestPart,
  key: string,
): Promise<ByteStream> {
  const hasher = await createHasher("xxh64");
  return (async function* () {
    let count = 0;
    for await (const chunk of bytes) {
      hasher.update(chunk);
      count += chunk.length;
      yield chunk;
    }
    if (count === sizeBytes && hasher.digest() === xxh64) return;
    throw new DamagedError(`${key} is not as its manifest says`);
  })();
}
