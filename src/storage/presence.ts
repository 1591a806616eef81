import {
  ObjectExistsError,
  ObjectNotFoundError,
  StorageAccessError,
  StorageError,
} from "../errors.ts";
import type { ObjectHold, ObjectKey } from "./storage.ts";

/**
 * Rejects with ObjectExistsError if `look`, which rejects with ObjectNotFoundError for a missing
 * object, finds one.
 */
export async function requireAbsent(
  key: ObjectKey,
  storageName: string,
  look: () => Promise<unknown>,
): Promise<void> {
  if ((await foundOrNothing(look)) !== undefined) throw new ObjectExistsError(key, storageName);
}

/** What `look` finds; undefined where it rejects with ObjectNotFoundError. */
export async function foundOrNothing<T>(look: () => Promise<T>): Promise<T | undefined> {
  try {
    return await look();
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return undefined;
    throw error;
  }
}

/** Whether a store refused to tell, or does not know the question: not that it failed. */
export function isUntold(error: unknown): boolean {
  if (error instanceof StorageAccessError || error instanceof ObjectNotFoundError) return true;
  return error instanceof StorageError && !error.isRetryable;
}

/** Of what a store tells of an object's protection; undefined if there is none. */
export function toHold(
  isLegalHold: boolean,
  lockedUntil: Date | string | undefined,
): ObjectHold | undefined {
  if (lockedUntil === undefined) return isLegalHold ? { isLegalHold } : undefined;
  return { isLegalHold, lockedUntil: new Date(lockedUntil) };
}
