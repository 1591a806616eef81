import { ObjectNotFoundError } from "../errors.ts";
import type { CallOptions, ObjectKey } from "./storage.ts";

/** Requests under way at once: some hundred objects a second at the usual distance. */
const CONCURRENCY = 16;

/**
 * Deletes objects by one request each, several at a time; missing ones are no error. The first
 * failure stops it, after the requests that were under way have ended.
 */
export async function deleteSingly(
  keys: readonly ObjectKey[],
  { signal }: CallOptions,
  deleteOne: (key: ObjectKey, options: CallOptions) => Promise<void>,
): Promise<void> {
  signal.throwIfAborted();
  const queue = keys.values();
  const failures: unknown[] = [];
  const work = async (): Promise<void> => {
    for (const key of queue) {
      if (failures.length > 0) return;
      try {
        await deleteOne(key, { signal });
      } catch (error) {
        if (!(error instanceof ObjectNotFoundError)) failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(CONCURRENCY, keys.length) }, work));
  signal.throwIfAborted();
  if (failures.length > 0) throw failures[0];
}
