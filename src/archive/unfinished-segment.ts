import { FormatError, RefusedError } from "../errors.ts";
import { parseSegmentName, segmentStart } from "../postgres/wal-file.ts";
import type { WalWalk } from "../postgres/wal-record.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { isLeftBefore } from "./left-timeline.ts";
import { type LocalWal, readLocalWal } from "./local-wal.ts";
import { walkUnfinished } from "./partial.ts";
import { listStoredWal, readStoredWal, type StoredWal } from "./stored-wal.ts";

/**
 * Whether a segment of a server that only follows its timeline is not full, and the archive's
 * unfinished one has all its records: then there is nothing to archive.
 *
 * With archive_mode = always PostgreSQL hands over whatever restore_command gave it under a
 * segment's name, also the unfinished segment at the end of the archive. Stored under that name it
 * would keep out the whole one, for ever. Once the segment is full it is handed over again.
 *
 * Rejects with RefusedError when it is not full and the archive lacks records of it, and with
 * FormatError when a record is damaged, unless its timeline was left there (FAILOVER.md): then it
 * never gets more.
 *
 * @source KeepFileRestoredFromArchive, src/backend/access/transam/xlogarchive.c;
 * XLogWalRcvClose, src/backend/replication/walreceiver.c
 */
export async function isStoredUnfinished(
  storage: Storage,
  own: { readonly local: LocalWal; readonly dataDirectory: string | undefined },
  options: CallOptions & { readonly codecJobs: number },
): Promise<boolean> {
  const { name, sizeBytes } = own.local;
  const { segmentNumber } = parseSegmentName(name, sizeBytes);
  const endLsn = segmentStart(segmentNumber + 1n, sizeBytes);
  const isLeft = async () => await isLeftBefore(storage, { ...own, endLsn }, options);
  try {
    const walk = await walkUnfinished(readLocalWal(own.local, options), name);
    if (walk.end !== "invalid") return false;
    for (const stored of await listStoredWal(storage, `${name}.partial`, options)) {
      if (await holdsRecords(storage, { stored, walk, local: own.local }, options)) return true;
    }
    throw new RefusedError(
      `WAL segment ${name} is not full: its records end at byte ${walk.endOfRecords} ` +
        `(${walk.reason}), and this server has them from another one`,
      {
        hint: "Nothing was stored. PostgreSQL calls again; the segment is stored once it is full.",
      },
    );
  } catch (error) {
    const isOfSegment = error instanceof RefusedError || error instanceof FormatError;
    if (isOfSegment && (await isLeft())) return false;
    throw error;
  }
}

/** Whether a stored object begins with the bytes of all local records. */
async function holdsRecords(
  storage: Storage,
  {
    stored,
    local,
    walk: { endOfRecords },
  }: { readonly stored: StoredWal; readonly local: LocalWal; readonly walk: WalWalk },
  options: CallOptions & { readonly codecJobs: number },
): Promise<boolean> {
  const records = Buffer.alloc(endOfRecords);
  let filled = 0;
  for await (const chunk of readLocalWal(local, options)) {
    filled += Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).copy(records, filled);
  }
  let position = 0;
  for await (const chunk of readStoredWal(storage, stored, options)) {
    const wanted = records.subarray(position, position + chunk.length);
    if (Buffer.compare(chunk.subarray(0, wanted.length), wanted) !== 0) return false;
    position += chunk.length;
  }
  return position >= endOfRecords;
}
