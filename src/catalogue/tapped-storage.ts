import { borrowed, overlay } from "../storage/overlay.ts";
import type { Storage } from "../storage/storage.ts";

/**
 * The same storage; whoever reads an object shows the bytes, as they are stored, to `onChunk`. It
 * stays its owner's: disposing of this closes nothing.
 */
export function tappedStorage(storage: Storage, onChunk: (chunk: Uint8Array) => void): Storage {
  const copies = storage.copies?.map((copy) => tappedStorage(copy, onChunk));
  return overlay(borrowed(storage), {
    ...(copies === undefined ? {} : { copies }),
    async *get(key, options) {
      for await (const chunk of storage.get(key, options)) {
        onChunk(chunk);
        yield chunk;
      }
    },
  });
}
