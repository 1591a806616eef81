import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import { chainOf } from "../catalogue/chain.ts";
import { firstSegment } from "../catalogue/wal-line.ts";
import { type BackupName, parseBackupName } from "../layout/backup-name.ts";
import { parseWalKey } from "../layout/keys.ts";
import type { ObjectKey } from "../storage/storage.ts";
import { type ReplayStart, KeptWal } from "./kept-wal.ts";
import { ownKeysOfNothing } from "./own-objects.ts";
import { isSound } from "./policy.ts";
import { Reasons, type Selection } from "./selection.ts";
import type { Survey } from "./survey.ts";
import {
  type AbandonRules,
  judgeUnfinished,
  type JudgedUnfinished,
  mergeStartOf,
} from "./unfinished.ts";
import { decideWal, type WalDecisions } from "./wal-decisions.ts";
import { proofOfLoss, wayToNewest } from "./wholeness.ts";

/** What happens to one backup, and why. */
export interface PlannedBackup {
  readonly backup: CatalogueBackup;
  readonly isKept: boolean;
  /** Why it stays; empty when it goes. */
  readonly reasons: readonly string[];
}

/** What is kept and what is removed, each with its reason. Nothing else is ever touched. */
export interface RetentionPlan {
  readonly survey: Survey;
  readonly selection: Selection;
  /** By position. */
  readonly backups: readonly PlannedBackup[];
  readonly unfinished: readonly JudgedUnfinished[];
  /** For each object of the WAL folder that is named after a segment. */
  readonly wal: WalDecisions;
  /** WAL-G's notes of 16 segments, and our records of gaps, of which nothing is kept. */
  readonly removedKeys: readonly ObjectKey[];
  /** When everything goes: histories and our own objects, after all else. */
  readonly lastKeys: readonly ObjectKey[];
}

export interface PlanRules extends AbandonRules {
  /** Backups that stay whatever the selection says, with the reason: a legal hold, a lock. */
  readonly pins: ReadonlyMap<BackupName, string>;
  /** The same for objects of the WAL folder. */
  readonly heldWal: ReadonlyMap<ObjectKey, string>;
}

/**
 * Completes a selection: bases of what is kept, permanent and pinned backups, what a running backup
 * needs, and the WAL of all of them stay as well. Pure.
 */
export function planRetention(
  survey: Survey,
  selection: Selection,
  rules: PlanRules,
): RetentionPlan {
  const unfinished = judgeAll(survey, selection, rules);
  const way = findWayToNewest(survey, selection);
  const reasons = keptBackups(survey, selection, { rules, unfinished, way });
  const backups = survey.catalogue.backups.map((backup) => {
    const all = reasons.get(backup.name) ?? [];
    return { backup, isKept: all.length > 0, reasons: all };
  });
  const kept = keptWal(survey, selection, { backups, unfinished, way });
  const { hasWal, isForced } = selection.scope;
  const wal = decideWal(survey, { kept, isAsked: hasWal, held: rules.heldWal });
  // A timeline's number must not come again while anything of it is left.
  const isAllGone = isForced === true && ![...backups, ...unfinished].some((one) => one.isKept);
  const removedKeys = hasWal ? removedNotes(survey, wal, kept) : [];
  const named = new Set(removedKeys);
  return {
    survey,
    selection,
    backups,
    unfinished,
    wal,
    removedKeys,
    lastKeys: isAllGone ? keysOfNothing(survey).filter((key) => !named.has(key)) : [],
  };
}

function keysOfNothing({ catalogue }: Survey): readonly ObjectKey[] {
  return [...catalogue.histories.map(({ key }) => key), ...catalogue.ownKeys];
}

function judgeAll(
  survey: Survey,
  { scope }: Selection,
  rules: PlanRules,
): readonly JudgedUnfinished[] {
  return survey.catalogue.unfinished.map((unfinished) => {
    const judged = judgeUnfinished(survey, unfinished, rules);
    if (scope.hasRunning === true) {
      return { unfinished, isKept: false, mayBeRunning: false, reason: "everything goes" };
    }
    const isLeft = !judged.isKept && !scope.hasUnfinished;
    return isLeft ? { ...judged, isKept: true, reason: "leftovers are not asked for" } : judged;
  });
}

interface PlanParts {
  readonly rules: PlanRules;
  readonly unfinished: readonly JudgedUnfinished[];
  readonly way: WayKept;
}

/** Whether anything leads to the newest timeline, and what stays for that alone. */
interface WayKept {
  readonly isLed: boolean;
  readonly backup?: CatalogueBackup | undefined;
}

function keptBackups(
  survey: Survey,
  { kept, scope, named }: Selection,
  { rules, unfinished, way }: PlanParts,
): ReadonlyMap<BackupName, readonly string[]> {
  const reasons = new Reasons();
  for (const backup of survey.catalogue.backups) {
    if (!scope.hasBackups) reasons.add(backup, "backups are not asked for");
    for (const reason of kept.get(backup.name) ?? []) reasons.add(backup, reason);
    if (backup.isPermanent && scope.isForced !== true) reasons.add(backup, "permanent");
    const pin = rules.pins.get(backup.name);
    if (pin !== undefined) reasons.add(backup, pin);
  }
  if (scope.isForced !== true) {
    keepUnreadable(survey, reasons, named);
    if (way.backup !== undefined) reasons.add(way.backup, wayReason(survey));
    for (const judged of unfinished) if (judged.mayBeRunning) keepBases(survey, reasons, judged);
  }
  keepChains(survey, reasons);
  return reasons.all;
}

