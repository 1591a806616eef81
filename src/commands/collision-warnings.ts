import { collisionHint, describeCollisions, readCollisions } from "../catalogue/collisions.ts";
import type { Log } from "../io/log.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";

/** Says which WAL files are in quarantine, and how that ends. */
export async function warnOfCollisions(
  storage: Storage,
  ownKeys: readonly ObjectKey[],
  { log, signal }: CallOptions & { readonly log: Log },
): Promise<void> {
  const collisions = await readCollisions(storage, ownKeys, { signal });
  if (collisions.length === 0) return;
  const [first = "", ...others] = describeCollisions(collisions);
  log.warning(first, { hint: collisionHint(collisions) });
  for (const text of others) log.warning(text);
}
