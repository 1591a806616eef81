import { GAPS_FOLDER, parseGapKey, parseWalKey, walKey } from "../layout/keys.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";

/** Segments of which the store says that they were given up; some may have come since. */
export async function listGapRecords(
  storage: Storage,
  { signal }: CallOptions,
): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  for await (const { key } of storage.list(GAPS_FOLDER, { signal })) {
    const name = parseGapKey(key);
    if (name !== undefined) names.add(name);
  }
  return names;
}

/**
 * Segments that were given up and are not in the archive: no recovery gets past them. In order; one
 * request where there are none.
 */
export async function listOpenGaps(
  storage: Storage,
  { signal }: CallOptions,
): Promise<readonly string[]> {
  const open = new Set(await listGapRecords(storage, { signal }));
  const names = [...open].toSorted();
  for (const timeline of new Set(names.map((name) => name.slice(0, 8)))) {
    const own = names.filter((name) => name.startsWith(timeline));
    const [first = "", last = ""] = [own.at(0), own.at(-1)];
    // "/" sorts before all digits: the first name itself is listed.
    const startAfter = walKey(`${first.slice(0, -1)}/`, "");
    for await (const { key, sizeBytes } of storage.list(walKey(timeline, ""), {
      signal,
      startAfter,
    })) {
      const name = parseWalKey(key)?.name ?? "";
      if (name.slice(0, 24) > last) break;
      if (sizeBytes > 0) open.delete(name);
    }
  }
  return [...open];
}
