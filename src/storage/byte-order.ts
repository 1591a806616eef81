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
 * Holds what a store lists to what was asked for, as what relies on it would lose objects. A key
 * that is not so may have been changed on its way: asking again helps, unless the answer is the
 * same.
 */
export class ListCheck {
  readonly #prefix: string;
  readonly #storageName: string;
  readonly #refused = new Set<string>();

  constructor(prefix: string, storageName: string) {
    this.#prefix = prefix;
    this.#storageName = storageName;
  }

  /** Throws StorageError unless `key` begins with the prefix and comes after `last`, if any. */
  require(key: ObjectKey, last: ObjectKey | undefined): void {
    if (!key.startsWith(this.#prefix)) {
      throw this.#refusal(
        `${quoted(key)} where keys were asked for that begin with `,
        this.#prefix,
      );
    }
    if (last !== undefined && compareKeys(key, last) <= 0) {
      throw this.#refusal(`${quoted(key)}, which is not in byte order, after `, last);
    }
  }

  #refusal(text: string, key: string): StorageError {
    const message = `${this.#storageName} lists ${text}${quoted(key)}`;
    const isRetryable = !this.#refused.has(message);
    this.#refused.add(message);
    return new StorageError(message, { isRetryable, hint: ORDER_HINT });
  }
}

const ORDER_HINT =
  "A store that lists so can't be used; directory buckets (S3 Express) are such. One that did so " +
  "once sent an answer that was changed on its way.";

function quoted(key: string): string {
  return JSON.stringify(key);
}

function sorted(objects: readonly ObjectInfo[]): readonly ObjectInfo[] {
  return objects.toSorted((left, right) => compareKeys(left.key, right.key));
}
