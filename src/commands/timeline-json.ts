import type { PlacedTime, TimelineReport } from "../catalogue/timeline-report.ts";
import type { CommitPoint } from "../catalogue/commit-scan.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { formatTimeUtc, type TimeNs } from "../layout/time.ts";
import { formatLsn } from "../postgres/lsn.ts";

/** Version of what `timeline --json` prints; see docs/verify.md. */
const SCHEMA = 1n;

/** The report as JSON, for `--json` and for the page. */
export function timelineJson(report: TimelineReport): JsonObject {
  return jsonObject([
    ["schema", SCHEMA],
    ["storage", report.storageName],
    ["system_identifier", report.systemId?.toString()],
    ["segment_bytes", BigInt(report.segmentBytes)],
    [
      "timelines",
      report.timelines.map((timeline) =>
        jsonObject([
          ["timeline", BigInt(timeline.timeline)],
          ["parent", timeline.parentTimeline === 0 ? null : BigInt(timeline.parentTimeline)],
          ["fork_lsn", timeline.parentTimeline === 0 ? null : formatLsn(timeline.forkLsn)],
          ["history_lost", timeline.isHistoryLost],
          ["backups", timeline.backups.map(backupJson)],
          ["windows", timeline.windows.map(windowJson)],
          ["holes", timeline.holes.map(holeJson)],
          ["wal", timeline.runs.map(runJson)],
        ]),
      ),
    ],
  ]);
}

type Timeline = TimelineReport["timelines"][number];

function backupJson(backup: Timeline["backups"][number]): JsonObject {
  return jsonObject([
    ["name", backup.name],
    ["kind", backup.isIncrement ? "increment" : "full"],
    ["base", backup.baseName],
    ["start", placeJson(backup.start)],
    ["finish", placeJson(backup.finish)],
    ["permanent", backup.isPermanent],
    ["stored_bytes", big(backup.storedBytes)],
    ["content_bytes", big(backup.contentBytes)],
    ["problem", backup.problem],
  ]);
}

function windowJson(window: Timeline["windows"][number]): JsonObject {
  return jsonObject([
    ["from", placeJson(window.from)],
    ["to", placeJson(window.to)],
    ["last_xid", big(window.lastXid)],
    ["has_commit", window.commitIsKnown],
    ["segments", BigInt(window.segmentCount)],
    ["backups", window.backups],
    ["end", window.end],
  ]);
}

function holeJson(hole: Timeline["holes"][number]): JsonObject {
  return jsonObject([
    ["first_segment", hole.firstSegment],
    ["last_segment", hole.lastSegment],
    ["segments", BigInt(hole.segmentCount)],
    ["start_lsn", formatLsn(hole.startLsn)],
    ["end_lsn", formatLsn(hole.endLsn)],
    ["last_commit_before", commitJson(hole.after)],
    ["first_commit_behind", commitJson(hole.before)],
    ["intended", hole.isIntended],
    ["given_up", BigInt(hole.givenUpCount)],
  ]);
}

function runJson(run: Timeline["runs"][number]): JsonObject {
  return jsonObject([
    ["first_segment", run.firstSegment],
    ["last_segment", run.lastSegment],
    ["segments", BigInt(run.segmentCount)],
    ["start_lsn", formatLsn(run.startLsn)],
    ["end_lsn", formatLsn(run.endLsn)],
  ]);
}

function placeJson({ lsn, timeNs }: PlacedTime): JsonObject {
  return jsonObject([
    ["lsn", formatLsn(lsn)],
    ["time", timeText(timeNs)],
  ]);
}

/** A commit with its place. */
export function commitJson(commit: CommitPoint | undefined): JsonObject | undefined {
  if (commit === undefined) return undefined;
  return jsonObject([
    ["lsn", formatLsn(commit.lsn)],
    ["time", timeText(commit.timeNs)],
    ["xid", BigInt(commit.xid)],
  ]);
}

function timeText(timeNs: TimeNs | undefined): string | null {
  return timeNs === undefined ? null : formatTimeUtc(timeNs);
}

function big(value: number | undefined): bigint | undefined {
  return value === undefined ? undefined : BigInt(value);
}
