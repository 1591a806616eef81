import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import type { Log } from "../io/log.ts";
import { boundedParallel } from "../io/ordered.ts";
import type { RateLimit } from "../io/rate-limit.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { sentinelKey } from "../layout/keys.ts";
import type { CallOptions, ObjectHold, ObjectKey, Storage, Upkeep } from "../storage/storage.ts";
import type { RetentionPlan } from "./plan.ts";

/** What a store holds on to, with the reason as it is shown. */
export interface Holds {
  /** Backups, and folders without sentinel. */
  readonly pins: ReadonlyMap<BackupName, string>;
  readonly heldWal: ReadonlyMap<ObjectKey, string>;
  /** Of the other objects: notes, records, histories. */
  readonly heldKeys: ReadonlyMap<ObjectKey, string>;
}

export const NO_HOLDS: Holds = { pins: new Map(), heldWal: new Map(), heldKeys: new Map() };

export interface HoldOptions extends CallOptions {
  readonly nowMs: number;
  /** Of the questions; absent = as fast as the store answers. */
  readonly rateLimit?: RateLimit | undefined;
  readonly log: Log;
}

/** Requests at the same time. */
const JOBS = 16;
/** From here on they take so long that somebody wonders. */
const MANY_KEYS = 20_000;

/**
 * Asks the store about what a plan removes. Where a delete of what is held would only hide it,
 * about every object: each may have a hold of its own. Where it is refused, about those of backups,
 * which stay whole, and about WAL as long as the youngest is held: all else the deleter is told.
 */
export async function findHolds(
  storage: Storage,
  plan: RetentionPlan,
  options: HoldOptions,
): Promise<Holds> {
  const { upkeep } = storage;
  if (upkeep?.readHold === undefined) return NO_HOLDS;
  const held = await upkeep.heldDelete?.(options);
  if (held === "none") return NO_HOLDS;
  const asking = new Asking(upkeep, options);
  const pins = await asking.pins(plan);
  const isRefused = held === "refused";
  const newest = isRefused ? newestRemoved(plan) : undefined;
  const isFree = isRefused && (newest === undefined || !(await asking.isHeld(newest)));
  return {
    pins,
    heldWal: isFree ? new Map() : await asking.all(() => removedWal(plan)),
    heldKeys: isRefused
      ? new Map()
      : await asking.all(() => [...plan.removedKeys, ...plan.lastKeys]),
  };
}

/** The plan without what is held; of backups and WAL the plan knows itself. */
export function sparing(plan: RetentionPlan, { pins, heldKeys }: Holds): RetentionPlan {
  return {
    ...plan,
    unfinished: plan.unfinished.map((judged) => {
      const reason = judged.isKept ? undefined : pins.get(judged.unfinished.name);
      return reason === undefined ? judged : { ...judged, isKept: true, reason };
    }),
    removedKeys: plan.removedKeys.filter((key) => !heldKeys.has(key)),
    lastKeys: plan.lastKeys.filter((key) => !heldKeys.has(key)),
  };
}

class Asking {
  readonly #upkeep: Upkeep;
  readonly #options: HoldOptions;

  constructor(upkeep: Upkeep, options: HoldOptions) {
    this.#upkeep = upkeep;
    this.#options = options;
  }

  async isHeld(key: ObjectKey): Promise<boolean> {
    return (await this.#ask(key, this.#options.signal)) !== undefined;
  }

  /** One object that is held keeps its backup. */
  async pins(plan: RetentionPlan): Promise<ReadonlyMap<BackupName, string>> {
    const pins = new Map<BackupName, string>();
    await boundedParallel(
      removedFolders(plan),
      JOBS,
      async ({ name, keys }, { signal }) => {
        for (const key of keys) {
          const hold = await this.#ask(key, signal);
          if (hold !== undefined) pins.set(name, hold);
          if (hold !== undefined) return;
        }
      },
      this.#options,
    );
    return pins;
  }

  /** Those that are held. */
  async all(keysOf: () => Iterable<ObjectKey>): Promise<ReadonlyMap<ObjectKey, string>> {
    this.#sayMany(keysOf());
    const held = new Map<ObjectKey, string>();
    await boundedParallel(
      keysOf(),
      JOBS,
      async (key, { signal }) => {
        const hold = await this.#ask(key, signal);
        if (hold !== undefined) held.set(key, hold);
      },
      this.#options,
    );
    return held;
  }

  #sayMany(keys: Iterable<ObjectKey>): void {
    let count = 0;
    for (const _ of keys) count += 1;
    if (count < MANY_KEYS) return;
    this.#options.log.info("asking the store of each object whether it holds it", { count });
  }

  async #ask(key: ObjectKey, signal: AbortSignal): Promise<string | undefined> {
    const { rateLimit, nowMs } = this.#options;
    await rateLimit?.take(1, { signal });
    return formatHold(await this.#upkeep.readHold?.(key, { signal }), nowMs);
  }
}

interface RemovedFolder {
  readonly name: BackupName;
  readonly keys: Iterable<ObjectKey>;
}

function* removedFolders({ backups, unfinished }: RetentionPlan): Generator<RemovedFolder> {
  for (const { backup, isKept } of backups) {
    if (!isKept) yield { name: backup.name, keys: askedKeys(backup) };
  }
  for (const { unfinished: one, isKept } of unfinished) {
    if (!isKept) yield { name: one.name, keys: one.folder.keys() };
  }
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
