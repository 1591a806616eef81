import { ObjectExistsError, ObjectNotFoundError, RefusedError } from "../errors.ts";
import { type ByteSource, counted, mapSource } from "../io/bytes.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { sentinelKey } from "../layout/keys.ts";
import type { ObjectKey, PutOptions, Storage } from "../storage/storage.ts";
import type { MergeClaim } from "./merge-claim.ts";

/** Creates objects as long as the claim holds, and remembers them. */
export class ClaimedStorage implements Pick<Storage, "put"> {
  readonly #storage: Storage;
  readonly #claim: MergeClaim;
  readonly #stored = new Map<ObjectKey, number>();

  constructor(storage: Storage, claim: MergeClaim) {
    this.#storage = storage;
    this.#claim = claim;
  }

  /** Sizes of all objects that were acknowledged. */
  get stored(): ReadonlyMap<ObjectKey, number> {
    return this.#stored;
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    await this.#claim.require();
    let sizeBytes = 0;
    const source = mapSource(body, (stream) => {
      sizeBytes = 0;
      return counted(stream, (count) => {
        sizeBytes += count;
      });
    });
    try {
      await this.#storage.put(key, source, { ...options, ifAbsent: true });
    } catch (error) {
      if (!(error instanceof ObjectExistsError)) throw error;
      await this.#claim.require();
      throw new RefusedError(`somebody else stored ${key} while this merge did`, {
        hint: "Nothing was made visible. Run the command again, one at a time.",
        cause: error,
      });
    }
    this.#stored.set(key, sizeBytes);
  }
}

/** Rejects with RefusedError when a backup was removed: the WAL that it needs may be gone, too. */
export async function requireListed(
  backup: BackupName,
  { storage, signal }: { readonly storage: Storage; readonly signal: AbortSignal },
): Promise<void> {
  try {
    await storage.stat(sentinelKey(backup), { signal });
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
    throw new RefusedError(`backup ${backup} was removed while it was merged`, {
      hint: "The WAL that it needs may be removed with it, so nothing was made visible.",
      cause: error,
    });
  }
}
