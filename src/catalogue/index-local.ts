import { loadNativeCrc32c } from "../io/crc32c.ts";
import { join } from "node:path";
import { inspectLocalWal, readLocalWal } from "../archive/local-wal.ts";
import { FormatError, LocalFileError } from "../errors.ts";
import { createHasher } from "../io/hash.ts";
import { formatSegmentName, parseSegmentName } from "../postgres/wal-file.ts";
import { WalWalker } from "../postgres/wal-record.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import { SEGMENT_HEADER_BYTES } from "../postgres/wal-segment.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { CommitIndex, type IndexEntry } from "./commit-index.ts";
import { CommitScan } from "./commit-scan.ts";

/** Segments that are noted together: a process of its own for each would be too many. */
const INDEX_BATCH = 16;

/**
 * Notes the commits of the batch of segments that ends with `name`, from the files that are still
 * in `walDirectory`; gives how many. What is not there any more is read from the store by whoever
 * asks for it. INDEX.md tells the whole story.
 */
export async function indexLocalBatch(
  storage: Storage,
  { walDirectory, name }: { readonly walDirectory: string; readonly name: string },
  { signal }: CallOptions,
): Promise<number> {
  const segmentBytes = await readSegmentBytes(join(walDirectory, name), name, signal);
  if (segmentBytes === undefined) return 0;
  const { timeline, segmentNumber } = parseSegmentName(name, segmentBytes);
  const last = Number(segmentNumber);
  const index = new CommitIndex(storage, segmentBytes, {
    hasher: await createHasher("xxh64"),
    mustWrite: true,
    signal,
  });
  let before: OpenRecord | undefined;
  let count = 0;
  // The one before the batch only gives what its last record began.
  for (let number = Math.max(0, last - INDEX_BATCH); number <= last; number += 1) {
    const segment = formatSegmentName(timeline, BigInt(number), segmentBytes);
    const noted = await noteFile(join(walDirectory, segment), segment, { before, signal });
    before = noted?.open;
    if (noted === undefined || number === last - INDEX_BATCH) continue;
    await index.note(timeline, number, noted.entry);
    count += 1;
  }
  await index.flush();
  return count;
}

async function readSegmentBytes(
  path: string,
  name: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    return (await inspectLocalWal({ path, name }, { signal })).sizeBytes;
  } catch (error) {
    if (error instanceof FormatError || error instanceof LocalFileError) return undefined;
    throw error;
  }
}

interface Noted {
  readonly entry: IndexEntry;
  readonly open: OpenRecord | undefined;
}

/**
 * The note of one segment that is a file; `before` is what the segment before it left open. Undefined
 * for a file that is gone, or is not what its name says.
 */
export async function noteFile(
  path: string,
  name: string,
  { before, signal }: CallOptions & { readonly before: OpenRecord | undefined },
): Promise<Noted | undefined> {
  const scan = new CommitScan();
  const walker = new WalWalker(name, before, scan, await loadNativeCrc32c());
  try {
    const local = await inspectLocalWal({ path, name }, { signal });
    for await (const chunk of readLocalWal(local, { signal })) {
      const headBytes = walker.header === undefined ? SEGMENT_HEADER_BYTES : 0;
      walker.push(chunk.subarray(0, headBytes));
      if (headBytes > 0 && walker.header !== undefined) scan.begin(walker.header);
      walker.push(chunk.subarray(headBytes));
    }
    const { header, end } = walker.finish();
    if (end === "invalid") return undefined;
    const isExact = before !== undefined || header.continuationBytes === 0;
    return {
      entry: { segment: name, commits: scan.summary, isExact },
      open: walker.openRecord,
    };
  } catch (error) {
    if (error instanceof FormatError || error instanceof LocalFileError) return undefined;
    throw error;
  }
}
