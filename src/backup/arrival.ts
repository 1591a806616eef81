import { checkedWal } from "../archive/checked-wal.ts";
import { listStoredWal, readStoredWal } from "../archive/stored-wal.ts";
import { connectPostgres } from "../connection/connect.ts";
import { readArchiverStatistics } from "../connection/server-facts.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import {
  FormatError,
  ObjectNotFoundError,
  OperationError,
  RefusedError,
  WrongClusterError,
} from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import { isDamage, readSoundly } from "../storage/copies.ts";
import type { Storage } from "../storage/storage.ts";
import {
  type ArchiverState,
  type MissingSegment,
  type SegmentRange,
  waitForSegments,
} from "./segment-wait.ts";

/** The way that WAL takes from the server into the repository, and who can tell of it. */
export interface WalArchive {
  readonly storage: Storage;
  /** pg_wal of the server; absent where that is on another host. */
  readonly walDirectory?: string | undefined;
  /** To ask the archiver's statistics, in a session of its own each time. */
  readonly connection: ConnectionSettings;
  /** What to do when a segment is missing, where the archiver of this server is not in charge. */
  readonly missingHint?: string | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

const HINTS: Readonly<Record<ArchiverState, string>> = {
  waiting:
    "archive_command fails or hangs: its words are in the server's log. Run it by hand as the " +
    "server's user.",
  done:
    "PostgreSQL says that archive_command has stored the segment, so it went somewhere else: do " +
    "archive_command and backup-push use the same repository?",
  "given up":
    "WALNUT_ARCHIVE_QUEUE_POLICY=drop gave it up while the store was away. No backup that needs it can " +
    "be restored: take a new one.",
  unknown:
    "The archiver does not seem to run. archive_mode = on needs a restart of the server; see its log.",
};

/**
 * Waits until every segment of the range is in the repository; `timeoutMs` 0 = without end. Logs
 * every 10 s what is missing and why. Rejects with RefusedError when the time is up.
 */
export async function requireArrival(
  range: SegmentRange,
  archive: WalArchive,
  timeoutMs: number,
): Promise<void> {
  const { log, storage, signal } = archive;
  const missing = await waitForSegments(range, {
    ...archive,
    timeoutMs,
    onWaiting: (segment) => {
      const text = "waiting for a segment to arrive in the repository";
      const { missingHint } = archive;
      if (missingHint !== undefined) {
        log.warning(text, { segment: segment.name, hint: missingHint });
        return;
      }
      void describeArchiver(archive).then((archiver) =>
        log.warning(text, { segment: segment.name, archiver: archiver ?? segment.archiver }),
      );
    },
  });
  signal.throwIfAborted();
  if (missing === undefined) return;
  throw await notArrived(missing, storage, { archive, timeoutMs });
}

/** Between two attempts to read what is there, but not whole. */
const READ_AGAIN_MS = 500;

interface ReadableArrival extends WalArchive {
  readonly systemId: bigint;
  /** Told when all have arrived; the reading begins when it resolves. */
  readonly onArrived?: () => Promise<void>;
}

/**
 * The same, and reads the last of them back: what arrived may be no WAL, of another cluster, or
 * nothing that the configured keys open. What a plain copy is still writing may become whole within
 * the same time. Where only the holder of another key can read, nobody can tell.
 */
export async function requireReadableArrival(
  range: SegmentRange,
  archive: ReadableArrival,
  timeoutMs: number,
): Promise<void> {
  const { clock, signal, storage } = archive;
  const startedMs = clock.monotonicMs();
  await requireArrival(range, archive, timeoutMs);
  await archive.onArrived?.();
  if (storage.isWriteOnly === true) return;
  const name = formatSegmentName(range.timeline, range.last, range.segmentBytes);
  for (;;) {
    try {
      await readBack(name, archive);
      return;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      if (!mayChange(error) || clock.monotonicMs() - startedMs >= timeoutMs) {
        throw notReadable(name, storage, error);
      }
    }
    await clock.sleep(READ_AGAIN_MS, { signal });
  }
}

async function readBack(
  name: string,
  { storage, systemId, signal }: WalArchive & { readonly systemId: bigint },
): Promise<void> {
  const options = { codecJobs: 1, signal };
  const expectation = { name, systemId, mustCheckRecords: true };
  await readSoundly(storage, async (one) => {
    const all = await listStoredWal(one, name, options);
    if (all.length === 0) throw new FormatError("it has gone again");
    for (const stored of all) {
      const content = checkedWal(readStoredWal(one, stored, options), expectation);
      for await (const _chunk of content) signal.throwIfAborted();
    }
  });
}

function isUnreadable(error: unknown): error is OperationError {
  return mayChange(error) || error instanceof WrongClusterError || error instanceof RefusedError;
}

/** What is still being written, or is in a storage that is left out now. */
function mayChange(error: unknown): boolean {
  return isDamage(error) || error instanceof ObjectNotFoundError;
}

function notReadable(name: string, storage: Storage, cause: OperationError): RefusedError {
  return new RefusedError(
    `WAL segment ${name} has arrived in ${storage.name}, but can't be read back: ${cause.message}`,
    {
      hint:
        "A restore needs it: is archive_command `walnut wal-push`, with the same keys as " +
        "backup-push?",
      cause,
    },
  );
}

async function notArrived(
  missing: MissingSegment,
  storage: Storage,
  { archive, timeoutMs }: { readonly archive: WalArchive; readonly timeoutMs: number },
): Promise<RefusedError> {
  if (missing.archiver === "given up") {
    return new RefusedError(
      `WAL segment ${missing.name} was given up and will never be in ${storage.name}`,
      { hint: HINTS[missing.archiver] },
    );
  }
  const archiver = await describeArchiver(archive);
  const suffix = archiver === undefined ? "" : `; ${archiver}`;
  return new RefusedError(
    `WAL segment ${missing.name} did not arrive in ${storage.name} within ${timeoutMs / 1000} s` +
      suffix,
    { hint: archive.missingHint ?? HINTS[missing.archiver] },
  );
}

/** The archiver's last failure; undefined when there was none, or nobody can tell. */
async function describeArchiver(archive: WalArchive): Promise<string | undefined> {
  const { connection, signal } = archive;
  try {
    await using session = await connectPostgres(connection, { signal });
    const { failedCount, lastFailedWal, lastFailedAt } = await readArchiverStatistics(session, {
      signal,
    });
    if (lastFailedWal === undefined) return undefined;
    return `the archiver failed ${failedCount} times, last for ${lastFailedWal} at ${lastFailedAt}`;
  } catch (error) {
    // It explains another failure; it must not become one.
    if (signal.aborted || error instanceof OperationError) return undefined;
    throw error;
  }
}
