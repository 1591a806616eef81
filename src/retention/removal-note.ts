import { readAll, bytesSource } from "../io/bytes.ts";
import { FormatError, ObjectNotFoundError } from "../errors.ts";
import { type BackupName, isBackupName } from "../layout/backup-name.ts";
import { Fields } from "../layout/fields.ts";
import { formatJson, parseJson } from "../layout/json.ts";
import { jsonObject } from "../layout/json-value.ts";
import { formatTimeUtc, type TimeNs } from "../layout/time.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";

/** Where runs write down which backups they are about to remove. Ours. */
export const REMOVALS_FOLDER = "walnut_005/removals/";

const NOTE_BYTES_MAX = 16 * 1024 * 1024;

/** What one run was about to remove. */
export interface RemovalNote {
  readonly key: ObjectKey;
  readonly backups: readonly BackupName[];
}

/** One key for each run. */
export function removalKey(atNs: TimeNs, id: string): ObjectKey {
  return `${REMOVALS_FOLDER}${formatTimeUtc(atNs).replace(/[^0-9TZ.]/g, "")}-${id}.json`;
}

/** Stored before the first sentinel goes. */
export async function writeRemovalNote(
  storage: Storage,
  { key, backups }: RemovalNote,
  options: CallOptions,
): Promise<void> {
  const text = formatJson(jsonObject([["backups", backups]]));
  await storage.put(key, bytesSource(Buffer.from(text)), options);
}

/** Notes of runs that did not come to their end. One that can't be read names nothing. */
export async function readRemovalNotes(
  storage: Storage,
  keys: readonly ObjectKey[],
  { signal }: CallOptions,
): Promise<readonly RemovalNote[]> {
  const notes: RemovalNote[] = [];
  for (const key of keys) {
    if (!key.startsWith(REMOVALS_FOLDER)) continue;
    try {
      const text = await readAll(storage.get(key, { signal }), NOTE_BYTES_MAX);
      const names = new Fields(key, parseJson(text.toString())).strings("backups") ?? [];
      notes.push({ key, backups: names.filter(isBackupName) });
    } catch (error) {
      if (error instanceof ObjectNotFoundError) continue;
      if (!(error instanceof FormatError) && !(error instanceof RangeError)) throw error;
      notes.push({ key, backups: [] });
    }
  }
  return notes;
}
