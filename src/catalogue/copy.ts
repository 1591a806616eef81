import { readRepositoryIdentity } from "../archive/identity.ts";
import { readPartHashes } from "./part-hashes.ts";
import { ConflictError, DamagedError, WrongClusterError } from "../errors.ts";
import { bytesSource, type ByteStream, readAll } from "../io/bytes.ts";
import { createHasher } from "../io/hash.ts";
import { boundedParallel } from "../io/ordered.ts";
import { formatIdentity } from "../layout/identity.ts";
import { identityKey, parseSentinelKey } from "../layout/keys.ts";
import { copyObject, statIfThere } from "../storage/object-copy.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { type Catalogue, readCatalogue } from "./catalogue.ts";
import { type CopyPlan, type CopyWish, planCopy } from "./copy-plan.ts";

export interface CopyOptions extends CallOptions {
  /** Objects at the same time. */
  readonly jobs: number;
  readonly onCopied?: (key: ObjectKey, isNew: boolean) => void;
}

/** One side of a copy. */
export interface CopySide {
  /** Objects as they are stored: they are copied without being opened. */
  readonly stored: Storage;
  /** The same with decryption: to read what decides about the copy. */
  readonly readable: Storage;
  readonly isEncrypted: boolean;
}

export interface CopyCounts {
  readonly copied: number;
  readonly there: number;
}

/**
 * Copies backups with the WAL that they need. What is there is left out, so a copy that was killed
 * goes on; sentinels come last, so it leaves no backup that can't be restored. Rejects with
 * RefusedError for a plan that can't be fulfilled, with WrongClusterError for a target that holds
 * another cluster's, with DamagedError for a part that is not what our manifest says; a target
 * object of other content rejects with ConflictError.
 */
export async function copyRepository(
  source: CopySide,
  target: CopySide,
  wish: CopyWish & CopyOptions,
): Promise<CopyCounts> {
  const { signal, jobs } = wish;
  const catalogue = await readCatalogue(source.readable, { signal });
  const plan = planCopy(catalogue, wish);
  await claimTarget(catalogue, source.readable, target.readable, { signal });

  // The manifest's hashes are of what was encrypted.
  const described = source.isEncrypted ? [] : plan.described;
  const hashes = await readPartHashes(source.readable, described, { signal });
  const counts = { copied: 0, there: 0 };
  const copyAll = async (keys: readonly ObjectKey[], limit: number): Promise<void> => {
    await boundedParallel(
      keys,
      limit,
      async (key, options) => {
        const isNew = await copyOne(source.stored, target.stored, {
          key,
          hash: hashes.get(key),
          ...options,
        });
        counts[isNew ? "copied" : "there"] += 1;
        wish.onCopied?.(key, isNew);
      },
      { signal },
    );
  };
  const { payload, documents, sentinels }: CopyPlan = plan;
  await copyAll(payload, jobs);
  await copyAll(documents, jobs);
  // One after the other: bases before what is based on them.
  await copyAll(sentinels, 1);
  return counts;
}

async function copyOne(
  source: Storage,
  target: Storage,
  {
    key,
    hash,
    signal,
  }: CallOptions & { readonly key: ObjectKey; readonly hash: string | undefined },
): Promise<boolean> {
  const isChanged = await differs(source, target, { key, signal });
  if (isChanged && parseSentinelKey(key) !== undefined) {
    throw new ConflictError(`${key} in ${target.name} is another backup of the same name`, {
      hint: "Nothing was overwritten. Two clusters may share the place, or one was cloned.",
    });
  }
  return await copyObject(source, target, key, {
    signal,
    existing: isChanged ? "overwrite" : "compare",
    ...(hash === undefined
      ? {}
      : { check: (stream) => checked(stream, { key, hash, storageName: source.name }) }),
  });
}

/**
 * Small documents of which there may be another one: metadata.json is marked, sentinels are not.
 */
async function differs(
  source: Storage,
  target: Storage,
  { key, signal }: CallOptions & { readonly key: ObjectKey },
): Promise<boolean> {
  if (!key.endsWith("/metadata.json") && parseSentinelKey(key) === undefined) return false;
  if ((await statIfThere(target, key, { signal })) === undefined) return false;
  const [one, other] = await Promise.all(
    [source, target].map((storage) => readAll(storage.get(key, { signal }))),
  );
  return one === undefined || other === undefined || !one.equals(other);
}

async function* checked(
  stream: ByteStream,
  { key, hash, storageName }: { key: ObjectKey; hash: string; storageName: string },
): ByteStream {
  const hasher = await createHasher("xxh64");
  for await (const chunk of stream) {
    hasher.update(chunk);
    yield chunk;
  }
  if (hasher.digest() === hash) return;
  throw new DamagedError(`object ${key} in ${storageName} is not what its manifest says`, {
    hint: "The backup is damaged in its repository: copy another one.",
  });
}

/** The target belongs to the source's cluster from now on, if it belonged to none. */
async function claimTarget(
  { backups }: Catalogue,
  source: Storage,
  target: Storage,
  options: CallOptions,
): Promise<void> {
  const known = await readRepositoryIdentity(source, options);
  const systemId = known ?? backups.find((backup) => backup.systemId !== undefined)?.systemId;
  if (systemId === undefined) return;
  const owner = await readRepositoryIdentity(target, options);
  if (owner === systemId) return;
  if (owner !== undefined) {
    throw new WrongClusterError(
      `${source.name} belongs to cluster ${systemId}, but ${target.name} to ${owner}`,
      { hint: "Nothing was copied. Give each cluster a prefix of its own." },
    );
  }
  const body = bytesSource(Buffer.from(formatIdentity(systemId)));
  await target.put(identityKey, body, { ...options, ifAbsent: true });
}
