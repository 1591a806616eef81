import { setImmediate as turn } from "node:timers/promises";
import { createHasher, type HashAlgorithm } from "../io/hash.ts";
import type { Walked } from "./walk.ts";

/** Of these entries the second look is quick; more would only delay what follows. */
const MAX_ENTRIES = 4096;
const ENTRIES_PER_TURN = 64;

export interface WarmUpOptions {
  /** Of the backup's files. */
  readonly hash: HashAlgorithm;
  /** Ends it: what was waited for is there. */
  readonly over: AbortSignal;
  readonly signal: AbortSignal;
}

/**
 * Does for the first time what takes longer the first time, while there is nothing else to do:
 * reads of the system's time zone, makes the hash, and looks at the first of the files, which a
 * system that has not needed them for long has to fetch from its disk. Nothing of it is kept.
 */
export async function warmUp(
  entries: Iterable<Walked>,
  { hash, over, signal }: WarmUpOptions,
): Promise<void> {
  new Date(0).getTimezoneOffset();
  await createHasher(hash);
  let count = 0;
  for (const _entry of entries) {
    count += 1;
    if (count % ENTRIES_PER_TURN === 0) {
      await turn();
      signal.throwIfAborted();
    }
    if (over.aborted || count === MAX_ENTRIES) return;
  }
}
