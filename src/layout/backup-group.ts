import { BACKUPS_FOLDER, CATCH_UP_FOLDER, OWN_FOLDER } from "./keys.ts";

/** Objects that belong together: those of one backup. */
export interface ObjectGroup {
  /** Prefix of all of them but the mark. */
  readonly folder: string;
  /** The object whose presence makes the group whole: the backup's sentinel. */
  readonly markKey: string;
}

const SENTINEL = "_backup_stop_sentinel.json";
const FOLDERS = [BACKUPS_FOLDER, CATCH_UP_FOLDER];

/** The backup, or catch-up backup, that an object with this key is of; undefined for others. */
export function groupOfKey(key: string): ObjectGroup | undefined {
  const top = FOLDERS.find((folder) => key.startsWith(folder));
  if (top === undefined) return undefined;
  const rest = key.slice(top.length);
  const slash = rest.indexOf("/");
  if (slash > 0) return group(top, rest.slice(0, slash));
  const isMark = slash < 0 && rest.endsWith(SENTINEL) && rest.length > SENTINEL.length;
  return isMark ? group(top, rest.slice(0, -SENTINEL.length)) : undefined;
}

function group(top: string, name: string): ObjectGroup {
  return { folder: `${top}${name}/`, markKey: `${top}${name}${SENTINEL}` };
}

/** Where a store is checked for writing. Ours. */
export const PROBE_FOLDER = "walnut_005/probe/";

/**
 * Shows whether a store lets create-only puts replace an object. Ours; each store has its own, or
 * none.
 */
export const CREATE_ONLY_KEY = "walnut_005/create-only.json";

/** Whether an object with this key may be replaced by a later state of the same. */
export function isRewrittenKey(key: string): boolean {
  return key.startsWith(OWN_FOLDER) || /\.partial(\.[a-z0-9]*)?$/.test(key);
}
