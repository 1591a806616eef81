import { BACKUPS_FOLDER, CATCH_UP_FOLDER } from "../layout/keys.ts";
import { overlay, wrappedCopies } from "../storage/overlay.ts";
import type { Storage } from "../storage/storage.ts";

/** A repository in which the catch-up backups stand where backups are; all else is as it is. */
export function catchUpStorage(inner: Storage): Storage {
  return overlay(inner, {
    ...wrappedCopies(inner, catchUpStorage),
    // Its keys would be those of the backups.
    upkeep: undefined,
    readableBytes: (key, storedBytes) =>
      inner.readableBytes === undefined
        ? storedBytes
        : inner.readableBytes(inside(key), storedBytes),
    get: (key, options) => inner.get(inside(key), options),
    put: async (key, body, options) => await inner.put(inside(key), body, options),
    stat: async (key, options) => ({ ...(await inner.stat(inside(key), options)), key }),
    async *list(prefix, options) {
      const { startAfter } = options;
      const position = startAfter === undefined ? {} : { startAfter: inside(startAfter) };
      for await (const info of inner.list(inside(prefix), { ...options, ...position })) {
        yield { ...info, key: outside(info.key) };
      }
    },
    delete: async (keys, options) => await inner.delete(keys.map(inside), options),
  });
}

function inside(key: string): string {
  return moved(key, BACKUPS_FOLDER, CATCH_UP_FOLDER);
}

function outside(key: string): string {
  return moved(key, CATCH_UP_FOLDER, BACKUPS_FOLDER);
}

function moved(key: string, from: string, to: string): string {
  return key.startsWith(from) ? `${to}${key.slice(from.length)}` : key;
}
