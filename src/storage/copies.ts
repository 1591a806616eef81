import { DamagedError, FormatError, ObjectNotFoundError, WrongKeyError } from "../errors.ts";
import type { Storage } from "./storage.ts";

/**
 * The store that the `attempt`th attempt (1 is the first) at an object asks: the storage itself,
 * then, where the object looked damaged, single copies of it, as far as there are several.
 */
export function storageForAttempt(storage: Storage, attempt: number): Storage {
  const { copies } = storage;
  if (attempt === 1 || copies === undefined) return storage;
  return copies[(attempt - 1) % copies.length] ?? storage;
}

/** How many attempts reach every copy, but at least `attempts`. */
export function attemptsFor({ copies }: Storage, attempts: number): number {
  return copies === undefined ? attempts : Math.max(attempts, copies.length + 1);
}

/** Whether what was read is not what was put, as far as its reader can tell. */
export function isDamage(error: unknown): boolean {
  return (
    error instanceof FormatError || error instanceof DamagedError || error instanceof WrongKeyError
  );
}

/**
 * What `read` gives; where it rejects because of damage, what it gives when it is asked again (the
 * bytes may have changed on their way), or of the first single copy that is better. Rejects with
 * the first error if none is.
 */
export async function readSoundly<T>(
  storage: Storage,
  read: (storage: Storage) => Promise<T>,
): Promise<T> {
  try {
    return await read(storage);
  } catch (error) {
    if (!isDamage(error)) throw error;
    for (const copy of storage.copies ?? [storage]) {
      try {
        return await read(copy);
      } catch (another) {
        const isNone = another instanceof ObjectNotFoundError;
        if (!isNone && !isDamage(another)) throw error;
      }
    }
    throw error;
  }
}
