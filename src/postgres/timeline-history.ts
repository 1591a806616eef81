import { FormatError } from "../errors.ts";
import { formatLsn, type Lsn, parseLsn } from "./lsn.ts";

/** The end of one ancestor of a timeline. */
export interface TimelineSwitch {
  readonly timeline: number;
  /** The first position that belongs to the next timeline. */
  readonly endLsn: Lsn;
  /** Why recovery ended there, in PostgreSQL's words: "no recovery target specified". */
  readonly reason: string;
}

/**
 * Which timeline each position belongs to, as seen from one timeline. Timeline 1, which has no
 * history file, has no ancestors.
 */
export interface TimelineHistory {
  readonly timeline: number;
  /** Oldest first, timelines ascending, ends not descending. */
  readonly ancestors: readonly TimelineSwitch[];
}

const TIMELINE_MAX = 0xffff_ffff;
const ENTRY = /^\s*([0-9]{1,10})\s+([0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})(?:\s([^]*))?$/;
const BLANK_OR_COMMENT = /^\s*(#|$)/;

/**
 * Reads the text of the history file of `timeline`. Throws FormatError, with the line's number, for
 * what PostgreSQL refuses, and for what it never writes: a file without entries, a last line
 * without an end.
 *
 * @source readTimeLineHistory, src/backend/access/transam/timeline.c
 */
export function parseTimelineHistory(text: string, timeline: number): TimelineHistory {
  const ancestors: TimelineSwitch[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (BLANK_OR_COMMENT.test(line)) continue;
    const entry = parseEntry(line, index + 1);
    requireOrder(entry, { before: ancestors.at(-1), timeline, lineNumber: index + 1 });
    ancestors.push(entry);
  }
  if (ancestors.length === 0) {
    throw new FormatError(`history of timeline ${timeline} has no entries`);
  }
  if (!text.endsWith("\n")) {
    throw new FormatError(
      `history of timeline ${timeline} is cut off: it ends with ${JSON.stringify(text.slice(-20))}`,
    );
  }
  return { timeline, ancestors: ancestorsOf(ancestors) };
}

/**
 * What the lines of a history mean where an end lies before an earlier one. PostgreSQL writes such
 * a line when a recovery ends before the fork of the timeline that it was to follow: that one is
 * named all the same, and an older one was left there. Gives every position the timeline that
 * PostgreSQL gives it, which looks from the last line on.
 *
 * @source StartupXLOG, src/backend/access/transam/xlog.c: the parent is recoveryTargetTLI;
 * tliOfPointInHistory, timeline.c
 */
function ancestorsOf(lines: readonly TimelineSwitch[]): readonly TimelineSwitch[] {
  const ancestors: TimelineSwitch[] = [];
  let left: Pick<TimelineSwitch, "endLsn" | "reason"> | undefined;
  for (const [index, { timeline, endLsn, reason }] of [...lines.entries()].toReversed()) {
    if (left === undefined || endLsn <= left.endLsn) left = { endLsn, reason };
    // It begins where the line before ends.
    const beginLsn = lines[index - 1]?.endLsn ?? 0n;
    if (beginLsn <= left.endLsn) ancestors.unshift({ timeline, ...left });
  }
  return ancestors;
}

/**
 * Writes a history file, byte for byte as PostgreSQL does: an empty line stands between entries.
 *
 * @source writeTimeLineHistory, src/backend/access/transam/timeline.c
 */
export function formatTimelineHistory(history: TimelineHistory): string {
  return history.ancestors
    .map(({ timeline, endLsn, reason }) => `${timeline}\t${formatLsn(endLsn)}\t${reason}\n`)
    .join("\n");
}

/**
 * The timeline that the byte at `position` belongs to, on the way to `history.timeline`. A position
 * where one timeline ends belongs to the next.
 *
 * @source tliOfPointInHistory, src/backend/access/transam/timeline.c
 */
export function timelineOf(history: TimelineHistory, position: Lsn): number {
  const ancestor = history.ancestors.find(({ endLsn }) => position < endLsn);
  return ancestor?.timeline ?? history.timeline;
}

/** Whether `timeline` is the history's own or one it descends from. @source tliInHistory */
export function isAncestor(history: TimelineHistory, timeline: number): boolean {
  return (
    timeline === history.timeline ||
    history.ancestors.some((ancestor) => ancestor.timeline === timeline)
  );
}

/**
 * Where `timeline` was left on the way to `history.timeline`; undefined when it is the history's
 * own (it has no end yet) or none of its ancestors.
 *
 * @source tliSwitchPoint, src/backend/access/transam/timeline.c
 */
export function switchPoint(history: TimelineHistory, timeline: number): Lsn | undefined {
  return history.ancestors.find((ancestor) => ancestor.timeline === timeline)?.endLsn;
}

/**
 * Whether WAL of `timeline` up to `end` (exclusive) is part of the history: a backup that ended
 * there can be replayed to `history.timeline`.
 */
export function isOnHistory(history: TimelineHistory, timeline: number, end: Lsn): boolean {
  if (timeline === history.timeline) return true;
  const left = switchPoint(history, timeline);
  return left !== undefined && end <= left;
}

function parseEntry(line: string, lineNumber: number): TimelineSwitch {
  const [, timelineText = "", lsnText = "", reason = ""] = ENTRY.exec(line) ?? [];
  const timeline = Number(timelineText);
  if (timeline === 0 || timeline > TIMELINE_MAX) {
    throw new FormatError(
      `line ${lineNumber} of a timeline history is not "timeline, LSN, reason": ` +
        JSON.stringify(line.slice(0, 80)),
    );
  }
  return { timeline, endLsn: parseLsn(lsnText), reason };
}

interface Place {
  readonly before: TimelineSwitch | undefined;
  /** Whose history it is. */
  readonly timeline: number;
  readonly lineNumber: number;
}

function requireOrder(entry: TimelineSwitch, { before, timeline, lineNumber }: Place): void {
  if (before !== undefined && entry.timeline <= before.timeline) {
    throw new FormatError(
      `line ${lineNumber} of a timeline history has timeline ${entry.timeline} ` +
        `after ${before.timeline}`,
    );
  }
  if (entry.timeline >= timeline) {
    throw new FormatError(
      `line ${lineNumber} of the history of timeline ${timeline} has timeline ${entry.timeline}`,
    );
  }
}
