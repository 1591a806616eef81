import { RefusedError, WrongClusterError } from "../errors.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import { isAncestor, type TimelineHistory } from "../postgres/timeline-history.ts";

/** Where the server is that is to give its pages. */
export interface CatchUpSource {
  readonly control: PgControl;
  /** Of its timeline. */
  readonly history: TimelineHistory;
  /** Up to where it has written WAL. */
  readonly lsn: Lsn;
}

const HINT = "Restore it by backup-fetch. Nothing was changed.";

/**
 * Makes sure that a standby can be brought up to a server by the pages that changed: same cluster,
 * same kind of files, and all that it has replayed is in the server's own past. Throws RefusedError
 * or WrongClusterError. Gives the position that its pages are complete up to.
 *
 * Where recovery would begin: a restartpoint has written every page that was changed before its
 * redo position, and later ones only as far as its checkpoint, which may lie behind.
 *
 * @source CreateRestartPoint, src/backend/access/transam/xlog.c
 */
export function requireCatchable(standby: PgControl, source: CatchUpSource): Lsn {
  const { control, history } = source;
  if (standby.systemId !== control.systemId) {
    throw new WrongClusterError(
      `the standby belongs to cluster ${standby.systemId}, this server to ${control.systemId}`,
      { hint: "Is it the right directory, and the right host? Nothing was changed." },
    );
  }
  const same = [
    ["major release", "majorVersion"],
    ["catalog version", "catalogVersion"],
    ["page size", "blockBytes"],
    ["relation segment size", "relationSegmentBlocks"],
    ["WAL segment size", "walSegmentBytes"],
    ["data checksum version", "dataChecksumVersion"],
  ] as const;
  for (const [what, name] of same) {
    if (standby[name] === control[name]) continue;
    throw new RefusedError(
      `the standby has ${what} ${standby[name]}, this server has ${control[name]}`,
      { hint: HINT },
    );
  }
  requireInPast(standby.checkpointLsn, standby.timeline, source);
  if (standby.minRecoveryLsn > 0n) {
    requireInPast(standby.minRecoveryLsn, standby.minRecoveryTimeline, source);
  }
  if (!isAncestor(history, standby.timeline)) throw notInHistory(standby.timeline, history);
  return standby.redoLsn;
}

function requireInPast(position: Lsn, timeline: number, { history, lsn }: CatchUpSource): void {
  if (!isAncestor(history, timeline)) throw notInHistory(timeline, history);
  const end = history.ancestors.find((ancestor) => ancestor.timeline === timeline)?.endLsn;
  if (end !== undefined && position > end) {
    throw new RefusedError(
      `the standby went on along timeline ${timeline} to ${formatLsn(position)}, ` +
        `this server left it at ${formatLsn(end)}`,
      { hint: `Its pages hold what never happened here. ${HINT}` },
    );
  }
  if (position <= lsn) return;
  throw new RefusedError(
    `the standby is at ${formatLsn(position)}, this server only at ${formatLsn(lsn)}`,
    { hint: "Run catchup-send on the server that is ahead. Nothing was changed." },
  );
}

function notInHistory(timeline: number, history: TimelineHistory): RefusedError {
  return new RefusedError(
    `the standby is on timeline ${timeline}, which this server on timeline ${history.timeline} ` +
      "does not come from",
    { hint: HINT },
  );
}
