import { compareBackups, type UnfinishedBackup } from "../catalogue/catalogue.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { parseMergeClaim } from "../layout/keys.ts";
import { type TimeNs, timeNsOf } from "../layout/time.ts";
import type { Survey } from "./survey.ts";

const NS_PER_MS = 1_000_000n;

/** What decides about folders without sentinel. */
export interface AbandonRules {
  /** From when ages of backups are counted: see `soberNow`. */
  readonly nowNs: TimeNs;
  /** By this machine's clock, as merges put it into their claims. */
  readonly clockNs: TimeNs;
  /** How long ago a later backup must have begun. */
  readonly abandonedAfterMs: number;
  /** Backups whose removal an earlier run decided. */
  readonly removing: ReadonlySet<BackupName>;
}

export interface JudgedUnfinished {
  readonly unfinished: UnfinishedBackup;
  readonly isKept: boolean;
  /** Whether it may be a backup that is being taken. */
  readonly mayBeRunning: boolean;
  readonly reason: string;
}

/**
 * Tells what an interrupted backup left from one that is being taken right now. No object's time is
 * asked: who copies a repository changes those. What counts is where a backup began, by its name,
 * and when others began, by their own record.
 */
export function judgeUnfinished(
  survey: Survey,
  unfinished: UnfinishedBackup,
  rules: AbandonRules,
): JudgedUnfinished {
  const { backups } = survey.catalogue;
  const remove = (reason: string) => ({ unfinished, isKept: false, mayBeRunning: false, reason });
  const abandonedNs = BigInt(Math.ceil(rules.abandonedAfterMs)) * NS_PER_MS;
  const limitNs = rules.nowNs - abandonedNs;
  const mergeStartNs = mergeStartOf(unfinished);
  if (mergeStartNs !== undefined && mergeStartNs > rules.clockNs - abandonedNs) {
    const reason = "a chain may be being merged into it right now";
    return { unfinished, isKept: true, mayBeRunning: true, reason };
  }
  if (rules.removing.has(unfinished.name)) return remove("its removal was begun before");

  if (isDescribed(unfinished)) {
    // All it lacks is the sentinel, which somebody may have taken away and may bring back.
    const oldest = backups.find(({ isPermanent }) => !isPermanent);
    return oldest !== undefined && compareBackups(unfinished, oldest) < 0
      ? remove(`it has no sentinel, and is older than the oldest backup, ${oldest.name}`)
      : {
          unfinished,
          isKept: true,
          mayBeRunning: true,
          reason: "it lacks nothing but its sentinel, which may come any moment",
        };
  }
  const later = backups.find(
    (backup) =>
      compareBackups(backup, unfinished) > 0 &&
      backup.startTimeNs !== undefined &&
      backup.startTimeNs <= limitNs,
  );
  return later === undefined
    ? { unfinished, isKept: true, mayBeRunning: true, reason: "it may be being taken right now" }
    : remove(`it was never finished, and ${later.name} began later and long ago`);
}

/** When the last merge into this folder began, by its own record; undefined where there is none. */
export function mergeStartOf({ folder }: UnfinishedBackup): TimeNs | undefined {
  let newest: TimeNs | undefined;
  for (const key of folder.relativeKeys()) {
    const startedMs = parseMergeClaim(key);
    if (startedMs === undefined) continue;
    const startNs = timeNsOf(startedMs);
    if (newest === undefined || startNs > newest) newest = startNs;
  }
  return newest;
}

/** Documents are written after all parts. */
function isDescribed({ folder }: UnfinishedBackup): boolean {
  return (
    folder.has("metadata.json") &&
    (folder.has("files_metadata.json") || folder.has("walnut_manifest.jsonl.zst"))
  );
}
