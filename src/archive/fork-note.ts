import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, LocalFileError, systemErrorCode } from "../errors.ts";
import { writeCacheFile } from "../io/cache-file.ts";
import type { Lsn } from "../postgres/lsn.ts";
import { parseTimelineHistory, switchPoint } from "../postgres/timeline-history.ts";
import {
  formatHistoryName,
  parseSegmentName,
  parseWalFileName,
  segmentStart,
} from "../postgres/wal-file.ts";
import { type ArchiveQueue, serverStart } from "./archive-status.ts";
import { readControlFile } from "./control-file.ts";
import { readFirstCheckpoint } from "./recovery-watch.ts";
import type { Spool } from "./spool-directory.ts";

/** Where the timeline of a wanted segment is left by the one that recovery follows. */
export interface ForkEnd {
  /** That recovery follows. */
  readonly timeline: number;
  /** Where the segment begins. */
  readonly startLsn: Lsn;
  /** In the segment: the first position that is not on the way to that timeline. */
  readonly endLsn: Lsn;
}

/** A server that recovers. */
export interface RecoveryPlace {
  readonly queue: ArchiveQueue;
  readonly spool: Pick<Spool, "path">;
}

/** What is believed for one start of the server; FETCH.md says why. */
interface ForkNote {
  readonly server: string;
  /** Of the newest timeline that was asked for. */
  readonly segment: string;
}

/**
 * Notes that a segment was not given, if its timeline begins in it: PostgreSQL asks for the same
 * segment of the timeline before next. Never rejects: without a note it is given as it is.
 */
export async function noteFork(place: RecoveryPlace, segment: string): Promise<void> {
  try {
    const timeline = parseWalFileName(segment)?.timeline ?? 0;
    if (timeline <= 1 || (await findFork(place, { segment, timeline })) === undefined) return;
    const server = await serverStart(place.queue);
    if (server === undefined) return;
    const before = await readNote(place);
    const isKnown = before?.server === server && before.segment.slice(8) === segment.slice(8);
    if (isKnown && before.segment >= segment) return;
    await writeCacheFile(pathIn(place), `${server}\n${segment}\n`);
  } catch (error) {
    if (!isPassable(error)) throw error;
  }
}

/**
 * Where recovery leaves the timeline of `segment` within it; undefined where it does not, where
 * nothing tells, or where recovery begins behind that. Never rejects.
 */
export async function readForkEnd(
  place: RecoveryPlace,
  segment: string,
): Promise<ForkEnd | undefined> {
  try {
    const note = await readNote(place);
    if (note === undefined || note.segment.slice(8) !== segment.slice(8)) return undefined;
    const timeline = parseWalFileName(note.segment)?.timeline ?? 0;
    if (note.segment <= segment || note.server !== (await serverStart(place.queue))) {
      return undefined;
    }
    const fork = await findFork(place, { segment, timeline });
    const isBehind = fork !== undefined && (await beginsBehind(place, { segment, fork }));
    return isBehind ? undefined : fork;
  } catch (error) {
    if (!isPassable(error)) throw error;
    return undefined;
  }
}

/**
 * Whether the server has replayed, or written, what is behind the fork. PostgreSQL sees that by its
 * checkpoint's record, and ends ("requested timeline 2 is not a child of this server's history");
 * where it can't find the record a standby would ask for ever.
 *
 * @source InitWalRecovery, src/backend/access/transam/xlogrecovery.c (StartupXLOG before 15)
 */
async function beginsBehind(
  { queue }: RecoveryPlace,
  { segment, fork }: { readonly segment: string; readonly fork: ForkEnd },
): Promise<boolean> {
  const { timeline, checkpointLsn } = await readFirstCheckpoint(queue);
  return timeline === parseWalFileName(segment)?.timeline && checkpointLsn >= fork.endLsn;
}

/**
 * Where `timeline`, by its history in pg_wal, leaves that of `segment`, or for its own segment the
 * one before it; undefined if that is not in this segment.
 */
async function findFork(
  { queue }: RecoveryPlace,
  { segment, timeline }: { readonly segment: string; readonly timeline: number },
): Promise<ForkEnd | undefined> {
  const text = await readFile(join(queue.walDirectory, formatHistoryName(timeline)), "utf8");
  const history = parseTimelineHistory(text, timeline);
  const { walSegmentBytes } = await readControlFile(queue.dataDirectory);
  const own = parseSegmentName(segment, walSegmentBytes);
  const isOwn = own.timeline === timeline;
  const endLsn = isOwn ? history.ancestors.at(-1)?.endLsn : switchPoint(history, own.timeline);
  const startLsn = segmentStart(own.segmentNumber, walSegmentBytes);
  if (endLsn === undefined || endLsn < startLsn) return undefined;
  const isBefore = endLsn < segmentStart(own.segmentNumber + 1n, walSegmentBytes);
  return isBefore ? { timeline, startLsn, endLsn } : undefined;
}

async function readNote(place: RecoveryPlace): Promise<ForkNote | undefined> {
  try {
    const [server = "", segment = ""] = (await readFile(pathIn(place), "utf8")).split("\n");
    return parseWalFileName(segment)?.kind === "segment" ? { server, segment } : undefined;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function pathIn({ spool }: RecoveryPlace): string {
  return join(spool.path, "fork");
}

/** What says that nothing is known. */
function isPassable(error: unknown): boolean {
  const isOurs = error instanceof FormatError || error instanceof LocalFileError;
  return isOurs || systemErrorCode(error) !== undefined;
}
