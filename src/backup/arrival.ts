import { connectPostgres } from "../connection/connect.ts";
import { readArchiverStatistics } from "../connection/server-facts.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { OperationError, RefusedError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
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
