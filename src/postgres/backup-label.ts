import { FormatError } from "../errors.ts";
import { formatLsn, type Lsn, parseLsn } from "./lsn.ts";

/**
 * The content of backup_label, which tells recovery where to begin.
 *
 * @source build_backup_content, src/backend/access/transam/xlogbackup.c (15 on);
 *   do_pg_start_backup, src/backend/access/transam/xlog.c (13 and 14)
 */
export interface BackupLabel {
  readonly startLsn: Lsn;
  /** The segment of `startLsn`, which recovery needs first. */
  readonly startSegment: string;
  readonly checkpointLsn: Lsn;
  /** "streamed" for all backups that we can make. */
  readonly method: string;
  /** 13 calls a primary "master". */
  readonly from: "primary" | "master" | "standby";
  /** In log_timezone: "2026-08-21 20:02:35 UTC". For people only. */
  readonly startTime: string;
  /** What was given to pg_backup_start; may hold newlines. */
  readonly label: string;
  readonly startTimeline: number;
  /** Only in an increment made by the server itself, from 17 on. */
  readonly incrementalFrom?: { readonly lsn: Lsn; readonly timeline: number };
}

/**
 * The content of a .backup file in the WAL archive: the label again, and where the backup ended.
 */
export interface BackupHistory extends BackupLabel {
  readonly stopLsn: Lsn;
  readonly stopSegment: string;
  readonly stopTime: string;
  readonly stopTimeline: number;
}

/** The label is greedy: it may hold lines that look like those behind it. */
const BACKUP_CONTENT = new RegExp(
  [
    "^START WAL LOCATION: (?<startLsn>LSN) \\(file (?<startSegment>[0-9A-F]{24})\\)\n",
    "(?:STOP WAL LOCATION: (?<stopLsn>LSN) \\(file (?<stopSegment>[0-9A-F]{24})\\)\n)?",
    "CHECKPOINT LOCATION: (?<checkpointLsn>LSN)\n",
    "BACKUP METHOD: (?<method>[^\n]*)\n",
    "BACKUP FROM: (?<from>primary|master|standby)\n",
    "START TIME: (?<startTime>[^\n]*)\n",
    "LABEL: (?<label>[^]*)\n",
    "START TIMELINE: (?<startTimeline>TIMELINE)\n",
    "(?:STOP TIME: (?<stopTime>[^\n]*)\nSTOP TIMELINE: (?<stopTimeline>TIMELINE)\n)?",
    "(?:INCREMENTAL FROM LSN: (?<baseLsn>LSN)\n",
    "INCREMENTAL FROM TLI: (?<baseTimeline>TIMELINE)\n)?$",
  ]
    .join("")
    .replaceAll("LSN)", "[0-9A-F]{1,8}/[0-9A-F]{1,8})")
    .replaceAll("TIMELINE)", "[1-9][0-9]{0,9})"),
);

type Fields = Readonly<Record<string, string | undefined>>;

/** Reads backup_label. Throws FormatError when a line is missing, unknown or out of order. */
export function parseBackupLabel(text: string): BackupLabel {
  const fields = matchContent(text, "backup_label");
  if (fields["stopLsn"] !== undefined || fields["stopTime"] !== undefined) {
    throw new FormatError("not a backup_label: it tells where the backup stopped");
  }
  return labelOf(fields);
}

/** Reads a .backup file of the WAL archive. Throws FormatError like `parseBackupLabel`. */
export function parseBackupHistory(text: string): BackupHistory {
  const fields = matchContent(text, ".backup file");
  const { stopLsn, stopSegment, stopTime, stopTimeline } = fields;
  if (
    stopLsn === undefined ||
    stopSegment === undefined ||
    stopTime === undefined ||
    stopTimeline === undefined
  ) {
    throw new FormatError("not a .backup file: it does not tell where the backup stopped");
  }
  return {
    ...labelOf(fields),
    stopLsn: parseLsn(stopLsn),
    stopSegment,
    stopTime,
    stopTimeline: Number(stopTimeline),
  };
}

/** Writes backup_label, byte for byte as the server does. */
export function formatBackupLabel(label: BackupLabel): string {
  return [startLine(label), bodyOf(label), baseOf(label)].join("");
}

/** Writes a .backup file, byte for byte as the server does. */
export function formatBackupHistory(history: BackupHistory): string {
  return [
    startLine(history),
    `STOP WAL LOCATION: ${formatLsn(history.stopLsn)} (file ${history.stopSegment})\n`,
    bodyOf(history),
    `STOP TIME: ${history.stopTime}\nSTOP TIMELINE: ${history.stopTimeline}\n`,
    baseOf(history),
  ].join("");
}

function matchContent(text: string, what: string): Fields {
  const fields: Fields | undefined = BACKUP_CONTENT.exec(text)?.groups;
  if (fields === undefined) {
    throw new FormatError(`not a ${what}: ${JSON.stringify(text.slice(0, 100))}`);
  }
  return fields;
}

function labelOf(fields: Fields): BackupLabel {
  const text = (name: string) => fields[name] ?? "";
  const { baseLsn, baseTimeline, from } = fields;
  const label = {
    startLsn: parseLsn(text("startLsn")),
    startSegment: text("startSegment"),
    checkpointLsn: parseLsn(text("checkpointLsn")),
    method: text("method"),
    from: from === "master" || from === "standby" ? from : "primary",
    startTime: text("startTime"),
    label: text("label"),
    startTimeline: Number(text("startTimeline")),
  } as const;
  if (baseLsn === undefined) return label;
  return {
    ...label,
    incrementalFrom: { lsn: parseLsn(baseLsn), timeline: Number(baseTimeline) },
  };
}

function startLine({ startLsn, startSegment }: BackupLabel): string {
  return `START WAL LOCATION: ${formatLsn(startLsn)} (file ${startSegment})\n`;
}

function bodyOf(label: BackupLabel): string {
  return (
    `CHECKPOINT LOCATION: ${formatLsn(label.checkpointLsn)}\n` +
    `BACKUP METHOD: ${label.method}\n` +
    `BACKUP FROM: ${label.from}\n` +
    `START TIME: ${label.startTime}\n` +
    `LABEL: ${label.label}\n` +
    `START TIMELINE: ${label.startTimeline}\n`
  );
}

function baseOf({ incrementalFrom }: BackupLabel): string {
  if (incrementalFrom === undefined) return "";
  const { lsn, timeline } = incrementalFrom;
  return `INCREMENTAL FROM LSN: ${formatLsn(lsn)}\nINCREMENTAL FROM TLI: ${timeline}\n`;
}
