import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import { boundedParallel } from "../io/ordered.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { sentinelKey } from "../layout/keys.ts";
import type { CallOptions, ObjectHold, ObjectKey, Storage } from "../storage/storage.ts";
import type { RetentionPlan } from "./plan.ts";

/** What a store holds on to, with the reason as it is shown. */
export interface Holds {
  readonly pins: ReadonlyMap<BackupName, string>;
  readonly heldWal: ReadonlyMap<ObjectKey, string>;
}

export const NO_HOLDS: Holds = { pins: new Map(), heldWal: new Map() };

/** Requests at the same time. */
const JOBS = 16;

/**
 * Asks the store about what a plan removes: of backups every object. A lock that ends with a bucket's default retention ends
 * for the youngest last: of the WAL, the newest is asked first, and the rest only if that is held.
 */
export async function findHolds(
  storage: Storage,
  plan: RetentionPlan,
  options: CallOptions & { readonly nowMs: number },
): Promise<Holds> {
  const { upkeep } = storage;
  if (upkeep?.readHold === undefined) return NO_HOLDS;
  const pins = new Map<BackupName, string>();
  const heldWal = new Map<ObjectKey, string>();
  const ask = async (key: ObjectKey, signal: AbortSignal): Promise<string | undefined> =>
    formatHold(await upkeep.readHold?.(key, { signal }), options.nowMs);
  const doomed = plan.backups.filter(({ isKept }) => !isKept).map(({ backup }) => backup);
  await boundedParallel(
    doomed,
    JOBS,
    async (backup, { signal }) => {
      for (const key of askedKeys(backup)) {
        const hold = await ask(key, signal);
        if (hold !== undefined) pins.set(backup.name, hold);
        if (hold !== undefined) return;
      }
    },
    options,
  );
  const newest = newestRemoved(plan);
  if (newest === undefined || (await ask(newest, options.signal)) === undefined) {
    return { pins, heldWal };
  }
  await boundedParallel(
    removedWal(plan),
    JOBS,
    async (key, { signal }) => {
      const hold = await ask(key, signal);
      if (hold !== undefined) heldWal.set(key, hold);
    },
    options,
  );
  return { pins, heldWal };
}

/** The sentinel is the youngest; a legal hold may lie on any object. */
function* askedKeys({ name, folder }: CatalogueBackup): Generator<ObjectKey> {
  yield sentinelKey(name);
  yield* folder?.keys() ?? [];
}

function newestRemoved({ survey, wal }: RetentionPlan): ObjectKey | undefined {
  for (let row = survey.catalogue.wal.count - 1; row >= 0; row -= 1) {
    if (!wal.isKept(row)) return survey.catalogue.wal.keyAt(row);
  }
  return undefined;
}

function* removedWal({ survey, wal }: RetentionPlan): Generator<ObjectKey> {
  for (let row = 0; row < survey.catalogue.wal.count; row += 1) {
    if (!wal.isKept(row)) yield survey.catalogue.wal.keyAt(row);
  }
}

/** Undefined for a lock that is over. */
function formatHold(hold: ObjectHold | undefined, nowMs: number): string | undefined {
  if (hold === undefined) return undefined;
  if (hold.isLegalHold) return "the store holds it: legal hold";
  const { lockedUntil } = hold;
  if (lockedUntil === undefined || lockedUntil.getTime() <= nowMs) return undefined;
  return `the store holds it: locked until ${lockedUntil.toISOString()}`;
}
