import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, systemErrorCode } from "../errors.ts";
import { fileState } from "../io/file-state.ts";
import { describeProcess, isProcessAlive } from "../io/process-identity.ts";
import { localFileError } from "../io/system-error.ts";
import { type BackupLabel, parseBackupLabel } from "../postgres/backup-label.ts";
import type { Lsn } from "../postgres/lsn.ts";
import {
  isAncestor,
  parseTimelineHistory,
  type TimelineHistory,
} from "../postgres/timeline-history.ts";
import { formatSegmentName, parseWalFileName, segmentNumberOf } from "../postgres/wal-file.ts";
import { type ArchiveQueue, serverStart } from "./archive-status.ts";
import { readControlFile } from "./control-file.ts";

/**
 * One of them is there as long as a recovery asks for WAL.
 *
 * @source STANDBY_SIGNAL_FILE, RECOVERY_SIGNAL_FILE, src/include/access/xlog.h
 */
const SIGNAL_FILES = ["recovery.signal", "standby.signal"];

/** Whether the server, if one runs there, recovers from an archive or follows one. */
export function isRecovering({ dataDirectory }: ArchiveQueue): boolean {
  return SIGNAL_FILES.some((name) => existsSync(join(dataDirectory, name)));
}

/** Sees when a recovery is over, and when what it was begun with has changed. */
export class RecoveryWatch {
  readonly #queue: ArchiveQueue;
  readonly #configFile: string | undefined;
  readonly #start: string | undefined;
  readonly #process: string | undefined;
  readonly #config: string | undefined;

  static async begin(queue: ArchiveQueue, configFile?: string): Promise<RecoveryWatch> {
    const start = await serverStart(queue);
    const [pid] = start?.split(" ") ?? [];
    const process = pid === undefined ? undefined : describeProcess(pid);
    const config = configFile && fileState(configFile);
    return new RecoveryWatch(queue, { configFile, start, process, config });
  }

  private constructor(
    queue: ArchiveQueue,
    seen: Record<"configFile" | "start" | "process" | "config", string | undefined>,
  ) {
    this.#queue = queue;
    this.#configFile = seen.configFile;
    this.#start = seen.start;
    this.#process = seen.process;
    this.#config = seen.config;
  }

  /** Why nothing may be fetched for it any more; undefined while it goes on. */
  async endReason(): Promise<string | undefined> {
    const start = await serverStart(this.#queue);
    if (start === undefined || start !== this.#start) return "the server has ended";
    if (this.#process !== undefined && !isProcessAlive(this.#process)) return "the server is dead";
    if (!isRecovering(this.#queue)) return "recovery is over";
    const config = this.#configFile && fileState(this.#configFile);
    return config === this.#config ? undefined : "the settings have changed";
  }
}

/** In a data directory from a backup, until its recovery has read its first record. */
const BACKUP_LABEL = "backup_label";

/** Whether the data directory is from a backup and nothing has been replayed yet. */
export function isBackup({ dataDirectory }: ArchiveQueue): boolean {
  return existsSync(join(dataDirectory, BACKUP_LABEL));
}

/**
 * The segment before the one that a recovery from a backup asks for first; undefined once that
 * goes on without backup_label. Rejects with LocalFileError and FormatError where the label or
 * pg_control don't tell.
 *
 * @source InitWalRecovery, src/backend/access/transam/xlogrecovery.c (StartupXLOG before 15)
 */
export async function readSegmentBefore(queue: ArchiveQueue): Promise<string | undefined> {
  const label = await readLabel(queue);
  if (label === undefined) return undefined;
  const { walSegmentBytes } = await readControlFile(queue.dataDirectory);
  const first = segmentNumberOf(label.checkpointLsn, walSegmentBytes);
  return formatSegmentName(label.startTimeline, first - 1n, walSegmentBytes);
}

/**
 * The checkpoint that a recovery begins with. Rejects with LocalFileError and FormatError where
 * backup_label or pg_control don't tell.
 */
export async function readFirstCheckpoint(
  queue: ArchiveQueue,
): Promise<{ readonly timeline: number; readonly checkpointLsn: Lsn }> {
  const label = await readLabel(queue);
  if (label === undefined) return await readControlFile(queue.dataDirectory);
  return { timeline: label.startTimeline, checkpointLsn: label.checkpointLsn };
}

async function readLabel({ dataDirectory }: ArchiveQueue): Promise<BackupLabel | undefined> {
  const path = join(dataDirectory, BACKUP_LABEL);
  try {
    return parseBackupLabel(await readFile(path, "utf8"));
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw error instanceof FormatError ? error : localFileError("read", path, error);
  }
}

/**
 * The history that recovery follows, coming from `timeline`: PostgreSQL keeps the file of its
 * target in pg_wal before it asks for the first segment. Undefined if there is none, or none that
 * can be read.
 *
 * @source readTimeLineHistory, src/backend/access/transam/timeline.c
 */
export async function readTargetHistory(
  { walDirectory }: ArchiveQueue,
  timeline: number,
): Promise<TimelineHistory | undefined> {
  try {
    const names = (await readdir(walDirectory)).filter((name) => name.endsWith(".history"));
    for (const name of names.toSorted().toReversed()) {
      const file = parseWalFileName(name);
      if (file?.kind !== "history" || file.timeline <= timeline) continue;
      const text = await readFile(join(walDirectory, name), "utf8");
      const history = parseTimelineHistory(text, file.timeline);
      if (isAncestor(history, timeline)) return history;
    }
  } catch (error) {
    if (!(error instanceof FormatError) && systemErrorCode(error) === undefined) throw error;
  }
  return undefined;
}