/** What it needs is not known, nor whether it is permanent; who wants it gone can name it. */
function keepUnreadable(
  survey: Survey,
  reasons: Reasons,
  named: ReadonlySet<BackupName> | undefined,
): void {
  for (const backup of survey.catalogue.backups) {
    if (backup.isReadable || named?.has(backup.name) === true) continue;
    reasons.add(backup, "its sentinel can't be read");
    const { baseSegment } = parseBackupName(backup.name);
    if (baseSegment !== undefined) keepSegment(survey, reasons, [baseSegment, backup.name]);
  }
}

/**
 * The timeline that is written now must not lose the last backup that leads to it: the one that
 * stays for that alone, if the selection keeps none from which replay gets as far.
 */
function findWayToNewest(survey: Survey, { replayFrom, scope }: Selection): WayKept {
  if (!scope.hasWal || scope.isForced === true || scope.isBare === true) return { isLed: true };
  const leading = survey.catalogue.backups.flatMap((backup) => {
    const way = wayToNewest(survey, backup);
    return way === undefined ? [] : [{ backup, endsAt: way.hole?.segmentNumber }];
  });
  const sound = leading.filter(({ backup }) => isSound(survey, backup));
  const choice = sound.length > 0 ? sound : leading;
  const last = choice.at(-1);
  const isReplayed = choice.some(
    ({ backup, endsAt }) => endsAt === last?.endsAt && replayFrom.has(backup.name),
  );
  return { isLed: last !== undefined, backup: isReplayed ? undefined : last?.backup };
}

function wayReason({ timelines }: Survey): string {
  return `the newest that leads to timeline ${timelines.at(-1) ?? 1}, the newest timeline`;
}

function keepBases(survey: Survey, reasons: Reasons, { unfinished }: JudgedUnfinished): void {
  const { baseSegment, name } = unfinished;
  if (baseSegment !== undefined) keepSegment(survey, reasons, [baseSegment, name]);
  if (mergeStartOf(unfinished) === undefined) return;
  const { segment } = parseBackupName(name);
  for (const backup of survey.catalogue.backups) {
    if (parseBackupName(backup.name).segment !== segment) continue;
    reasons.add(backup, `may be being merged into ${name}`);
  }
}

/** Increments name the segment of their base, not the base. */
function keepSegment(
  survey: Survey,
  reasons: Reasons,
  [baseSegment, increment]: readonly [baseSegment: string, increment: BackupName],
): void {
  for (const backup of survey.catalogue.backups) {
    if (parseBackupName(backup.name).segment !== baseSegment) continue;
    reasons.add(backup, `may be the base of ${increment}`);
  }
}

function keepChains(survey: Survey, reasons: Reasons): void {
  const kept = survey.catalogue.backups.filter((backup) => reasons.has(backup));
  for (const backup of kept) {
    let increment = backup;
    for (const base of chainOf(survey, backup).slice(1)) {
      if (typeof base === "string") break;
      reasons.add(base, `base of increment ${increment.name}`);
      increment = base;
    }
  }
}

function keptWal(
  survey: Survey,
  { replayFrom }: Selection,
  {
    backups,
    unfinished,
    way,
  }: Pick<RetentionPlan, "backups" | "unfinished"> & Pick<PlanParts, "way">,
): KeptWal {
  const wal = new KeptWal(survey);
  for (const { backup, isKept } of backups) {
    if (!isKept) continue;
    const reason =
      backup === way.backup
        ? `WAL for point-in-time recovery since ${backup.name}`
        : replayFrom.get(backup.name);
    if (reason !== undefined) wal.keepFrom(startOf(survey, backup, reason));
    wal.keepOwn(backup);
    const proof = proofOfLoss(survey, backup);
    if (proof !== undefined) wal.keepProof(backup, proof);
  }
  wal.keepForks(backups.flatMap(({ backup, isKept }) => (isKept ? [backup] : [])));
  for (const { unfinished: one, mayBeRunning, isKept } of unfinished) {
    if (!isKept || !mayBeRunning) continue;
    const segmentNumber = survey.nameSegment(one);
    const reason = `WAL for ${one.name}, which may be being taken`;
    const { timeline } = one;
    const consistent = { consistentLsn: 0n, consistentTimeline: timeline };
    wal.keepFrom({ timeline, segmentNumber, ...consistent, reason });
  }
  const newest = survey.timelines.at(-1);
  if (newest !== undefined && !way.isLed) {
    wal.keepTimeline(newest, `timeline ${newest} is the newest, and has no backup yet`);
  }
  return wal;
}

function startOf(survey: Survey, backup: CatalogueBackup, reason: string): ReplayStart {
  const { timeline, endTimeline = timeline, startLsn = 0n, finishLsn = startLsn } = backup;
  return {
    timeline,
    segmentNumber: firstSegment(survey, backup),
    consistentLsn: finishLsn,
    consistentTimeline: endTimeline,
    reason,
  };
}

/** What speaks of segments of which nothing is left goes with them. */
function removedNotes(survey: Survey, wal: WalDecisions, kept: KeptWal): readonly ObjectKey[] {
  const notes = survey.catalogue.noteKeys.filter((key) => {
    const group = (parseWalKey(key)?.name ?? "").replace(/\.json$/, "");
    return wal.groups.get(group) === "removed";
  });
  return [...notes, ...ownKeysOfNothing(survey, kept)];
}
