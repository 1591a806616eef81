import { ObjectNotFoundError, RefusedError } from "../errors.ts";
import { bytesSource } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import { describeProcess } from "../io/process-identity.ts";
import { randomHex } from "../io/random.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { formatJson } from "../layout/json.ts";
import { jsonObject } from "../layout/json-value.ts";
import { backupFolder, mergeClaimKey, parseMergeClaim, sentinelKey } from "../layout/keys.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";

const ID_BYTES = 8;

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
   * when there is such a backup, or something of one that no merge left.
   */
  static async take(backup: BackupName, source: BackupName, world: World): Promise<MergeClaim> {
    const { storage, clock, signal } = world;
    await requireFreeName(backup, world);
    const key = mergeClaimKey(backup, clock.now(), randomHex(ID_BYTES));
    const text = formatJson(
      jsonObject([
        ["merges", source],
        ["process", describeProcess()],
      ]),
    );
    await storage.put(key, bytesSource(Buffer.from(text)), { signal, ifAbsent: true });
    const leftovers: ObjectKey[] = [];
    for await (const found of storage.list(backupFolder(backup), { signal })) {
      if (found.key !== key) leftovers.push(found.key);
    }
    if (leftovers.length > 0) await storage.delete(leftovers, { signal });
    return new MergeClaim(backup, key, world);
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

/** Only what a merge left may be taken over: other things may be a backup on its way, or hidden. */
export async function requireFreeName(
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
  const folder = backupFolder(backup);
  let other: ObjectKey | undefined;
  for await (const { key } of storage.list(folder, { signal })) {
    if (parseMergeClaim(key.slice(folder.length)) !== undefined) return;
    other ??= key;
  }
  if (other === undefined) return;
  throw new RefusedError(`${storage.name} holds ${other}, of a backup without sentinel`, {
    hint: "A backup of this name may be on its way. If it is not, remove it: delete garbage.",
  });
}
