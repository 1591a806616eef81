import { join } from "node:path";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { type RetryContext, type RetryPolicy } from "../io/retry.ts";
import { sha256Hex } from "../io/runtime.ts";
import { DeferredStorage } from "./deferred.ts";
import type { StoreToOpen } from "./failover-open.ts";
import { MirrorQueue } from "./mirror-queue.ts";
import { MirroredStorage, type MirrorPolicy, type Primary } from "./mirrored.ts";
import type { StorageConfig } from "./open.ts";
import { RetryingStorage } from "./retrying.ts";
import type { Storage } from "./storage.ts";

/** Stores that get every object as well: MIRROR.md. */
export interface MirrorConfig {
  readonly stores: readonly { readonly name: string; readonly config: StorageConfig }[];
  readonly policy: MirrorPolicy;
  /** Of the notes; those of each mirror are in a directory of its own there. */
  readonly queueDirectory: string;
  readonly notesMax: number;
}

export interface MirrorOpenOptions extends RetryContext, Omit<MirrorConfig, "stores"> {
  /** Nothing is decided by what a list lacks. */
  readonly isReader: boolean;
  readonly retryPolicy: RetryPolicy;
  readonly clock: Clock;
  readonly log: Log;
}

/** How long a store may fail to be read before the next one is asked. */
const BRISK_MS = 5000;

/** `primary`: a store that is not open yet, or several that are one already. */
export function openMirrored(
  primary: StoreToOpen | Storage,
  mirrors: readonly StoreToOpen[],
  options: MirrorOpenOptions,
): MirroredStorage {
  const { policy, retryPolicy, clock, log, isReader } = options;
  const brisk = { ...retryPolicy, totalMs: Math.min(BRISK_MS, retryPolicy.totalMs) };
  const sides = "get" in primary ? { storage: primary, reading: primary } : sidesOf(primary);
  const storage = new MirroredStorage(
    sides,
    mirrors.map((store) => ({
      title: store.name,
      storage: opened(store, policy === "all" ? retryPolicy : brisk),
      queue: new MirrorQueue(mirrorQueueDirectory(options, sides.storage.name, store), options),
    })),
    { policy, isReader, clock, log },
  );
  storage.start();
  return storage;

  function sidesOf(store: StoreToOpen): Primary {
    const reading = opened(store, brisk);
    return { storage: opened(store, retryPolicy), reading, isAlone: true };
  }

  /** Some stores repeat their own requests, for as long as the policy says. */
  function opened({ title, open }: StoreToOpen, limits: RetryPolicy): Storage {
    const inner = new DeferredStorage(title, async () => await open(limits));
    return new RetryingStorage(inner, limits, options);
  }
}

/** Another one for each pair of places, so that notes are never taken for those of other stores. */
function mirrorQueueDirectory(
  { queueDirectory }: Pick<MirrorConfig, "queueDirectory">,
  primaryName: string,
  { name, title }: Pick<StoreToOpen, "name" | "title">,
): string {
  const hash = sha256Hex(`${primaryName}\n${title}`).slice(0, 16);
  return join(queueDirectory, `${name}-${hash}`);
}
