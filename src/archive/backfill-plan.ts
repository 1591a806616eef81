import { isAncestor, switchPoint, type TimelineHistory } from "../postgres/timeline-history.ts";
import { formatLsn } from "../postgres/lsn.ts";
import { parseSegmentName, parseWalFileName, segmentStart } from "../postgres/wal-file.ts";

/** What a server has, and what the archive has. */
export interface BackfillState {
  /** The way that the server's WAL took: its own timeline and the ones before. */
  readonly history: TimelineHistory;
  readonly segmentBytes: number;
  /** Names in pg_wal, in any order; those that are no WAL files are passed over. */
  readonly local: Iterable<string>;
  /** Names of WAL files that the archive holds. */
  readonly stored: ReadonlySet<string>;
}

/** What is to happen to one file of pg_wal. */
export interface BackfillStep {
  readonly name: string;
  /**
   * - "push": the archive lacks it. A segment is pushed only if its content proves that it is
   *   complete.
   * - "compare": the archive has it.
   * - "skip": it is no part of this server's history.
   */
  readonly action: "push" | "compare" | "skip";
  /** For the reader: "not in the archive". */
  readonly reason: string;
}

/**
 * History files first, then segments, by name. Of a timeline that was left only what ends at the
 * fork or before it is the server's history: behind it the file is that of an old primary which
 * went on, or a recycled one. Of the server's own timeline every complete segment counts.
 */
export function planBackfill(state: BackfillState): readonly BackfillStep[] {
  const histories: BackfillStep[] = [];
  const segments: BackfillStep[] = [];
  for (const name of [...state.local].toSorted()) {
    const file = parseWalFileName(name);
    if (file?.kind !== "history" && file?.kind !== "segment") continue;
    const reason = reasonToSkip(name, file, state);
    const step =
      reason === undefined ? planWanted(name, state) : ({ name, action: "skip", reason } as const);
    (file.kind === "history" ? histories : segments).push(step);
  }
  return [...histories, ...segments];
}

function planWanted(name: string, { stored }: BackfillState): BackfillStep {
  return stored.has(name)
    ? { name, action: "compare", reason: "in the archive" }
    : { name, action: "push", reason: "not in the archive" };
}

/** Undefined for what belongs to the server's history. */
function reasonToSkip(
  name: string,
  { kind, timeline }: { readonly kind: "history" | "segment"; readonly timeline: number },
  { history, segmentBytes }: BackfillState,
): string | undefined {
  if (!isAncestor(history, timeline)) {
    return `timeline ${timeline} is no part of this server's history`;
  }
  const endLsn = switchPoint(history, timeline);
  if (kind === "history" || endLsn === undefined) return undefined;
  const { segmentNumber } = parseSegmentName(name, segmentBytes);
  if (segmentStart(segmentNumber + 1n, segmentBytes) <= endLsn) return undefined;
  const isFork = segmentStart(segmentNumber, segmentBytes) < endLsn;
  const fork = formatLsn(endLsn);
  return isFork
    ? `timeline ${timeline} was left inside it, at ${fork}: the next timeline has a copy`
    : `behind ${fork}, where timeline ${timeline} was left`;
}
