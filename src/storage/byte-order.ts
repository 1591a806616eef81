import { compareKeys } from "./key.ts";
import type { ObjectInfo } from "./storage.ts";

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

function sorted(objects: readonly ObjectInfo[]): readonly ObjectInfo[] {
  return objects.toSorted((left, right) => compareKeys(left.key, right.key));
}
