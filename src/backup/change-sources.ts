import { readArchivedChanges } from "../archive/change-source.ts";
import type { Session } from "../connection/session.ts";
import { readWalSummaries, type SummariesAhead } from "../connection/wal-summaries.ts";
import { RefusedError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type {
  ChangeAnswer,
  ChangedBlocks,
  ChangeSourceName,
  WalRange,
} from "../postgres/changed-blocks.ts";
import type { Storage } from "../storage/storage.ts";

/** Ways to find what changed, the best first; each names one or more sources. */
export const CHANGE_WAYS = ["summaries", "wal", "page-scan"] as const;
export type ChangeWay = (typeof CHANGE_WAYS)[number];

export interface FindChangesOptions {
  readonly storage: Storage;
  readonly systemId: bigint;
  readonly walSegmentBytes: number;
  readonly codecJobs: number;
  /** pg_wal of the server, if it is here. */
  readonly walDirectory?: string | undefined;
  /** Where wal-push keeps its notes of what segments change, if that is here. */
  readonly notesDirectory?: string | undefined;
  /** Which ways may be used; all unless told. */
  readonly ways?: readonly ChangeWay[] | undefined;
  /** From the same start; read before the backup had begun. */
  readonly summariesAhead?: SummariesAhead | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** What changed, or that the pages themselves have to tell. */
export interface FoundChanges {
  readonly source: ChangeSourceName;
  /** Absent when every page has to be looked at. */
  readonly changes?: ChangedBlocks | undefined;
}

/** The server summarizes up to a checkpoint soon after it. */
const SUMMARY_TIMEOUT_MS = 30_000;

/** WAL that is read for want of change maps; for more of it a look at the cluster costs less. */
const SEGMENTS_READ_MAX = 64;

/**
 * Asks one source after the other until one vouches for all of the range; the log says why another
 * was not believed. Rejects with RefusedError when none is left and a look at all pages is not
 * allowed.
 */
export async function findChanges(
  session: Session,
  range: WalRange,
  options: FindChangesOptions,
): Promise<FoundChanges> {
  const { ways = CHANGE_WAYS, log } = options;
  const reasons: string[] = [];
  for (const way of ways) {
    if (way === "page-scan") return { source: way };
    const answer = await ask(way, session, range, options);
    if (answer.kind === "changes") return answer;
    const { source, reason } = answer;
    log.info("a source of changed blocks is passed over", { source, reason });
    reasons.push(`${source}: ${reason}`);
  }
  throw new RefusedError(`nothing tells which blocks changed: ${reasons.join("; ")}`, {
    hint:
      "Without --changes and WALG_FORCE_WAL_DELTA every way is tried, at last a look at all pages of " +
      "the cluster; --full takes a full backup.",
  });
}

async function ask(
  way: Exclude<ChangeWay, "page-scan">,
  session: Session,
  range: WalRange,
  options: FindChangesOptions,
): Promise<ChangeAnswer> {
  const { storage, walSegmentBytes: segmentBytes } = options;
  if (way === "summaries") {
    const { summariesAhead: ahead } = options;
    const limits = { ahead, timeoutMs: SUMMARY_TIMEOUT_MS };
    return await readWalSummaries(session, range, { ...options, ...limits });
  }
  const limits = { segmentBytes, segmentsToReadMax: SEGMENTS_READ_MAX };
  return await readArchivedChanges(storage, range, { ...options, ...limits });
}
