import { OperationError, StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { boundedParallel } from "../io/ordered.ts";
import { copyObject, statIfThere } from "./object-copy.ts";
import type { CallOptions, ObjectKey, Storage } from "./storage.ts";

export interface TransferOptions extends CallOptions {
  /** Replace what is there; else it is left alone, at both sides. */
  readonly isOverwriting: boolean;
  /** Copy instead of move. */
  readonly isPreserving: boolean;
  /** Stop at the first failure. */
  readonly isFailingFast: boolean;
  readonly jobs: number;
  /** How often an object is looked for at the target before it is removed at the source. */
  readonly appearanceChecks: number;
  readonly appearanceIntervalMs: number;
  readonly clock: Clock;
}

export interface TransferCounts {
  readonly transferred: number;
  readonly skipped: number;
  /** Objects that stayed where they were, with the reason. */
  readonly failures: readonly { readonly key: ObjectKey; readonly reason: string }[];
}

/**
 * Moves objects to another store, in waves: one is finished before the next begins. An object is
 * removed at the source only when it was seen at the target.
 */
export async function transferObjects(
  source: Storage,
  target: Storage,
  waves: readonly (readonly ObjectKey[])[],
  options: TransferOptions,
): Promise<TransferCounts> {
  const counts = { transferred: 0, skipped: 0 };
  const failures: { key: ObjectKey; reason: string }[] = [];
  for (const wave of waves) {
    // What comes later would lack what did not come.
    if (failures.length > 0) break;
    await boundedParallel(
      wave,
      options.jobs,
      async (key, { signal }) => {
        try {
          const isMoved = await transferOne(source, target, key, { ...options, signal });
          counts[isMoved ? "transferred" : "skipped"] += 1;
        } catch (error) {
          if (options.isFailingFast || !(error instanceof OperationError)) throw error;
          failures.push({ key, reason: error.message });
        }
      },
      options,
    );
  }
  return { ...counts, failures };
}

async function transferOne(
  source: Storage,
  target: Storage,
  key: ObjectKey,
  options: TransferOptions,
): Promise<boolean> {
  const { isOverwriting, isPreserving, signal } = options;
  const existing = isOverwriting ? "overwrite" : "skip";
  const isCopied = await copyObject(source, target, key, { existing, signal });
  if (!isCopied) return false;
  if (!isPreserving) {
    await requireAppeared(target, key, options);
    await source.delete([key], { signal });
  }
  return true;
}

async function requireAppeared(
  target: Storage,
  key: ObjectKey,
  { appearanceChecks, appearanceIntervalMs, clock, signal }: TransferOptions,
): Promise<void> {
  for (let check = 1; check <= appearanceChecks; check += 1) {
    if ((await statIfThere(target, key, { signal })) !== undefined) return;
    if (check < appearanceChecks) await clock.sleep(appearanceIntervalMs, { signal });
  }
  throw new StorageError(
    `object ${key} was stored in ${target.name} and is not seen there: it stays at the source`,
    { isRetryable: false },
  );
}
