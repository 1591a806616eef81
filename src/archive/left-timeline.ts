import { dirname, join } from "node:path";
import { FormatError } from "../errors.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import { switchPoint } from "../postgres/timeline-history.ts";
import { parseSegmentName, parseWalFileName, segmentStart } from "../postgres/wal-file.ts";
import { parseWalPageHeader } from "../postgres/wal-page.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { Comparison } from "./comparison.ts";
import { isFollower, listLocalHistories, readLocalControl } from "./local-control.ts";
import { type LocalWal, readHead, readLocalWal } from "./local-wal.ts";
import { walkUnfinished } from "./partial.ts";
import { listForks } from "./timeline-forks.ts";

/**
 * Whether a local segment that is not the stored one may count as archived, because both are the
 * same up to where the local one's records end ("covered"), or to where the timeline was left, and
 * this server's own history says that it left ("left"). Undefined for all else, and always for the
 * server that writes the timeline.
 *
 * PostgreSQL hands over a segment in which a timeline was left as if it were complete: a standby
 * with archive_mode = always has it up to there, an old primary that was rewound has more.
 *
 * @source WalReceiverMain, src/backend/replication/walreceiver.c (XLogArchiveNotify at the end of a
 * timeline); ShutdownXLOG, xlog.c (which pg_rewind's single-user run of the old primary reaches)
 */
export async function settledAs(
  {
    local,
    different,
    dataDirectory = dirname(dirname(local.path)),
  }: {
    readonly local: LocalWal;
    readonly different: Extract<Comparison, { kind: "different" }>;
    readonly dataDirectory: string | undefined;
  },
  options: CallOptions,
): Promise<"covered" | "left" | undefined> {
  const { differsAt, stored } = different;
  const { endOfRecords } = different.local;
  if (local.kind !== "segment" || differsAt === undefined || endOfRecords === undefined) {
    return undefined;
  }
  if (stored.sizeBytes !== local.sizeBytes) return undefined;
  const walDirectory = join(dataDirectory, "pg_wal");
  const { timeline, segmentNumber } = parseSegmentName(local.name, local.sizeBytes);
  const control = await readLocalControl(dataDirectory);
  if (control === undefined || !(await isFollower(control, walDirectory, timeline))) {
    return undefined;
  }
  const startLsn = segmentStart(segmentNumber, local.sizeBytes);
  const isSameUpTo = (endLsn: Lsn) => endLsn > startLsn && startLsn + BigInt(differsAt) >= endLsn;
  const localEndLsn = lsn(startLsn + BigInt(endOfRecords));
  const ownEndLsn = await endOf(timeline, walDirectory);
  if (ownEndLsn !== undefined && isSameUpTo(ownEndLsn)) {
    return localEndLsn <= ownEndLsn ? "covered" : "left";
  }
  // It was promoted away from before the standby knows it, or its segment is not full yet.
  const isCovered = isSameUpTo(localEndLsn) && (await endsThere(local, options));
  return isCovered ? "covered" : undefined;
}

/** Whether the records of a segment end because there are no more, and not because of damage. */
async function endsThere(local: LocalWal, options: CallOptions): Promise<boolean> {
  try {
    await walkUnfinished(readLocalWal(local, options), local.name);
    return true;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

/** Whether a history in pg_wal or in the archive says that a segment's timeline was left by then. */
export async function isLeftBefore(
  storage: Storage,
  {
    local,
    dataDirectory = dirname(dirname(local.path)),
    endLsn,
  }: {
    readonly local: LocalWal;
    readonly dataDirectory: string | undefined;
    readonly endLsn: Lsn;
  },
  options: CallOptions,
): Promise<boolean> {
  const { timeline } = parseSegmentName(local.name, local.sizeBytes);
  const ownEndLsn = await endOf(timeline, join(dataDirectory, "pg_wal"));
  if (ownEndLsn !== undefined && ownEndLsn <= endLsn) return true;
  const forks = await listForks(storage, timeline, options);
  return forks.some(({ switchLsn }) => switchLsn <= endLsn);
}

/**
 * Whether a file with a segment's name holds nothing of that segment, and this server will never
 * fill it: one that was renamed to be used again, or zeros, of a timeline that it has left since.
 * PostgreSQL marks it as ready with archive_mode = always all the same, once recovery is behind
 * the segment's number. What is in it is archived under its old name, or was no WAL.
 *
 * @source RemoveOldXlogFiles, xlog.c; XLogArchiveCheckDone, xlogarchive.c
 */
export async function isNeverFilled({
  path,
  name,
  dataDirectory = dirname(dirname(path)),
}: {
  readonly path: string;
  readonly name: string;
  readonly dataDirectory: string | undefined;
}): Promise<boolean> {
  if (parseWalFileName(name)?.kind !== "segment") return false;
  const control = await readLocalControl(dataDirectory);
  if (control === undefined) return false;
  const { walSegmentBytes: segmentBytes } = control;
  const { timeline, segmentNumber } = parseSegmentName(name, segmentBytes);
  const endLsn = await endOf(timeline, join(dataDirectory, "pg_wal"));
  if (endLsn === undefined || endLsn > segmentStart(segmentNumber + 1n, segmentBytes)) return false;
  return await isUnused({ path, name }, control);
}

/**
 * Whether a file with a segment's name is one that was renamed to be used again, or zeros: nothing
 * of the segment has been written yet. Rejects with LocalFileError.
 */
export async function isUnused(
  { path, name }: { readonly path: string; readonly name: string },
  { walSegmentBytes: segmentBytes, systemId }: Pick<PgControl, "walSegmentBytes" | "systemId">,
): Promise<boolean> {
  const { segmentNumber } = parseSegmentName(name, segmentBytes);
  const { sizeBytes, head } = await readHead(path);
  if (sizeBytes !== segmentBytes) return false;
  if (head.every((byte) => byte === 0)) return true;
  try {
    const page = parseWalPageHeader(head);
    const isOwn = page.form === "long" && page.systemId === systemId;
    return isOwn && page.pageStart < segmentStart(segmentNumber, segmentBytes);
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

/** Where the newest history in pg_wal says that a timeline was left. */
async function endOf(timeline: number, walDirectory: string): Promise<Lsn | undefined> {
  for (const history of await listLocalHistories(walDirectory)) {
    const endLsn = switchPoint(history, timeline);
    if (endLsn !== undefined) return endLsn;
  }
  return undefined;
}
