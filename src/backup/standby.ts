import {
  type BackupStart,
  readStandbyEnd,
  type StandbyStart,
  startStandbyBackup,
} from "../connection/backup-session.ts";
import { isArchivedByServer, type ServerFacts } from "../connection/server-facts.ts";
import type { Session } from "../connection/session.ts";
import { RefusedError } from "../errors.ts";
import { parseBackupLabel } from "../postgres/backup-label.ts";
import { parseSegmentName, segmentNumberOf, segmentOfEnd } from "../postgres/wal-file.ts";
import { requireReadableArrival, type WalArchive } from "./arrival.ts";

/**
 * How long the last segment may take when nothing else was set: a standby can't end it, so it
 * comes only when the primary has filled it or its archive_timeout is over.
 */
const LAST_SEGMENT_TIMEOUT_MS = 60 * 60 * 1000;

const MISSING_HINT =
  "A standby can't end a segment; the primary archives it when it is full. Run SELECT pg_switch_wal() " +
  "there, and set archive_timeout; does the primary archive into this repository?";

const RECEIVER_HINT =
  "The server does not archive; `walnut wal-receive` does. Does it run, and into this repository? See " +
  "its log.";

interface StandbyPlace {
  readonly facts: ServerFacts;
  readonly archive: WalArchive;
}

/** Where what is missing comes from, if not from this server's archiver. */
export function withMissingHint(archive: WalArchive, facts: ServerFacts): WalArchive {
  if (facts.isInRecovery) return { ...archive, missingHint: MISSING_HINT };
  return isArchivedByServer(facts) ? archive : { ...archive, missingHint: RECEIVER_HINT };
}

/** For the last segment; without a setting only a standby's wait has an end. */
export function lastSegmentTimeoutMs({ isInRecovery }: ServerFacts, stopTimeoutMs: number): number {
  return isInRecovery && stopTimeoutMs === 0 ? LAST_SEGMENT_TIMEOUT_MS : stopTimeoutMs;
}

/**
 * Starts the backup on a standby: it begins at the last restartpoint. Segments that are complete
 * by now must arrive within `timeoutMs`, which proves that the primary archives into this
 * repository; where there are none yet, that shows only at the end.
 */
export async function startOnStandby(
  session: Session,
  { facts, archive }: StandbyPlace,
  { label, timeoutMs }: { readonly label: string; readonly timeoutMs: number },
  options: { readonly signal: AbortSignal },
): Promise<BackupStart> {
  const { majorVersion, walSegmentBytes: segmentBytes } = facts;
  const start = await startStandbyBackup(session, { majorVersion, segmentBytes, label }, options);
  await requireEarlierSegments({ facts, archive }, start, timeoutMs);
  return start;
}

/** The segments of a standby's backup that are complete at its start must arrive. */
export async function requireEarlierSegments(
  { facts, archive }: StandbyPlace,
  { startLsn, segment, replayLsn }: StandbyStart,
  timeoutMs: number,
): Promise<void> {
  const { walSegmentBytes: segmentBytes } = facts;
  const { timeline } = parseSegmentName(segment, segmentBytes);
  const first = segmentNumberOf(startLsn, segmentBytes);
  const last = segmentOfEnd(replayLsn, segmentBytes) - 1n;
  if (last >= first) {
    const range = { timeline, first, last, segmentBytes };
    await requireReadableArrival(range, { ...archive, systemId: facts.systemId }, timeoutMs);
    return;
  }
  archive.log.info(
    "whether WAL arrives in the repository shows only at the end: no segment of this backup is " +
      "complete yet",
    { segment },
  );
}

/**
 * After the stop: throws RefusedError when the standby has gone over to another timeline meanwhile,
 * whose WAL the backup would need from within.
 */
export async function requireSameTimeline(
  session: Session,
  {
    start,
    label,
    facts,
  }: {
    readonly start: BackupStart;
    /** Content of backup_label. */
    readonly label: string;
    readonly facts: ServerFacts;
  },
  options: { readonly signal: AbortSignal },
): Promise<void> {
  if (!facts.isInRecovery) return;
  const { timeline } = parseSegmentName(start.segment, facts.walSegmentBytes);
  const { startTimeline } = parseBackupLabel(label);
  const endTimeline = await readStandbyEnd(session, options);
  const other = [startTimeline, endTimeline].find((found) => found !== timeline);
  if (other === undefined) return;
  throw new RefusedError(
    `the standby went over from timeline ${timeline} to ${other} during the backup`,
    { hint: "Its primary was replaced. Take the backup again." },
  );
}
