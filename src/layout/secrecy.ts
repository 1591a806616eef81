import { CHANGES_FOLDER, QUARANTINE_FOLDER, WAL_FOLDER } from "./keys.ts";

const BACKUP_FOLDERS = /^(basebackups|catchup)_005\//;
/**
 * Parts, their records, our manifest and the server's; the JSON documents beside them stay plain,
 * as WAL-G wants to read them.
 */
const SECRET_OF_BACKUP =
  /\/(?:tar_partitions|walnut_resume)\/[^/]+$|\/walnut_(?:manifest\.jsonl|backup_manifest)\.zst$/;

/** Where `walnut rekey` keeps objects before they take their places. Ours. */
export const REKEY_FOLDER = "walnut_005/rekey/";

/** Where objects may be that are encrypted. */
export const SECRET_FOLDERS: readonly string[] = [
  WAL_FOLDER,
  "basebackups_005/",
  "catchup_005/",
  CHANGES_FOLDER,
  QUARANTINE_FOLDER,
];

/** Says that objects are encrypted, and with which keys the first ones were. Ours. */
export const ENCRYPTION_MARK_KEY = "walnut_005/encryption.json";

/**
 * Whether an object under this key is encrypted where anything is: all that holds content of the
 * database, or names of its files in our own documents.
 */
export function isSecretKey(key: string): boolean {
  if (key.endsWith(".json")) return false;
  if (BACKUP_FOLDERS.test(key)) return SECRET_OF_BACKUP.test(key);
  return [WAL_FOLDER, CHANGES_FOLDER, QUARANTINE_FOLDER].some((folder) => key.startsWith(folder));
}
