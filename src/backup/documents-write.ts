import { hostname } from "node:os";
import type { Codec } from "../codec/codec.ts";
import {
  InterruptedError,
  ObjectExistsError,
  ObjectNotFoundError,
  RefusedError,
} from "../errors.ts";
import { bytesSource, type ByteSource, type ByteStream, readAll } from "../io/bytes.ts";
import { createHasher } from "../io/hash.ts";
import { boundedParallel } from "../io/ordered.ts";
import type { Log } from "../io/log.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { JsonValue } from "../layout/json-value.ts";
import {
  backupFolder,
  filesMetadataKey,
  manifestKey,
  metadataKey,
  sentinelKey,
} from "../layout/keys.ts";
import type { ManifestHash } from "../layout/manifest.ts";
import { formatMetadata } from "../layout/metadata.ts";
import {
  formatSentinel,
  type IncrementBase,
  type OwnRecord,
  type Sentinel,
  sumSentinel,
} from "../layout/sentinel.ts";
import type { Tablespace } from "../layout/tablespace-spec.ts";
import type { TimeNs } from "../layout/time.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import type { DocumentsSpool } from "./documents-spool.ts";

/** What the documents of a backup say of it as a whole. */
export interface BackupDescription {
  readonly name: BackupName;
  readonly startLsn: bigint;
  readonly stopLsn: bigint;
  readonly startTimeNs: TimeNs;
  readonly finishTimeNs: TimeNs;
  readonly systemId: bigint;
  /** server_version_num. */
  readonly versionNumber: number;
  readonly dataDirectory: string;
  readonly contentBytes: number;
  readonly storedBytes: number;
  readonly catalogBytes: number;
  readonly tablespaces: readonly Tablespace[];
  readonly hash: ManifestHash;
  readonly hasFilesMetadata: boolean;
  readonly isPermanent: boolean;
  readonly userData?: JsonValue | undefined;
  /** Data checksums of the cluster. */
  readonly hasChecksums: boolean;
  /** Absent for a full backup. */
  readonly base?: Required<IncrementBase> | undefined;
  readonly own?: OwnRecord | undefined;
}

interface WriteOptions {
  readonly storage: Storage;
  readonly signal: AbortSignal;
}

/**
 * metadata.json, files_metadata.json and our manifest: all but the sentinel. Gives the description
 * with what the sentinel says of them.
 */
export async function writeDocuments(
  documents: DocumentsSpool,
  description: BackupDescription,
  {
    storage,
    zstd,
    signal,
  }: { readonly storage: Pick<Storage, "put">; readonly zstd: Codec; readonly signal: AbortSignal },
): Promise<BackupDescription> {
  const { name, systemId, hash, startLsn, hasChecksums } = description;
  const base = description.base?.name || undefined;
  const header = { backup: name, systemId, hash, startLsn, hasChecksums, base };
  let filesMetadataHash: string | undefined;
  let manifestHash: string | undefined;
  const puts: (readonly [key: string, body: ByteSource])[] = [
    [metadataKey(name), bytesSource(Buffer.from(metadataText(description)))],
    [
      manifestKey(name),
      {
        isReopenable: true,
        open: () => {
          const stored = zstd.compress(documents.manifest(header), { jobs: 1, signal });
          return hashed(stored, (sum) => (manifestHash = sum));
        },
      },
    ],
  ];
  if (description.hasFilesMetadata) {
    const open = () => hashed(documents.filesMetadata(), (sum) => (filesMetadataHash = sum));
    puts.push([filesMetadataKey(name), { isReopenable: true, open }]);
  }
  await boundedParallel(
    puts,
    puts.length,
    async ([key, body], options) => await storage.put(key, body, options),
    { signal },
  );
  return { ...description, own: { ...description.own, filesMetadataHash, manifestHash } };
}

async function* hashed(stream: ByteStream, onEnd: (xxh64: string) => void): ByteStream {
  const hasher = await createHasher("xxh64");
  for await (const chunk of stream) {
    hasher.update(chunk);
    yield chunk;
  }
  onEnd(hasher.digest());
}

/**
 * Makes the backup exist. Rejects with RefusedError when there is a sentinel of this name, and when
 * a retention has removed the base meanwhile; after any other error it may exist or not.
 */
