import { compareKeys } from "./key.ts";
import type { CallOptions, ObjectInfo, Storage } from "./storage.ts";

/** What lies directly in a folder of keys. */
export interface FolderContent {
  /** Names with "/" at the end, ascending. */
  readonly folders: readonly string[];
  readonly objects: readonly ObjectInfo[];
}

/** Sorts behind all keys that begin with the folder. */
const BEHIND_FOLDER = "\u{10FFFF}";

/** What a user writes for a folder or an object: "/wal_005", "a/", "" and "/" for the root. */
export function cleanPath(path: string): string {
  return path
    .split("/")
    .filter((part) => part !== "")
    .join("/");
}

/**
 * The folders and objects directly in `path`, without listing what lies in those folders: one
 * request for each folder.
 */
export async function listFolder(
  storage: Storage,
  path: string,
  { signal }: CallOptions,
): Promise<FolderContent> {
  const prefix = path === "" ? "" : `${path}/`;
  const folders: string[] = [];
  const objects: ObjectInfo[] = [];
  for (let startAfter: string | undefined; ;) {
    const position = startAfter === undefined ? {} : { startAfter };
    startAfter = undefined;
    for await (const info of storage.list(prefix, { signal, ...position })) {
      const name = info.key.slice(prefix.length);
      const slash = name.indexOf("/");
      if (slash === -1) {
        objects.push(info);
        continue;
      }
      folders.push(name.slice(0, slash + 1));
      startAfter = `${prefix}${name.slice(0, slash + 1)}${BEHIND_FOLDER}`;
      break;
    }
    if (startAfter === undefined) break;
  }
  return { folders: folders.toSorted(compareKeys), objects };
}

/** The object of this name, and all below the folder of this name. */
export async function* listBelow(
  storage: Storage,
  path: string,
  { signal }: CallOptions,
): AsyncGenerator<ObjectInfo> {
  for await (const info of storage.list(path, { signal })) {
    const rest = info.key.slice(path.length);
    if (path === "" || rest === "" || rest.startsWith("/")) yield info;
  }
}

/** Go's path.Match, whole keys: "*" and "?" match no "/". */
export function globPattern(glob: string): RegExp {
  const source = glob.replaceAll(/\*|\?|\[\^?[^\]]+\]|[^*?[]+|\[/g, (token) => {
    if (token === "*") return "[^/]*";
    if (token === "?") return "[^/]";
    if (token.startsWith("[") && token.endsWith("]")) return token;
    return token.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  });
  return new RegExp(`^${source}$`, "u");
}
