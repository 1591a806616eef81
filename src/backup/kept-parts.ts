import { type BigIntStats, lstatSync, readlinkSync, statSync } from "node:fs";
import type { Codec } from "../codec/codec.ts";
import { OperationError, StorageAccessError, StorageError, systemErrorCode } from "../errors.ts";
import { CHUNK_BYTES } from "../io/bytes.ts";
import { createHasher, type HashAlgorithm, type Hasher } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import type { RateLimit } from "../io/rate-limit.ts";
import { localFileError } from "../io/system-error.ts";
import { backupFolder, parsePartRecord, partRecordKey, tarFolder } from "../layout/keys.ts";
import type { ManifestFile } from "../layout/manifest.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import { openForReading } from "./file-content.ts";
import { PAGE_BYTES } from "./increment-header.ts";
import type { Interrupted } from "./interrupted.ts";
import type { PageVerifier } from "./page-verifier.ts";
import { type Owner, type PartMember, readPartRecord, type ReadRecord } from "./part-record.ts";
import type { PartUpload } from "./part-upload.ts";
import { PathSet } from "./path-set.ts";
import { PathTable } from "./path-table.ts";
import { plainBytesOf } from "./run-claim.ts";
import type { WalkedFile } from "./walk.ts";

export interface KeptPartsOptions {
  readonly storage: Storage;
  readonly dataDirectory: string;
  readonly systemId: bigint;
  readonly owner: Owner;
  /** Of the manifest. */
  readonly hash: HashAlgorithm;
  readonly zstd: Codec;
  readonly documents: DocumentsSpool;
  readonly upload: Pick<PartUpload, "addStored">;
  readonly verifier?: PageVerifier | undefined;
  readonly rateLimit?: RateLimit | undefined;
  readonly onContent: (sizeBytes: number) => void;
  /** The claim of this run. */
  readonly ownClaim: ObjectKey;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Verified and hashed one after the other: so much stays in a processor's own cache. */
const CACHED_BYTES = 128 * 1024;
const MODE_MASK = 0o7777n;
const NO_TIME = { mtimeNs: 0n };

/**
 * Keeps the parts of an interrupted backup of which every entry is what it would be if it were
 * packed now, and removes everything else in its folder. Gives the names of what is in them. See
 * RESUME.md.
 */
export async function keepParts(
  interrupted: Interrupted,
  options: KeptPartsOptions,
): Promise<PathSet> {
  const { name, objects } = interrupted;
  const { log } = options;
  const kept = new Set<ObjectKey>([options.ownClaim]);
  const paths = new PathSet(new PathTable());
  const comparison = new Comparison(options, await hashersOf(options));
  let partCount = 0;
  let keptBytes = 0;
  for (const key of objects.keys()) {
    const part = parsePartRecord(key.slice(backupFolder(name).length));
    if (part === undefined) continue;
    partCount += 1;
    const record = await readSoundRecord(interrupted, part, options);
    const hashes = record === undefined ? undefined : await comparison.hashesOf(record, paths);
    if (record === undefined || hashes === undefined) continue;
    await addMembers(record, hashes, { ...options, paths });
    options.upload.addStored(record.part);
    kept.add(key).add(`${tarFolder(name)}${part}`);
    keptBytes += record.part.sizeBytes;
  }
  log.info("the interrupted backup is resumed: what is unchanged is not stored again", {
    backup: name,
    parts: (kept.size - 1) / 2,
    of: partCount,
    bytes: keptBytes,
  });
  await removeRest(interrupted, kept, options);
  return paths;
}

async function hashersOf({ hash }: KeptPartsOptions): Promise<Hashers> {
  return { strong: await createHasher("sha256"), listed: await createHasher(hash) };
}

/** Undefined for what can't be relied on: then its part goes. */
async function readSoundRecord(
  { name, objects }: Interrupted,
  part: string,
  options: KeptPartsOptions,
): Promise<ReadRecord | undefined> {
  const key = `${tarFolder(name)}${part}`;
  const storedBytes = objects.get(key);
  if (storedBytes === undefined) return undefined;
  try {
    const record = await readPartRecord(name, part, options);
    const plainBytes = plainBytesOf(options.storage, key, storedBytes) ?? record.part.sizeBytes;
    return plainBytes === record.part.sizeBytes ? record : undefined;
  } catch (error) {
    const isStore = error instanceof StorageError || error instanceof StorageAccessError;
    if (options.signal.aborted || isStore || !(error instanceof OperationError)) throw error;
    options.log.warning("what is noted of a part can't be read; it is packed again", {
      record: partRecordKey(name, part),
      reason: error.message,
    });
    return undefined;
  }
}

interface Hashers {
  /** Of the record. */
  readonly strong: Hasher;
  /** Of the manifest. */
  readonly listed: Hasher;
}

class Comparison {
  readonly #options: KeptPartsOptions;
  readonly #hashers: Hashers;
  readonly #buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);

  constructor(options: KeptPartsOptions, hashers: Hashers) {
    this.#options = options;
    this.#hashers = hashers;
  }

  /**
   * Of its files, in their order, for the manifest; undefined at the first entry that is not what
   * it was, or that a part has that is kept already.
   */
  async hashesOf(record: ReadRecord, kept: PathSet): Promise<readonly string[] | undefined> {
    const hashes: string[] = [];
    for await (const member of record.members()) {
      this.#options.signal.throwIfAborted();
      if (kept.has(member.name)) return undefined;
      if (member.kind !== "file") {
        if (!this.#isSameOther(member)) return undefined;
        continue;
      }
      const hash = await this.#hashOfSame(member);
      if (hash === undefined) return undefined;
      hashes.push(hash);
    }
    return hashes;
  }

  #pathOf(name: string): string {
    const { dataDirectory } = this.#options;
    return name === "/" ? dataDirectory : `${dataDirectory}${name}`;
  }

