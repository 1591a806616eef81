import {
  DamagedError,
  FormatError,
  ObjectExistsError,
  ObjectNotFoundError,
  WrongClusterError,
} from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import { formatIdentity, parseIdentity } from "../layout/identity.ts";
import { BACKUPS_FOLDER, identityKey, parseSentinelKey, WAL_FOLDER } from "../layout/keys.ts";
import { parseSentinel } from "../layout/sentinel.ts";
import { readSoundly } from "../storage/copies.ts";
import { statIfThere } from "../storage/object-copy.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";

const IDENTITY_BYTES_MAX = 64 * 1024;
/** Version 1 sentinels hold a description of every file. */
const SENTINEL_BYTES_MAX = 256 * 1024 * 1024;
/** The newest by name; older ones were taken by the same cluster, or these were refused too. */
const SENTINELS_READ_MAX = 5;

/**
 * Makes sure that the repository belongs to the cluster `systemId`: by our own object when there is
 * one, else the repository is taken for this cluster, unless its backups are of another one.
 *
 * Rejects with WrongClusterError; then nothing was written. Of two clusters that come at the same
 * time exactly one gets the repository.
 */
export async function ensureRepositoryIdentity(
  storage: Storage,
  systemId: bigint,
  options: CallOptions,
): Promise<void> {
  const known = await readRepositoryIdentity(storage, options);
  if (known !== undefined) {
    requireSame(storage, systemId, { owner: known, source: identityKey });
    return;
  }
  await requireNoForeignBackup(storage, systemId, options);
  try {
    const body = bytesSource(Buffer.from(formatIdentity(systemId)));
    await storage.put(identityKey, body, { ...options, ifAbsent: true });
  } catch (error) {
    if (!(error instanceof ObjectExistsError)) throw error;
    const winner = await readRepositoryIdentity(storage, options);
    if (winner === undefined) throw error;
    requireSame(storage, systemId, { owner: winner, source: identityKey });
  }
}

/**
 * System identifier that the repository belongs to; undefined while no walnut has written to it.
 */
export async function readRepositoryIdentity(
  storage: Storage,
  options: CallOptions,
): Promise<bigint | undefined> {
  try {
    return await readSoundly(storage, async (one) =>
      parseIdentity(await readText(one, identityKey, { ...options, limit: IDENTITY_BYTES_MAX })),
    );
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return undefined;
    if (!(error instanceof FormatError)) throw error;
    throw new DamagedError(
      `object ${identityKey} in ${storage.name} is damaged: ${error.message}`,
      {
        cause: error,
        hint:
          "It says which cluster this repository belongs to. If you are sure that it is this one, " +
          "delete the object: the next push writes it again.",
      },
    );
  }
}

/** Whether anything of a repository is there, ours or WAL-G's: at most three requests. */
export async function holdsRepository(storage: Storage, options: CallOptions): Promise<boolean> {
  if ((await statIfThere(storage, identityKey, options)) !== undefined) return true;
  for (const folder of [BACKUPS_FOLDER, WAL_FOLDER]) {
    for await (const _ of storage.list(folder, options)) return true;
  }
  return false;
}

async function requireNoForeignBackup(
  storage: Storage,
  systemId: bigint,
  options: CallOptions,
): Promise<void> {
  const newest: { backup: string; key: ObjectKey }[] = [];
  for await (const { key } of storage.list(BACKUPS_FOLDER, options)) {
    const backup = parseSentinelKey(key);
    if (backup === undefined) continue;
    newest.push({ backup, key });
    if (newest.length > SENTINELS_READ_MAX) newest.shift();
  }
  for (const { backup, key } of newest) {
    const owner = await readOwner(storage, { backup, key }, options);
    if (owner !== undefined) requireSame(storage, systemId, { owner, source: key });
  }
}

/** Undefined for sentinels that don't say it, and for those that nobody can read. */
async function readOwner(
  storage: Storage,
  { backup, key }: { readonly backup: string; readonly key: ObjectKey },
  options: CallOptions,
): Promise<bigint | undefined> {
  try {
    const text = await readText(storage, key, { ...options, limit: SENTINEL_BYTES_MAX });
    return parseSentinel(backup, text).systemId;
  } catch (error) {
    if (error instanceof FormatError || error instanceof ObjectNotFoundError) return undefined;
    throw error;
  }
}

function requireSame(
  storage: Storage,
  systemId: bigint,
  { owner, source }: { readonly owner: bigint; readonly source: ObjectKey },
): void {
  if (owner === systemId) return;
  throw new WrongClusterError(
    `this server is cluster ${systemId}, but repository ${storage.name} belongs to cluster ` +
      `${owner} (says ${source})`,
    {
      hint:
        "Nothing was written. Give each cluster a prefix of its own. A cluster made by initdb or " +
        "pg_upgrade is a new one, even on the same machine.",
    },
  );
}

async function readText(
  storage: Storage,
  key: ObjectKey,
  { limit, signal }: CallOptions & { readonly limit: number },
): Promise<string> {
  try {
    return (await readAll(storage.get(key, { signal }), limit)).toString("utf8");
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new FormatError(`object ${key} is longer than ${limit} bytes`, { cause: error });
  }
}
