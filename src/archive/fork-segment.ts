import { DamagedError, FormatError, NotInArchiveError, ObjectNotFoundError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { writeFileDurably } from "../io/durable.ts";
import type { Log } from "../io/log.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import type { WalWalk } from "../postgres/wal-record.ts";
import { checkSegmentStart, SEGMENT_HEADER_BYTES } from "../postgres/wal-segment.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { unprovedError } from "./absence.ts";
import { breakText, checkedWal } from "./checked-wal.ts";
import { withinDeadline } from "./deadline.ts";
import { removeStaleTemporaries, resolveDestination } from "./destination.ts";
import type { ForkEnd } from "./fork-note.ts";
import { requireNoMoreInPlace } from "./local-end.ts";
import { readControlAround } from "./local-wal.ts";
import { readPartial } from "./partial.ts";
import { listStoredSegment, readStoredWal, type StoredWal } from "./stored-wal.ts";

export interface ForkSegmentOptions extends CallOptions {
  readonly codecJobs: number;
  /** For the whole fetch. */
  readonly timeoutMs: number;
  readonly log: Log;
}

export interface ForkSegment {
  readonly name: string;
  readonly destination: string;
  readonly end: ForkEnd;
}

/**
 * Brings what the archive has of a segment up to where recovery leaves its timeline, zeros behind
 * that, and durable: of the whole segment, or of an unfinished one. FETCH.md tells why.
 *
 * Rejects with NotInArchiveError when nothing before the fork is there; with DamagedError when
 * what is there breaks off before it, with StorageError and DeadlineError.
 */
export async function fetchForkSegment(
  storage: Storage,
  { name, destination, end }: ForkSegment,
  options: ForkSegmentOptions,
): Promise<void> {
  const { codecJobs, log } = options;
  await withinDeadline(options, async ({ signal, begin }) => {
    begin(`preparing ${destination}`);
    const path = await resolveDestination(destination);
    await removeStaleTemporaries(path);
    const systemId = (await readControlAround(destination))?.systemId;
    begin(`listing the objects of ${name} in ${storage.name}`);
    let unanswered: unknown;
    const onUnanswered = (error: unknown) => void (unanswered ??= error);
    const { whole, partial } = await listStoredSegment(storage, name, { signal, onUnanswered });
    let damage: DamagedError | undefined;
    for (const stored of [...whole, ...partial]) {
      begin(`fetching ${stored.key} from ${storage.name}`);
      // What is in pg_wal behind the fork need not be kept.
      const onEnd = async (endLsn: Lsn): Promise<void> => {
        if (endLsn < end.endLsn) await requireNoMoreInPlace(path, { name, endLsn }, { signal });
      };
      const how = { name, codecJobs, signal, systemId, endLsn: end.endLsn, onEnd };
      const content = whole.includes(stored)
        ? wholeContent(storage, stored, how)
        : readPartial(storage, { name, stored }, how);
      try {
        await writeFileDurably(path, zeroedFrom(content, name, end.endLsn), { signal });
        const endLsn = formatLsn(end.endLsn);
        log.info("segment fetched up to its fork", { wal: name, key: stored.key, endLsn });
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof FormatError) damage ??= damagedError(storage, stored, error);
        else if (!(error instanceof ObjectNotFoundError)) throw error;
      }
    }
    if (damage !== undefined) throw damage;
    if (unanswered !== undefined) throw unprovedError(name, unanswered);
    throw new NotInArchiveError(
      `WAL file ${name} is not in the archive ${storage.name}, ` +
        `and timeline ${end.timeline} leaves its timeline at ${formatLsn(end.endLsn)}`,
    );
  });
}

interface WholeOptions extends CallOptions {
  readonly name: string;
  readonly codecJobs: number;
  readonly systemId: bigint | undefined;
  readonly endLsn: Lsn;
}

function wholeContent(
  storage: Storage,
  stored: StoredWal,
  { name, codecJobs, signal, systemId, endLsn }: WholeOptions,
): ByteStream {
  // What is behind the fork does not matter.
  const onBreak = async (walk: WalWalk): Promise<void> => {
    const brokenAt = walk.header.startLsn + BigInt(walk.endOfRecords);
    if (brokenAt < endLsn) throw new FormatError(breakText(name, walk));
  };
  const content = readStoredWal(storage, stored, { codecJobs, signal });
  return checkedWal(content, { name, systemId, mustCheckRecords: true, onBreak });
}

/** The same bytes as far as they are before `endLsn`. */
async function* zeroedFrom(content: ByteStream, name: string, endLsn: Lsn): ByteStream {
  const head = Buffer.alloc(SEGMENT_HEADER_BYTES);
  let position = 0;
  let keptBytes = SEGMENT_HEADER_BYTES;
  for await (const chunk of content) {
    if (position < head.length) head.set(chunk.subarray(0, head.length - position), position);
    if (position < head.length && position + chunk.length >= head.length) {
      keptBytes = Number(endLsn - checkSegmentStart(head, name).startLsn);
      if (keptBytes <= 0) throw new NotInArchiveError(`${name} begins where its timeline was left`);
    }
    const kept = chunk.subarray(0, Math.max(0, keptBytes - position));
    position += chunk.length;
    if (kept.length === chunk.length) {
      yield chunk;
      continue;
    }
    const zeroed = Buffer.alloc(chunk.length);
    zeroed.set(kept);
    yield zeroed;
  }
}

function damagedError(storage: Storage, { key }: StoredWal, cause: FormatError): DamagedError {
  return new DamagedError(`object ${key} in ${storage.name} is damaged: ${cause.message}`, {
    cause,
    hint:
      "Recovery needs it up to the fork of timelines: look for another copy, or wait until the " +
      "newer timeline's segment of this number is archived.",
  });
}
