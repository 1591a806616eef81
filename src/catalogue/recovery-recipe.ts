import { confLine, plainRestoreCommand, shellCommand, shellWord } from "../archive/setup-lines.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import type { TimelinePlan } from "./wal-windows.ts";

/** How to restore to just before a record. */
export interface RecoveryRecipe {
  readonly backup: BackupName;
  readonly timeline: number;
  readonly lsn: Lsn;
}

/**
 * The newest backup that is consistent before `lsn` and from which the WAL up to there is archived;
 * undefined if there is none.
 */
export function planRecovery(
  plan: TimelinePlan | undefined,
  backups: readonly { readonly name: BackupName; readonly finishLsn?: bigint | undefined }[],
  lsn: Lsn,
): RecoveryRecipe | undefined {
  const window = plan?.windows.find(({ fromLsn, endLsn }) => fromLsn <= lsn && lsn < endLsn);
  const finishes = new Map(backups.map(({ name, finishLsn }) => [name, finishLsn]));
  const usable = (window?.backups ?? []).filter((name) => {
    const finishLsn = finishes.get(name);
    return finishLsn !== undefined && finishLsn <= lsn;
  });
  const backup = usable.at(-1);
  return plan === undefined || backup === undefined
    ? undefined
    : { backup, timeline: plan.timeline, lsn };
}

/**
 * PostgreSQL's settings for it; `program` are the words that start walnut. The server that they
 * make archives nothing: it may stand beside the one that it is a copy of, and a timeline of its
 * own in the archive would be the newest, which every later recovery follows.
 */
export function recoverySettings(
  { timeline, lsn }: RecoveryRecipe,
  program: readonly string[],
): readonly (readonly [name: string, value: string])[] {
  return [
    ["restore_command", plainRestoreCommand(program)],
    ["recovery_target_lsn", formatLsn(lsn)],
    ["recovery_target_inclusive", "false"],
    ["recovery_target_timeline", String(timeline)],
    ["recovery_target_action", "promote"],
    ["archive_mode", "off"],
  ];
}

/** Commands for a POSIX shell that restore into `directory`. */
export function recoveryCommands(
  recipe: RecoveryRecipe,
  program: readonly string[],
  directory: string,
): readonly string[] {
  const place = shellWord(directory);
  const lines = recoverySettings(recipe, program).map(([name, value]) => confLine(name, value));
  return [
    `${shellCommand(program)} backup-fetch ${place} ${recipe.backup}`,
    `cat >> ${place}/postgresql.auto.conf <<'WALNUT'`,
    ...lines,
    "WALNUT",
    `touch ${place}/recovery.signal`,
    "# It archives nothing, as befits a copy beside the original. If it is to take the original's",
    "# place, leave archive_mode out: the archive goes on with its timeline, and so will recoveries.",
  ];
}
