import { readStoredWal } from "../archive/stored-wal.ts";
import { OperationError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import { isSegmentSize } from "../postgres/wal-file.ts";
import { parseWalPageHeader } from "../postgres/wal-page.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { WalObjects } from "./wal-objects.ts";

const HEADER_BYTES = 40;
const SMALLEST_BYTES = 2 ** 20;
const LARGEST_BYTES = 2 ** 30;
const LOW_HALF = 2n ** 32n;
/** Segments that are opened, the newest first, before the size counts as unknown. */
const OPENED_MAX = 3;

/** Where a backup began, by its documents and by its name. */
export interface NamedStart {
  readonly startLsn: bigint;
  /** Second and last eight digits of the segment in the backup's name. */
  readonly high: number;
  readonly low: number;
}

/**
 * The sizes of segments, in bytes, with which a backup that began there has this name. One, unless
 * the name ends in eight zeros.
 */
export function sizesOfName({ startLsn, high, low }: NamedStart): readonly number[] {
  const sizes: number[] = [];
  for (let sizeBytes = SMALLEST_BYTES; sizeBytes <= LARGEST_BYTES; sizeBytes *= 2) {
    // Servers before 16 name the segment before a start that lies on the border of two.
    const isNamed = [startLsn, startLsn - 1n].some(
      (position) =>
        position >= 0n &&
        Number(position / LOW_HALF) === high &&
        Math.floor(Number(position % LOW_HALF) / sizeBytes) === low,
    );
    if (isNamed) sizes.push(sizeBytes);
  }
  return sizes;
}

/**
 * The one size, in bytes, that all these names agree on; "mixed" if there is no such; undefined if
 * there are several. A name that no size explains tells nothing: it is that of an earlier try.
 */
export function sizeOfNames(starts: readonly NamedStart[]): number | "mixed" | undefined {
  let possible: readonly number[] | undefined;
  for (const start of starts) {
    const sizes = sizesOfName(start);
    if (sizes.length === 0) continue;
    possible = possible === undefined ? sizes : possible.filter((size) => sizes.includes(size));
  }
  if (possible === undefined) return undefined;
  const [first, second] = possible;
  if (first === undefined) return "mixed";
  return second === undefined ? first : undefined;
}

/** The size that a stored segment tells of itself; undefined if none of the newest can be read. */
export async function readSegmentSize(
  storage: Storage,
  wal: WalObjects,
  options: CallOptions,
): Promise<number | undefined> {
  let openedCount = 0;
  for (let row = wal.count - 1; row >= 0 && openedCount < OPENED_MAX; row -= 1) {
    if (wal.kindAt(row) !== "segment") continue;
    openedCount += 1;
    const segmentBytes = await readSize(storage, wal, { ...options, row });
    if (segmentBytes !== undefined) return segmentBytes;
  }
  return undefined;
}

async function readSize(
  storage: Storage,
  wal: WalObjects,
  { row, signal }: CallOptions & { readonly row: number },
): Promise<number | undefined> {
  const stored = { key: wal.keyAt(row), extension: wal.extensionAt(row) };
  try {
    const content = readStoredWal(storage, stored, { codecJobs: 1, signal });
    const cursor = new ByteCursor(content, stored.key);
    try {
      const header = parseWalPageHeader(await cursor.readExactly(HEADER_BYTES));
      if (header.form !== "long" || !isSegmentSize(header.segmentBytes)) return undefined;
      return header.segmentBytes;
    } finally {
      // A file that nobody closes ends the process when its memory is collected.
      await cursor.close();
    }
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof OperationError) return undefined;
    throw error;
  }
}
