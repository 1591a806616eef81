import { readStoredWal } from "../archive/stored-wal.ts";
import { readAll } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import { parseJson } from "../layout/json.ts";
import { COMMIT_INDEX_FOLDER, verifyMemoryKey } from "../layout/keys.ts";
import { parseBackupHistory } from "../postgres/backup-label.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import type { Catalogue } from "./catalogue.ts";
import { parseGroup } from "./commit-index.ts";
import { faultText, type Finding } from "./finding.ts";
import { hashObject } from "./verify-documents.ts";
import type { StoredHash } from "./verify-memory.ts";

/** Objects that are small and many kinds: read at every level. */
const SMALL_BYTES_MAX = 16 * 1024 * 1024;
/** Of our own, those that others rewrite. */
const CHANGING = /^walnut_005\/(writers|index|locks)\//;

/**
 * Reads histories, backup labels in the WAL folder and our own objects; those of the index, of
 * which there are many, only if told.
 */
export async function verifySmallObjects(
  storage: Storage,
  { catalogue, hasIndexes }: { readonly catalogue: Catalogue; readonly hasIndexes: boolean },
  { hasher, signal }: CallOptions & { readonly hasher: Hasher },
): Promise<{
  readonly findings: readonly Finding[];
  readonly hashes: ReadonlyMap<ObjectKey, StoredHash>;
}> {
  const findings: Finding[] = [];
  const hashes = new Map<ObjectKey, StoredHash>();
  const { wal, histories, ownKeys } = catalogue;
  const remember = async (key: ObjectKey): Promise<void> => {
    const hash = await hashObject(storage, key, { hasher, signal });
    if (hash !== undefined) hashes.set(key, hash);
  };
  const attempt = async (key: ObjectKey, check: () => Promise<void>): Promise<void> => {
    try {
      await check();
    } catch (error) {
      signal.throwIfAborted();
      findings.push({ kind: "damaged", subject: key, text: faultText(error) });
    }
  };
  for (const { key } of histories) await remember(key);
  for (let row = 0; row < wal.count; row += 1) {
    if (wal.kindAt(row) !== "backup-label") continue;
    const stored = { key: wal.keyAt(row), extension: wal.extensionAt(row) };
    await attempt(stored.key, async () => {
      const content = readStoredWal(storage, stored, { codecJobs: 1, signal });
      parseBackupHistory((await readAll(content, SMALL_BYTES_MAX)).toString("utf8"));
    });
    await remember(stored.key);
  }
  for (const key of ownKeys) {
    if (key === verifyMemoryKey || (key.startsWith(COMMIT_INDEX_FOLDER) && !hasIndexes)) continue;
    await attempt(key, async () => {
      const bytes = await readAll(storage.get(key, { signal }), SMALL_BYTES_MAX);
      if (key.startsWith(COMMIT_INDEX_FOLDER)) parseGroup(bytes, hasher);
      else if (key.endsWith(".json")) parseJson(bytes.toString("utf8"));
    });
    if (!CHANGING.test(key)) await remember(key);
  }
  return { findings, hashes };
}
