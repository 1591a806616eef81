import { StorageError } from "../errors.ts";
import { compareKeys } from "./key.ts";
import type { ObjectInfo, ObjectKey } from "./storage.ts";

/** Half of a character beyond U+FFFF. */
const SURROGATE = /[\ud800-\udfff]/;

/**
 * Puts objects that come in the order of UTF-16 units into that of bytes. The two differ only where
 * characters beyond U+FFFF meet those from U+E000 on, so only keys that share what comes before
 * such a character are held back and sorted. What comes in byte order passes unchanged.
 */
export async function* inByteOrder(objects: AsyncIterable<ObjectInfo>): AsyncIterable<ObjectInfo> {
  let held: ObjectInfo[] = [];
  let shared = "";
  for await (const info of objects) {
    if (held.length > 0 && info.key.startsWith(shared)) {
      held.push(info);
      continue;
    }
    yield* sorted(held);
    held = [];
    const at = info.key.search(SURROGATE);
    if (at < 0) {
      yield info;
    } else {
      shared = info.key.slice(0, at);
      held.push(info);
    }
  }
  yield* sorted(held);
}

/**
 * Throws StorageError if a store lists `key` after `last` although it comes before it: what relies
 * on the order, like resuming behind the last key, would lose objects.
 */
export function requireOrder(
  last: ObjectKey,
  key: ObjectKey,
  storageName: string,
  hint?: string,
): void {
  if (compareKeys(key, last) >= 0) return;
  throw new StorageError(
    `${storageName} lists ${JSON.stringify(key)} after ${JSON.stringify(last)}: not in byte order`,
    { isRetryable: false, ...(hint === undefined ? {} : { hint }) },
  );
}

function sorted(objects: readonly ObjectInfo[]): readonly ObjectInfo[] {
  return objects.toSorted((left, right) => compareKeys(left.key, right.key));
}
