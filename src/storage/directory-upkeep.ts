import { opendir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { directoryError, isMissing } from "./directory-errors.ts";
import { temporaryNameParts } from "./key.ts";
import type { CallOptions, UnfinishedPut, Upkeep } from "./storage.ts";

/** Half-written files of puts that were killed: which, and since when, stands in their names. */
export function directoryUpkeep(root: string): Upkeep {
  return {
    async *listUnfinished(prefix, options) {
      const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
      for await (const put of walk(root, folder, options)) {
        if (put.key.startsWith(prefix)) yield put;
      }
    },
    async removeUnfinished({ key, id }, { signal }) {
      signal.throwIfAborted();
      const folder = key.slice(0, key.lastIndexOf("/") + 1);
      const path = join(root, folder, id);
      if (temporaryNameParts(id) === undefined) throw new RangeError(`no temporary file: ${id}`);
      try {
        await unlink(path);
      } catch (error) {
        if (!isMissing(error)) throw directoryError("delete", path, error);
      }
    },
  };
}

/** `folder` is "" or ends in "/". Symbolic links are not followed. */
async function* walk(
  root: string,
  folder: string,
  options: CallOptions,
): AsyncGenerator<UnfinishedPut> {
  options.signal.throwIfAborted();
  const path = join(root, folder);
  const folders: string[] = [];
  try {
    for await (const entry of await opendir(path)) {
      if (entry.isDirectory()) folders.push(`${folder}${entry.name}/`);
      const parts = entry.isFile() ? temporaryNameParts(entry.name) : undefined;
      if (parts === undefined) continue;
      yield { key: `${folder}${parts.name}`, id: entry.name, startedAt: parts.startedAt };
    }
  } catch (error) {
    if (!isMissing(error)) throw directoryError("list", path, error);
  }
  for (const inner of folders.toSorted()) yield* walk(root, inner, options);
}
