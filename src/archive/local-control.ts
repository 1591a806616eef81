import { readFile, readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FormatError, LocalFileError, RefusedError, systemErrorCode } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import {
  isAncestor,
  parseTimelineHistory,
  type TimelineHistory,
} from "../postgres/timeline-history.ts";
import { formatHistoryName, parseWalFileName } from "../postgres/wal-file.ts";
import { queueIn } from "./archive-status.ts";
import { readControlFile } from "./control-file.ts";
import { isRecovering } from "./recovery-watch.ts";

const NOT_OURS = new Set(["ENOENT", "ENOTDIR", "EACCES", "EPERM"]);

/**
 * What pg_control of a data directory says; undefined where there is none or we may not read it.
 * Rejects with LocalFileError when it stays damaged.
 */
export async function readLocalControl(dataDirectory: string): Promise<PgControl | undefined> {
  try {
    return await readControlFile(dataDirectory);
  } catch (error) {
    const cause = error instanceof LocalFileError ? error.cause : undefined;
    if (NOT_OURS.has(systemErrorCode(cause) ?? "")) return undefined;
    throw error;
  }
}

/** The same where nothing can be done without it. Rejects with RefusedError, too. */
export async function requireLocalControl(dataDirectory: string): Promise<PgControl> {
  const control = await readLocalControl(dataDirectory);
  if (control !== undefined) return control;
  throw new RefusedError(`${dataDirectory} has no global/pg_control that we may read`, {
    hint: "Name the server's data directory, and run this as its owner, usually postgres.",
  });
}

/**
 * The histories that stand in a pg_wal, newest timeline first. What can't be read as one is left
 * out.
 */
export async function listLocalHistories(
  walDirectory: string,
): Promise<readonly TimelineHistory[]> {
  const entries = await readdir(walDirectory).catch((error: unknown) => {
    throw localFileError("list", walDirectory, error);
  });
  const histories: TimelineHistory[] = [];
  for (const entry of entries.toSorted().toReversed()) {
    if (parseWalFileName(entry)?.kind !== "history") continue;
    const history = await readLocalHistory(walDirectory, Number.parseInt(entry.slice(0, 8), 16));
    if (history !== undefined) histories.push(history);
  }
  return histories;
}

/** Undefined when there is no such file, or none that can be read as a history. */
export async function readLocalHistory(
  walDirectory: string,
  timeline: number,
): Promise<TimelineHistory | undefined> {
  const path = join(walDirectory, formatHistoryName(timeline));
  try {
    return parseTimelineHistory(await readFile(path, "utf8"), timeline);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT" || error instanceof FormatError) return undefined;
    throw localFileError("read", path, error);
  }
}

/** Whether one of the histories says that `timeline` was left for a newer one. */
export function isLeft(histories: readonly TimelineHistory[], timeline: number): boolean {
  return histories.some((history) => history.timeline > timeline && isAncestor(history, timeline));
}

/**
 * Whether the server of a data directory recovers from an archive, or follows another one. One that
 * was copied while it ran, or crashed as a primary, replays its own WAL first, and its archiver
 * runs meanwhile with archive_mode = always.
 *
 * @source StartupXLOG, xlog.c (PMSIGNAL_RECOVERY_STARTED); SwitchIntoArchiveRecovery
 */
export function isStandby({ state }: Pick<PgControl, "state">, dataDirectory: string): boolean {
  if (state === "in archive recovery" || state === "shut down in recovery") return true;
  return state === "in crash recovery" && isRecovering(queueIn(dataDirectory));
}

/** Whether the timeline's WAL is made elsewhere: this data directory only has copies of it. */
export async function isFollower(
  { state }: Pick<PgControl, "state">,
  walDirectory: string,
  timeline: number,
): Promise<boolean> {
  if (isStandby({ state }, dirname(walDirectory))) return true;
  return isLeft(await listLocalHistories(walDirectory), timeline);
}
