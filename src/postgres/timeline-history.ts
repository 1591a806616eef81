import { FormatError } from "../errors.ts";
import { type Lsn, parseLsn } from "./lsn.ts";

/** One ancestor of a timeline, and where its successor left it. */
export interface TimelineSwitch {
  readonly timeline: number;
  /** The successor's WAL begins here. */
  readonly switchLsn: Lsn;
}

const LINE = /^\s*(\d{1,10})\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)(?:\s|$)/;

/**
 * Reads the content of `timeline`'s history file: its ancestors, oldest first. Throws FormatError,
 * with the line's number, for what PostgreSQL would refuse.
 *
 * @source readTimeLineHistory, src/backend/access/transam/timeline.c
 */
export function parseTimelineHistory(text: string, timeline: number): readonly TimelineSwitch[] {
  const switches: TimelineSwitch[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    const match = LINE.exec(line);
    if (match === null) {
      throw new FormatError(
        `line ${index + 1} of a timeline history is not "timeline, LSN, reason": ` +
          JSON.stringify(line.slice(0, 80)),
      );
    }
    const ancestor = Number(match[1]);
    const previous = switches.at(-1)?.timeline ?? 0;
    if (ancestor <= previous) {
      throw new FormatError(
        `line ${index + 1} of a timeline history has timeline ${ancestor} after ${previous}`,
      );
    }
    if (ancestor >= timeline) {
      throw new FormatError(
        `line ${index + 1} of the history of timeline ${timeline} has timeline ${ancestor}`,
      );
    }
    switches.push({ timeline: ancestor, switchLsn: parseLsn(match[2] ?? "") });
  }
  return switches;
}
