import { FormatError, ObjectNotFoundError, RefusedError } from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import { stateOfHolder } from "../io/process-identity.ts";
import { randomHex } from "../io/random.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { formatJson, parseJson } from "../layout/json.ts";
import { jsonObject, objectMember } from "../layout/json-value.ts";
import { backupFolder, mergeClaimKey, parseMergeClaim, sentinelKey } from "../layout/keys.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";

const ID_BYTES = 8;

/** Who claims, and what for. */
export interface ClaimOptions {
  /** The newest backup of the chain. */
  readonly source: BackupName;
  /** As `describeHolder` gives it; absent where that is not known. */
  readonly holder: string | undefined;
  /** After so long a claim of somebody who can't be seen from here does not count any more. */
  readonly abandonedAfterMs: number;
}

interface World {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Our right to make a backup of this name; whoever claims it later takes it from us. */
export class MergeClaim {
  readonly #backup: BackupName;
  readonly #key: ObjectKey;
  readonly #world: World;

  private constructor(backup: BackupName, key: ObjectKey, world: World) {
    this.#backup = backup;
    this.#key = key;
    this.#world = world;
  }

  /**
   * Takes the folder of the new backup, with nothing in it but the claim. Rejects with RefusedError
   * when there is such a backup, something of one that no merge left, or another merge.
   */
  static async take(
    backup: BackupName,
    { source, holder, abandonedAfterMs }: ClaimOptions,
    world: World,
  ): Promise<MergeClaim> {
    const { storage, clock, signal } = world;
    const abandoned = await requireFreeName(backup, abandonedAfterMs, world);
    const key = mergeClaimKey(backup, clock.now(), randomHex(ID_BYTES));
    const text = formatJson(
      jsonObject([
        ["merges", source],
        ["process", holder],
      ]),
    );
    await storage.put(key, bytesSource(Buffer.from(text)), { signal, ifAbsent: true });
    const claim = new MergeClaim(backup, key, world);
    try {
      await claim.#clear(abandoned);
    } catch (error) {
      await claim.release();
      throw error;
    }
    return claim;
  }

