import { type CatalogueEntry, listBackups } from "../backup/catalogue.ts";
import { DamagedError, FormatError, ObjectNotFoundError, RefusedError } from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { formatJson, parseJson } from "../layout/json.ts";
import { isJsonObject, type JsonValue } from "../layout/json-value.ts";
import { metadataKey, sentinelKey } from "../layout/keys.ts";
import { parseMetadata } from "../layout/metadata.ts";
import { readSoundly } from "../storage/copies.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";

const METADATA_BYTES_MAX = 16 * 1024 * 1024;

/**
 * Marks a backup as permanent, with all backups that it is based on, or as impermanent, alone.
 * Gives the backups that were changed: none if all was so already. Rejects with RefusedError, and
 * changes nothing, if a permanent increment needs the backup, or if it is not known what it needs.
 *
 * Bases are marked first: a kill leaves no permanent increment on an impermanent base.
 */
export async function markBackup(
  storage: Storage,
  name: BackupName,
  { isPermanent, signal }: CallOptions & { readonly isPermanent: boolean },
): Promise<readonly BackupName[]> {
  const entries = await listBackups(storage, { hasMetadata: true, signal });
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const marked = isPermanent ? chainOf(byName, name) : [name];
  if (!isPermanent) requireNoPermanentIncrement(entries, name);
  const changed: BackupName[] = [];
  for (const one of marked) {
    if (await markOne(storage, one, { isPermanent, signal })) changed.push(one);
  }
  await requireStillThere(storage, marked, { signal });
  return changed;
}

/** The full backup first. */
function chainOf(
  byName: ReadonlyMap<BackupName, CatalogueEntry>,
  name: BackupName,
): readonly BackupName[] {
  const chain: BackupName[] = [];
  for (let next: BackupName | undefined = name; next !== undefined && next !== "";) {
    if (chain.includes(next)) throw brokenChain(name, `${next} is based on itself`);
    chain.unshift(next);
    const entry = byName.get(next);
    if (entry === undefined) throw brokenChain(name, `its base ${next} does not exist`);
    if (entry.sentinel === undefined) {
      throw brokenChain(name, `${next} has no readable sentinel: ${entry.problems.join("; ")}`);
    }
    next = entry.sentinel.base?.name;
  }
  return chain;
}

function brokenChain(name: BackupName, reason: string): RefusedError {
  return new RefusedError(`backup ${name} can't be made permanent: ${reason}`, {
    hint: "Nothing was changed. `walnut verify` says which backups are whole.",
  });
}

function requireNoPermanentIncrement(entries: readonly CatalogueEntry[], name: BackupName): void {
  const dependentOf = (base: BackupName) =>
    entries.find(
      ({ sentinel, metadata }) =>
        sentinel?.base?.name === base && (metadata?.isPermanent ?? sentinel.isPermanent),
    )?.name;
  let last = dependentOf(name);
  if (last === undefined) return;
  const chain = new Set([last]);
  for (let next = dependentOf(last); next !== undefined; next = dependentOf(next)) {
    if (chain.has(next)) break;
    chain.add(next);
    last = next;
  }
  throw new RefusedError(
    `Can't mark backup '${name}' as impermanent. There is permanent increment backup that depends ` +
      "on this backup.",
    { hint: `Nothing was changed. Begin with \`walnut backup-mark --impermanent ${last}\`.` },
  );
}

/** Changes nothing but the one member: others may be of a release that knows more than we do. */
async function markOne(
  storage: Storage,
  name: BackupName,
  { isPermanent, signal }: CallOptions & { readonly isPermanent: boolean },
): Promise<boolean> {
  const key = metadataKey(name);
  const document = await readDocument(storage, name, signal);
  if (parseMetadata(name, formatJson(document)).isPermanent === isPermanent) return false;
  const members = [...document].filter(([member]) => !/^is_permanent$/i.test(member));
  const at = [...document.keys()].findIndex((member) => /^is_permanent$/i.test(member));
  members.splice(at === -1 ? members.length : at, 0, ["is_permanent", isPermanent]);
  const text = formatJson(new Map(members), { escape: "go" });
  await storage.put(key, bytesSource(Buffer.from(text)), { signal });
  return true;
}

async function readDocument(
  storage: Storage,
  name: BackupName,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, JsonValue>> {
  const key = metadataKey(name);
  try {
    return await readSoundly(storage, async (one) => {
      const bytes = await readAll(one.get(key, { signal }), METADATA_BYTES_MAX);
      const document = parseJson(bytes.toString());
      if (isJsonObject(document)) return document;
      throw new FormatError("it is no JSON object");
    });
  } catch (error) {
    if (error instanceof ObjectNotFoundError) {
      throw new RefusedError(`backup ${name} has no metadata.json, which holds the mark`, {
        hint: "Backups of WAL-E and of old releases can't be marked.",
        cause: error,
      });
    }
    if (!(error instanceof FormatError)) throw error;
    throw new DamagedError(`${key} in ${storage.name} can't be read: ${error.message}`, {
      cause: error,
      hint: "While it can't be read, no retention removes the backup.",
    });
  }
}

/** A retention that runs at the same time may have decided before the mark was there. */
async function requireStillThere(
  storage: Storage,
  names: readonly BackupName[],
  options: CallOptions,
): Promise<void> {
  for (const name of names) {
    try {
      await storage.stat(sentinelKey(name), options);
    } catch (error) {
      if (!(error instanceof ObjectNotFoundError)) throw error;
      throw new RefusedError(`backup ${name} was removed while it was marked`, { cause: error });
    }
  }
}
