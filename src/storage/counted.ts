import { counted, mapSource } from "../io/bytes.ts";
import type { ByteStream } from "../io/bytes.ts";
import { overlay } from "./overlay.ts";
import type { Storage } from "./storage.ts";

/** Calls by method, begun until now, whether they succeeded or not, and the bytes that passed. */
export interface StorageCounts {
  readonly get: number;
  readonly put: number;
  readonly stat: number;
  readonly list: number;
  readonly delete: number;
  readonly gotBytes: number;
  readonly putBytes: number;
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] };

/** Where counting begins. */
export function noCounts(): Writable<StorageCounts> {
  return { get: 0, put: 0, stat: 0, list: 0, delete: 0, gotBytes: 0, putBytes: 0 };
}

/**
 * Counts in `counts`, which others may share, what passes: outermost the caller's calls, innermost
 * the repeated ones too.
 */
export function countedStorage(inner: Storage, counts: Writable<StorageCounts>): Storage {
  return overlay(inner, {
    get(key, options) {
      counts.get++;
      return counted(inner.get(key, options), (sizeBytes) => (counts.gotBytes += sizeBytes));
    },
    async put(key, body, options) {
      counts.put++;
      const count = (stream: ByteStream) =>
        counted(stream, (sizeBytes) => (counts.putBytes += sizeBytes));
      await inner.put(key, mapSource(body, count), options);
    },
    async stat(key, options) {
      counts.stat++;
      return await inner.stat(key, options);
    },
    list(prefix, options) {
      counts.list++;
      return inner.list(prefix, options);
    },
    async delete(keys, options) {
      counts.delete++;
      await inner.delete(keys, options);
    },
  });
}