  /** Whoever has lost the claim makes no sentinel: so it goes first, then the sentinel is asked for. */
  async #clear(abandoned: ReadonlySet<ObjectKey>): Promise<void> {
    const { storage, signal } = this.#world;
    const folder = backupFolder(this.#backup);
    const others: ObjectKey[] = [];
    for await (const { key } of storage.list(folder, { signal })) {
      if (key === this.#key) continue;
      if (isClaim(this.#backup, key) && !abandoned.has(key)) throw otherMerge(this.#backup, key);
      others.push(key);
    }
    if (abandoned.size > 0) await storage.delete([...abandoned], { signal });
    await requireNoSentinel(this.#backup, this.#world);
    const leftovers = others.filter((key) => !abandoned.has(key));
    if (leftovers.length > 0) await storage.delete(leftovers, { signal });
  }

  /** Rejects with RefusedError when somebody else has taken or removed the folder. */
  async require(): Promise<void> {
    if (await this.isHeld()) return;
    throw new RefusedError(`the claim of this merge of ${this.#backup} was removed`, {
      hint:
        "Another backup-merge of the same backup was started, or a retention took this one for " +
        "abandoned. See whether the backup is listed; if not, run the command again.",
    });
  }

  async isHeld(): Promise<boolean> {
    const { storage, signal } = this.#world;
    try {
      await storage.stat(this.#key, { signal });
      return true;
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return false;
      throw error;
    }
  }

  /**
   * Rejects with RefusedError unless the folder holds these objects, with these sizes, and the
   * claim.
   */
  async requireFolder(objects: ReadonlyMap<ObjectKey, number>): Promise<void> {
    await this.require();
    const { storage, signal } = this.#world;
    const missing = new Set(objects.keys());
    for await (const { key, sizeBytes } of storage.list(backupFolder(this.#backup), { signal })) {
      if (key === this.#key) continue;
      const isOwn = missing.delete(key);
      const plainBytes =
        storage.readableBytes === undefined ? sizeBytes : storage.readableBytes(key, sizeBytes);
      const wantedBytes = objects.get(key);
      if (!isOwn) throw this.#disturbed(`holds ${key}, which it did not store`);
      if (plainBytes !== undefined && plainBytes !== wantedBytes) {
        throw this.#disturbed(`stored ${wantedBytes} bytes in ${key}, now it has ${plainBytes}`);
      }
    }
    const [lost] = missing;
    if (lost !== undefined) throw this.#disturbed(`stored ${lost}, which is gone`);
  }

  /** What is stored stays; only the claim goes. */
  async release(): Promise<void> {
    await this.#world.storage.delete([this.#key], { signal: this.#world.signal });
  }

  #disturbed(what: string): RefusedError {
    return new RefusedError(`somebody else works on ${this.#backup}: this merge ${what}`, {
      hint: "Nothing was made visible. Run one backup-merge at a time; then run it again.",
    });
  }
}

function isClaim(backup: BackupName, key: ObjectKey): boolean {
  return parseMergeClaim(key.slice(backupFolder(backup).length)) !== undefined;
}

function otherMerge(backup: BackupName, key: ObjectKey): RefusedError {
  return new RefusedError(`${backup} is being made by another backup-merge: ${key}`, {
    hint: `Wait for it. If its process is certainly gone: walnut st rm ${key}, then delete garbage.`,
  });
}

/**
 * Gives the claims of merges that are over. Only what those left may be taken over: other things
 * may be a backup on its way, or hidden. Rejects with RefusedError for anything else.
 */
export async function requireFreeName(
  backup: BackupName,
  abandonedAfterMs: number,
  { storage, clock, signal }: World,
): Promise<ReadonlySet<ObjectKey>> {
  await requireNoSentinel(backup, { storage, signal });
  const folder = backupFolder(backup);
  const abandoned = new Set<ObjectKey>();
  let other: ObjectKey | undefined;
  for await (const { key } of storage.list(folder, { signal })) {
    const startedMs = parseMergeClaim(key.slice(folder.length));
    if (startedMs === undefined) {
      other ??= key;
      continue;
    }
    const state = await readState(key, { storage, signal });
    const isOld = startedMs < clock.now() - abandonedAfterMs;
    if (state === "alive" || (state === "unknown" && !isOld)) throw otherMerge(backup, key);
    abandoned.add(key);
  }
  if (other === undefined || abandoned.size > 0) return abandoned;
  throw new RefusedError(`${storage.name} holds ${other}, of a backup without sentinel`, {
    hint: "A backup of this name may be on its way. If it is not, remove it: delete garbage.",
  });
}

async function requireNoSentinel(
  backup: BackupName,
  { storage, signal }: Pick<World, "storage" | "signal">,
): Promise<void> {
  for await (const { key } of storage.list(sentinelKey(backup), { signal })) {
    throw new RefusedError(`${storage.name} already holds ${key}`, {
      hint:
        `${backup} is a full backup that begins in the same segment as the increment: restore or ` +
        "keep that one. To merge once more, delete it first, or merge a later increment.",
    });
  }
}

const MAX_CLAIM_BYTES = 64 * 1024;

async function readState(
  key: ObjectKey,
  { storage, signal }: Pick<World, "storage" | "signal">,
): Promise<ReturnType<typeof stateOfHolder>> {
  try {
    const text = (await readAll(storage.get(key, { signal }), MAX_CLAIM_BYTES)).toString();
    const holder = objectMember(parseJson(text), "process");
    return typeof holder === "string" ? stateOfHolder(holder) : "unknown";
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return "dead";
    if (error instanceof FormatError || error instanceof RangeError) return "unknown";
    throw error;
  }
}
