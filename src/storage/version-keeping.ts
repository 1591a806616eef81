import { OperationError } from "../errors.ts";
import type { CallOptions, Storage } from "./storage.ts";

/**
 * Whether any of the stores keeps what is removed as an older version; undefined if none is known
 * to and one does not tell, or does not answer: nothing is decided by it that is worth a failure.
 */
export async function anyKeepsVersions(
  storages: readonly Storage[],
  options: CallOptions,
): Promise<boolean | undefined> {
  let known: boolean | undefined = false;
  for (const { upkeep } of storages) {
    if (upkeep?.keepsVersions === undefined) continue;
    try {
      const answer = await upkeep.keepsVersions(options);
      if (answer === true) return true;
      known = answer === undefined ? undefined : known;
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof OperationError)) throw error;
      known = undefined;
    }
  }
  return known;
}
