import type { ObjectKey } from "../storage/storage.ts";
import type { SegmentReading } from "./segment-reader.ts";
import type { StoredHash } from "./verify-memory.ts";
import type { WalObjects } from "./wal-objects.ts";

/** Between a key and the end of the records: no key of WAL holds it. */
const SEPARATOR = "#";

/**
 * Remembers unfinished segments as they were stored, by where their records end: one that was
 * replaced by more of the segment ends elsewhere. One that ends within a record, or in what a
 * recycled file held, may have been replaced by more of that, and is not held against anything.
 */
export class UnfinishedHashes {
  readonly #known: ReadonlyMap<string, StoredHash>;
  readonly #found = new Map<string, StoredHash>();
  readonly #read = new Set<ObjectKey>();

  /** `known`: as `remembered` gave it; other keys do not matter. */
  constructor(known: ReadonlyMap<string, StoredHash>) {
    this.#known = known;
  }

  /** Whether the object has other bytes than when it ended at the same record, of the same size. */
  isOther({ object, stored, walk, isTailEmpty }: SegmentReading, isRelearning: boolean): boolean {
    const { key } = object.stored;
    this.#read.add(key);
    if (stored === undefined || walk === undefined || !isTailEmpty) return false;
    const place = `${key}${SEPARATOR}${walk.endOfRecords}`;
    const known = this.#known.get(place);
    const isOther = known?.sizeBytes === stored.sizeBytes && known.xxh64 !== stored.xxh64;
    this.#found.set(place, isOther && !isRelearning ? known : stored);
    return isOther && !isRelearning;
  }

  /** Of what was read now, and of what is there and was not. */
  remembered(wal: WalObjects): ReadonlyMap<string, StoredHash> {
    const remembered = new Map(this.#found);
    const unread = new Set<ObjectKey>();
    for (let row = 0; row < wal.count; row += 1) {
      if (wal.kindAt(row) === "partial") unread.add(wal.keyAt(row));
    }
    for (const key of this.#read) unread.delete(key);
    for (const [place, hash] of this.#known) {
      const [key = "", end] = place.split(SEPARATOR);
      if (end !== undefined && unread.has(key)) remembered.set(place, hash);
    }
    return remembered;
  }
}
