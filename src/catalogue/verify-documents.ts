import {
  type BackupDocuments,
  readBackupDocuments,
  readFilesMetadata,
  readSentinel,
} from "../backup/backup-documents.ts";
import { readMetadata } from "../backup/catalogue.ts";
import { codecOf } from "../codec/table.ts";
import { ObjectNotFoundError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { isJsonEqual, type JsonValue } from "../layout/json-value.ts";
import {
  filesMetadataKey,
  manifestKey,
  metadataKey,
  sentinelKey,
  serverManifestKey,
} from "../layout/keys.ts";
import { type BackupMetadata, formatMetadata } from "../layout/metadata.ts";
import { formatSentinel, type Sentinel, sumSentinel } from "../layout/sentinel.ts";
import { parseEntryName } from "../backup/extract-path.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import type { BackupFolder } from "./backup-folders.ts";
import { type Finding, faultText } from "./finding.ts";
import type { StoredHash } from "./verify-memory.ts";

/** What the documents of a backup say, and what is wrong with them. */
export interface DocumentsVerdict {
  /** Undefined when they can't be read: then nothing can be said of its parts. */
  readonly documents: BackupDocuments | undefined;
  readonly findings: readonly Finding[];
  /** By key, of the documents that never change after the backup. */
  readonly hashes: ReadonlyMap<ObjectKey, StoredHash>;
}

/** Reads all documents of a backup and holds them against each other. */
export async function verifyDocuments(
  storage: Storage,
  name: BackupName,
  {
    hasher,
    signal,
    folder,
  }: CallOptions & {
    readonly hasher: Hasher;
    readonly folder: Pick<BackupFolder, "has"> | undefined;
  },
): Promise<DocumentsVerdict> {
  const check = new DocumentsCheck(storage, name, { signal });
  const documents = await check.attempt(sentinelKey(name), () =>
    readBackupDocuments(storage, name, { zstd: codecOf("zstd"), signal }),
  );
  if (documents !== undefined) {
    await check.compareSentinel(documents, hasher);
    await check.compareFiles(documents);
  }
  const own = folder?.has("walnut_backup_manifest.zst") === true ? [serverManifestKey(name)] : [];
  for (const key of own) await check.attempt(key, () => check.readServerManifest(key));
  const hashes = await check.hashAll(hasher, own);
  if (documents !== undefined) check.compareHash(documents, hashes);
  return { documents, findings: check.findings, hashes };
}

class DocumentsCheck {
  readonly findings: Finding[] = [];
  readonly #storage: Storage;
  readonly #name: BackupName;
  readonly #options: CallOptions;

  constructor(storage: Storage, name: BackupName, options: CallOptions) {
    this.#storage = storage;
    this.#name = name;
    this.#options = options;
  }

  /** What is wrong becomes a finding about `key`. */
  async attempt<T>(key: ObjectKey, read: () => Promise<T>): Promise<T | undefined> {
    try {
      return await read();
    } catch (error) {
      this.#options.signal.throwIfAborted();
      this.#add(key, faultText(error));
      return undefined;
    }
  }

  async compareSentinel({ manifest }: BackupDocuments, hasher: Hasher): Promise<void> {
    const name = this.#name;
    const [sentinelPlace, metadataPlace] = [sentinelKey(name), metadataKey(name)];
    const sentinel = await this.attempt(sentinelPlace, () =>
      readSentinel(this.#storage, name, this.#options),
    );
    const metadata = await this.attempt(metadataPlace, () => this.#readMetadata());
    if (sentinel === undefined) return;
    if (metadata !== undefined) {
      for (const member of differences(sentinel, metadata)) {
        this.#add(metadataPlace, `its ${member} is not that of the sentinel`);
      }
    }
    if (manifest === undefined) return;
    const { systemId, startLsn } = manifest.header;
    if (sentinel.systemId !== systemId || sentinel.startLsn !== startLsn) {
      this.#add(sentinelPlace, "it is not of the backup that the manifest describes");
    }
    // What we wrote ourselves can only be written in one way.
    await this.#requireText(sentinelPlace, formatSentinel(sentinel));
    this.#requireSum(sentinelPlace, sentinel, hasher);
    if (metadata !== undefined) await this.#requireText(metadataPlace, formatMetadata(metadata));
  }

  /** Sentinels of earlier releases have none. */
  #requireSum(key: ObjectKey, sentinel: Sentinel, hasher: Hasher): void {
    const sum = sentinel.own?.sum;
    if (sum === undefined) return;
    const { own } = sumSentinel(sentinel, (bytes) => hasher.digestOf(bytes));
    if (own?.sum !== sum) this.#add(key, "it does not have the hash that it says");
  }

  async #readMetadata(): Promise<BackupMetadata | undefined> {
    try {
      return await readMetadata(this.#storage, this.#name, this.#options.signal);
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  }

  async #requireText(key: ObjectKey, expected: string): Promise<void> {
    const text = (await readAll(this.#storage.get(key, this.#options))).toString("utf8");
    if (text !== expected) this.#add(key, "it is not as it was written");
  }

  /** files_metadata.json says the same as our manifest, where there are both. */
  async compareFiles({ manifest, sentinel }: BackupDocuments): Promise<void> {
    const key = filesMetadataKey(this.#name);
    if (sentinel.isFilesMetadataDisabled || sentinel.embeddedFilesMetadata !== undefined) return;
    await this.attempt(key, async () => {
      let fileCount = 0;
      try {
        for await (const item of readFilesMetadata(this.#storage, this.#name, this.#options)) {
          if (item.kind !== "file" || manifest === undefined) continue;
          const path = parseEntryName(item.name);
          const listed = manifest.files.get(path);
          fileCount += listed === undefined ? 0 : 1;
          if (listed !== undefined && listed.mtimeNs !== 0n && listed.mtimeNs !== item.mtimeNs) {
            this.#add(key, `its time of ${path} is not that of the manifest`);
          }
        }
      } catch (error) {
        // Restores do without it.
        if (!(error instanceof ObjectNotFoundError)) throw error;
        this.findings.push({
          kind: manifest === undefined ? "missing" : "note",
          subject: key,
          text: "the list of files is not there",
          backup: this.#name,
        });
        return;
      }
      if (manifest === undefined) return;
      const { files } = manifest;
      const listedCount = files.size - UNDESCRIBED.filter((path) => files.has(path)).length;
      if (fileCount !== listedCount) {
        this.#add(key, `it names ${fileCount} files of the ${listedCount} in the manifest`);
      }
    });
  }

  /** Both lists of files, bit by bit: nothing else tells of all that is in them. */
  compareHash({ sentinel }: BackupDocuments, hashes: ReadonlyMap<ObjectKey, StoredHash>): void {
    for (const [key, expected] of [
      [filesMetadataKey(this.#name), sentinel.own?.filesMetadataHash],
      [manifestKey(this.#name), sentinel.own?.manifestHash],
    ] as const) {
      const found = hashes.get(key)?.xxh64;
      if (expected === undefined || found === undefined || found === expected) continue;
      this.#add(key, "it does not have the hash that the sentinel says");
    }
  }

  /** Of a remote backup: text in zstd, which has a checksum. */
  async readServerManifest(key: ObjectKey): Promise<void> {
    const { signal } = this.#options;
    const stored = this.#storage.get(key, this.#options);
    for await (const _ of codecOf("zstd").decompress(stored, { jobs: 1, signal })) {
      signal.throwIfAborted();
    }
  }

  async hashAll(
    hasher: Hasher,
    others: readonly ObjectKey[],
  ): Promise<ReadonlyMap<ObjectKey, StoredHash>> {
    const hashes = new Map<ObjectKey, StoredHash>();
    const name = this.#name;
    for (const key of [sentinelKey(name), filesMetadataKey(name), manifestKey(name), ...others]) {
      const options = { ...this.#options, hasher };
      const hash = await this.attempt(key, () => hashObject(this.#storage, key, options));
      if (hash !== undefined) hashes.set(key, hash);
    }
    return hashes;
  }

  #add(subject: ObjectKey, text: string): void {
    if (this.findings.some((known) => known.subject === subject && known.text === text)) return;
    this.findings.push({ kind: "damaged", subject, text, backup: this.#name });
  }
}

/** Files that files_metadata.json leaves out. */
const UNDESCRIBED: readonly string[] = ["global/pg_control", "backup_label", "tablespace_map"];

/** XXH64 and size of an object as it is stored; undefined if there is none. */
export async function hashObject(
  storage: Storage,
  key: ObjectKey,
  { hasher, signal }: CallOptions & { readonly hasher: Hasher },
): Promise<StoredHash | undefined> {
  let sizeBytes = 0;
  try {
    for await (const chunk of storage.get(key, { signal })) {
      sizeBytes += chunk.length;
      hasher.update(chunk);
    }
  } catch (error) {
    hasher.digest();
    if (error instanceof ObjectNotFoundError) return undefined;
    throw error;
  }
  return { sizeBytes, xxh64: hasher.digest() };
}

/** Members that both documents hold; whether the backup is permanent may differ. */
function differences(sentinel: Sentinel, metadata: BackupMetadata): readonly string[] {
  const pairs: readonly (readonly [string, JsonValue | undefined, JsonValue | undefined])[] = [
    ["start_time", sentinel.startTimeNs, metadata.startTimeNs],
    ["finish_time", sentinel.finishTimeNs, metadata.finishTimeNs],
    ["hostname", sentinel.hostname, metadata.hostname],
    ["data_dir", sentinel.dataDirectory, metadata.dataDirectory],
    ["pg_version", big(sentinel.pgVersion), big(metadata.pgVersion)],
    ["start_lsn", sentinel.startLsn, metadata.startLsn],
    ["finish_lsn", sentinel.finishLsn, metadata.finishLsn],
    ["system_identifier", sentinel.systemId, metadata.systemId],
    ["uncompressed_size", big(sentinel.uncompressedBytes), big(metadata.uncompressedBytes)],
    ["compressed_size", big(sentinel.compressedBytes), big(metadata.compressedBytes)],
    ["user_data", sentinel.userData, metadata.userData],
  ];
  return pairs
    .filter(([, one, other]) => one !== undefined && !isJsonEqual(one, other ?? null))
    .map(([member]) => member);
}

function big(value: number | undefined): bigint | undefined {
  return value === undefined ? undefined : BigInt(value);
}