export async function writeSentinel(
  description: BackupDescription,
  { storage, signal }: WriteOptions,
): Promise<void> {
  const key = sentinelKey(description.name);
  const hasher = await createHasher("xxh64");
  const sentinel = sumSentinel(sentinelOf(description), (bytes) => hasher.digestOf(bytes));
  const text = Buffer.from(formatSentinel(sentinel));
  // A catch-up backup has a base without a name.
  if (description.base !== undefined && description.base.name !== "") {
    await requireBaseThere(storage, description.base.name, { signal });
  }
  try {
    await storage.put(key, bytesSource(text), { signal, ifAbsent: true });
  } catch (error) {
    if (!(error instanceof ObjectExistsError)) throw error;
    // Where the answer to a put was lost, its repetition finds what we stored ourselves.
    if (await holds(storage, { key, text }, { signal })) return;
    throw new RefusedError(`${storage.name} already holds a backup ${description.name}`, {
      hint: "Another cluster is backed up to the same place: give each a prefix of its own.",
      cause: error,
    });
  }
}

async function holds(
  storage: Storage,
  { key, text }: { readonly key: ObjectKey; readonly text: Uint8Array },
  { signal }: CallOptions,
): Promise<boolean> {
  try {
    return (await readAll(storage.get(key, { signal }), text.length)).equals(text);
  } catch (error) {
    if (error instanceof RangeError || error instanceof ObjectNotFoundError) return false;
    throw error;
  }
}

/** Removals begin with the ends of chains: as long as the base is listed, its own bases are. */
async function requireBaseThere(
  storage: Storage,
  base: BackupName,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  try {
    await storage.stat(sentinelKey(base), { signal });
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
    throw new RefusedError(`base ${base} was removed while the increment on it was taken`, {
      hint: "Take a full backup: backup-push --full.",
      cause: error,
    });
  }
}

function metadataText(description: BackupDescription): string {
  return formatMetadata({
    startTimeNs: description.startTimeNs,
    finishTimeNs: description.finishTimeNs,
    hostname: hostname(),
    dataDirectory: description.dataDirectory,
    pgVersion: description.versionNumber,
    startLsn: description.startLsn,
    finishLsn: description.stopLsn,
    isPermanent: description.isPermanent,
    systemId: description.systemId,
    uncompressedBytes: description.contentBytes,
    compressedBytes: description.storedBytes,
    userData: description.userData,
  });
}

function sentinelOf(description: BackupDescription): Sentinel {
  const { tablespaces, dataDirectory } = description;
  const spec = { basePrefix: dataDirectory, tablespaces };
  return {
    startLsn: description.startLsn,
    base: description.base,
    pgVersion: description.versionNumber,
    finishLsn: description.stopLsn,
    systemId: description.systemId,
    uncompressedBytes: description.contentBytes,
    compressedBytes: description.storedBytes,
    dataCatalogBytes: description.catalogBytes,
    spec: tablespaces.length === 0 ? undefined : spec,
    userData: description.userData,
    isFilesMetadataDisabled: !description.hasFilesMetadata,
    startTimeNs: description.startTimeNs,
    finishTimeNs: description.finishTimeNs,
    hostname: hostname(),
    dataDirectory,
    isPermanent: description.isPermanent,
    own: description.own,
  };
}

const REMOVE_TIMEOUT_MS = 10_000;

/**
 * Removes the objects of a backup that failed before its sentinel was written, as far as it can be
 * done in a moment: what stays is garbage that no listing shows.
 */
export async function removeObjects(
  name: BackupName,
  reason: unknown,
  { storage, log }: { readonly storage: Storage; readonly log: Log },
): Promise<void> {
  const folder = backupFolder(name);
  const left = { folder, storage: storage.name };
  if (reason instanceof InterruptedError) {
    log.warning("the objects of the unfinished backup are left in the repository", left);
    return;
  }
  const signal = AbortSignal.timeout(REMOVE_TIMEOUT_MS);
  try {
    const keys: string[] = [];
    for await (const { key } of storage.list(folder, { signal })) keys.push(key);
    if (keys.length > 0) await storage.delete(keys, { signal });
  } catch {
    log.warning("the objects of the failed backup could not be removed", left);
  }
}
