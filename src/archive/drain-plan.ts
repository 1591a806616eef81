/** What the drainer knows when it chooses what to begin. All names are of WAL files. */
export interface DrainState {
  /** Files with a `.ready` mark that the store has not acknowledged, in any order. */
  readonly ready: Iterable<string>;
  readonly underWay: ReadonlySet<string>;
  /** Files that a wal-push waits for. */
  readonly wanted: ReadonlySet<string>;
  /**
   * Whether a ready file has failed and is not to be tried again yet; it holds others back even so.
   */
  readonly isResting: (name: string) => boolean;
  /** Segments that the archive has with other content: nothing behind them may be stored. */
  readonly conflicts?: ReadonlySet<string>;
  /** Acknowledged, and not yet marked as done by PostgreSQL. */
  readonly aheadCount: number;
}

export interface DrainLimits {
  /** Files under way at the same time; history files are begun even beyond it. */
  readonly concurrency: number;
  /** Files that are ahead of PostgreSQL: under way, or acknowledged and not done. */
  readonly ahead: number;
}

const HISTORY = ".history";
const TIMELINE_DIGITS = 8;
/** They are short, and must not wait for segments that are slow to compress. */
const HISTORIES_AT_ONCE = 2;

/**
 * The files to begin now: those that are waited for, then history files, then by name. A file of a
 * timeline waits for that timeline's history, and for older ones, as long as those are not
 * acknowledged; and for every earlier file of it that collided, because a timeline must not hold
 * the WAL of two servers.
 *
 * @source ready_file_comparator, src/backend/postmaster/pgarch.c
 */
export function planDrain(state: DrainState, limits: DrainLimits): readonly string[] {
  const { underWay, wanted, aheadCount } = state;
  const pendingTimeline = oldestPendingHistory(state);
  const chosen: string[] = [];
  const busy = { histories: 0, others: 0 };
  for (const name of underWay) busy[kindOf(name)] += 1;
  // A backlog has thousands of files and a plan a few: no sorting.
  for (;;) {
    const isFull = underWay.size + chosen.length + aheadCount >= limits.ahead;
    let best: string | undefined;
    for (const name of state.ready) {
      if (best !== undefined && !isBefore(name, best, wanted)) continue;
      const kind = kindOf(name);
      if (kind === "histories" && busy.histories >= HISTORIES_AT_ONCE) continue;
      if (kind === "others" && busy.histories + busy.others >= limits.concurrency) continue;
      if (kind === "others" && isFull && !wanted.has(name)) continue;
      if (underWay.has(name) || chosen.includes(name) || state.isResting(name)) continue;
      if (kind === "others" && timelineOf(name) >= pendingTimeline) continue;
      if (isBehindConflict(name, state.conflicts)) continue;
      best = name;
    }
    if (best === undefined) return chosen;
    chosen.push(best);
    busy[kindOf(best)] += 1;
  }
}

function kindOf(name: string): "histories" | "others" {
  return name.endsWith(HISTORY) ? "histories" : "others";
}

/** In the eight digits of a name; a text behind all of them if no history is pending. */
function oldestPendingHistory({ ready, underWay }: DrainState): string {
  let oldest = "none";
  for (const names of [ready, underWay]) {
    for (const name of names) {
      if (name.endsWith(HISTORY) && timelineOf(name) < oldest) oldest = timelineOf(name);
    }
  }
  return oldest;
}

function isBehindConflict(name: string, conflicts: ReadonlySet<string> | undefined): boolean {
  for (const conflict of conflicts ?? []) {
    if (name > conflict && timelineOf(name) === timelineOf(conflict)) return true;
  }
  return false;
}

function timelineOf(name: string): string {
  return name.slice(0, TIMELINE_DIGITS);
}

function isBefore(one: string, other: string, wanted: ReadonlySet<string>): boolean {
  if (wanted.has(one) !== wanted.has(other)) return wanted.has(one);
  const isHistory = one.endsWith(HISTORY);
  if (isHistory !== other.endsWith(HISTORY)) return isHistory;
  return one < other;
}