  #isSameOther(member: Exclude<PartMember, ManifestFile>): boolean {
    const path = this.#pathOf(member.name);
    if (member.kind === "link") {
      const stats = unlessMissing(path, () => lstatSync(path, { bigint: true }));
      if (stats === undefined || !stats.isSymbolicLink() || !this.#isOwned(stats)) return false;
      return unlessMissing(path, () => readlinkSync(path)) === member.target;
    }
    // As the walk: a directory may be where a link leads.
    const stats = unlessMissing(path, () => statSync(path, { bigint: true }));
    return stats !== undefined && stats.isDirectory() && this.#isSame(stats, member.mode);
  }

  async #hashOfSame(member: ManifestFile): Promise<string | undefined> {
    // Damaged pages are looked at again, and told of again.
    if (member.corruptPages !== undefined) return undefined;
    const path = this.#pathOf(member.name);
    const stats = unlessMissing(path, () => lstatSync(path, { bigint: true }));
    if (stats === undefined || !stats.isFile() || !this.#isSame(stats, member.mode)) {
      return undefined;
    }
    if (stats.size !== BigInt(member.sizeBytes)) return undefined;
    return await this.#read(path, member);
  }

  async #read(path: string, member: ManifestFile): Promise<string | undefined> {
    const { verifier, rateLimit, onContent, signal } = this.#options;
    const { strong, listed } = this.#hashers;
    const opened = openForReading(path);
    if (opened === undefined) return undefined;
    using file = opened;
    const verification = verifier?.open(entryOf(member, this.#options.owner, path), file);
    let isWhole = true;
    for (let position = 0; position < member.sizeBytes; position += CHUNK_BYTES) {
      signal.throwIfAborted();
      const wanted = Math.min(CHUNK_BYTES, member.sizeBytes - position);
      await rateLimit?.take(wanted, { signal });
      const bytes = this.#buffer.subarray(0, wanted);
      if ((await file.read(bytes, position)) !== wanted) isWhole = false;
      for (let at = 0; at < wanted; at += CACHED_BYTES) {
        const piece = bytes.subarray(at, at + CACHED_BYTES);
        await verification?.check(piece, (position + at) / PAGE_BYTES, { signal });
        strong.update(piece);
        listed.update(piece);
      }
    }
    const [hash, own] = [strong.digest(), listed.digest()];
    const isSame = isWhole && hash === member.hash && verification?.corrupt() === undefined;
    if (isSame) onContent(member.sizeBytes);
    return isSame ? own : undefined;
  }

  #isSame(stats: BigIntStats, mode: number): boolean {
    return Number(stats.mode & MODE_MASK) === mode && this.#isOwned(stats);
  }

  #isOwned({ uid, gid }: BigIntStats): boolean {
    const { owner } = this.#options;
    return Number(uid) === owner.uid && Number(gid) === owner.gid;
  }
}

function entryOf(member: ManifestFile, owner: Owner, path: string): WalkedFile {
  const { name, mode, mtimeNs, sizeBytes } = member;
  return { kind: "file", path, name, mode, mtimeNs, sizeBytes, ...owner };
}

async function addMembers(
  record: ReadRecord,
  hashes: readonly string[],
  { dataDirectory, documents, owner, paths }: KeptPartsOptions & { readonly paths: PathSet },
): Promise<void> {
  const { name: part } = record.part;
  let index = 0;
  for await (const member of record.members()) {
    paths.add(member.name);
    if (member.kind === "file") {
      const { sizeBytes, offsetBytes } = member;
      const hash = hashes[index] ?? "";
      index += 1;
      documents.addFile(entryOf(member, owner, ""), { sizeBytes, hash, part, offsetBytes });
    } else {
      const path = member.name === "/" ? dataDirectory : `${dataDirectory}${member.name}`;
      const { mtimeNs } = unlessMissing(path, () => lstatSync(path, { bigint: true })) ?? NO_TIME;
      documents.addOther({ mode: 0, mtimeNs, ...member, ...owner }, part);
    }
  }
}

/** Records first: what stays when this is cut off is a part that nobody vouches for. */
async function removeRest(
  { name, objects, claims }: Interrupted,
  kept: ReadonlySet<ObjectKey>,
  { storage, signal }: KeptPartsOptions,
): Promise<void> {
  const { upkeep } = storage;
  for await (const put of upkeep?.listUnfinished(backupFolder(name), { signal }) ?? []) {
    await upkeep?.removeUnfinished(put, { signal });
  }
  const rest = [...objects.keys()].filter((key) => !kept.has(key) && !claims.includes(key));
  const isRecord = (key: ObjectKey): boolean =>
    parsePartRecord(key.slice(backupFolder(name).length)) !== undefined;
  for (const keys of [rest.filter(isRecord), rest.filter((key) => !isRecord(key))]) {
    if (keys.length > 0) await storage.delete(keys, { signal });
  }
}

function unlessMissing<T>(path: string, read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "ENOENT" || code === "ENOTDIR" || code === "ELOOP") return undefined;
    throw localFileError("read", path, error);
  }
}
