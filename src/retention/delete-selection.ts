import { namesHint } from "../backup/catalogue.ts";
import { type CatalogueBackup, compareBackups } from "../catalogue/catalogue.ts";
import { chainOf } from "../catalogue/chain.ts";
import { FormatError, RefusedError, UsageError } from "../errors.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { isJsonEqual, type JsonValue } from "../layout/json-value.ts";
import { BACKUPS_FOLDER, sentinelKey } from "../layout/keys.ts";
import { parseTime, type TimeNs } from "../layout/time.ts";
import { isFull, isSound } from "./policy.ts";
import { Reasons, type Selection, WHOLE_SCOPE } from "./selection.ts";
import type { Survey } from "./survey.ts";

/** Which backup a name, a time or a count comes to. WAL-G's words. */
export type FullModifier = "FULL" | "FIND_FULL";

/** What `delete` was asked for. */
export type DeleteRequest =
  | {
      readonly kind: "retain";
      readonly count: number;
      readonly modifier?: FullModifier | undefined;
      /** Name prefix or RFC 3339: nothing from there on is removed. */
      readonly after?: string | undefined;
    }
  | {
      readonly kind: "before";
      /** Name prefix or RFC 3339. */
      readonly target: string;
      readonly modifier?: "FIND_FULL" | undefined;
    }
  | { readonly kind: "everything"; readonly isForced: boolean }
  | {
      readonly kind: "target";
      readonly choice: TargetChoice;
      /** The whole family of increments on the same full backup. */
      readonly isFamily: boolean;
    }
  | {
      readonly kind: "garbage";
      readonly scope: "all" | "archives" | "backups";
      readonly isBackupCheckLeftOut: boolean;
    };

export type TargetChoice =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "latest" }
  | { readonly kind: "user-data"; readonly value: JsonValue };

export interface DeleteRules {
  readonly nowNs: TimeNs;
  /** Order by recorded start instead of by timeline and position. */
  readonly isByTime: boolean;
}

/** Undefined: there is no backup before which anything could be removed. */
export function selectForDelete(
  survey: Survey,
  request: DeleteRequest,
  rules: DeleteRules,
): Selection | undefined {
  const { kind } = request;
  if (kind === "retain") return selectFrom(survey, retainTarget(survey, request, rules), rules);
  if (kind === "before") return selectFrom(survey, beforeTarget(survey, request, rules), rules);
  if (kind === "everything") return selectNothing(survey, request.isForced);
  if (kind === "target") return selectAllBut(survey, targetFamily(survey, request));
  return selectAll(survey, request);
}

/** Newest last. */
function ordered(
  { catalogue: { backups } }: Survey,
  { isByTime }: DeleteRules,
): readonly CatalogueBackup[] {
  if (!isByTime || backups.some(({ startTimeNs }) => startTimeNs === undefined)) return backups;
  return backups.toSorted((one, other) => {
    const difference = (one.startTimeNs ?? 0n) - (other.startTimeNs ?? 0n);
    return difference === 0n ? compareBackups(one, other) : difference < 0n ? -1 : 1;
  });
}

function retainTarget(
  survey: Survey,
  request: DeleteRequest & { readonly kind: "retain" },
  rules: DeleteRules,
): CatalogueBackup | undefined {
  const { count, modifier, after } = request;
  const backups = ordered(survey, rules);
  const newestFirst = backups.toReversed();
  const counted = modifier === "FULL" ? newestFirst.filter(isFull) : newestFirst;
  const start = counted.slice(count - 1);
  const target = modifier === "FIND_FULL" ? start.find(isFull) : start[0];
  if (target !== undefined) requireFull(target);
  if (after === undefined || target === undefined) return target;
  const limit = afterTarget(backups, after, { modifier, rules });
  return limit !== undefined && backups.indexOf(limit) < backups.indexOf(target) ? limit : target;
}

function afterTarget(
  backups: readonly CatalogueBackup[],
  after: string,
  { modifier, rules }: { readonly modifier: FullModifier | undefined; readonly rules: DeleteRules },
): CatalogueBackup | undefined {
  const timeNs = timeOf(after);
  const found =
    timeNs === undefined
      ? backups.find(({ name }) => name.startsWith(after))
      : backups.find((backup) => createdAt(backup, rules) >= timeNs);
  if (found === undefined && timeNs === undefined) throw unknownName(after);
  if (found === undefined || modifier === undefined || isFull(found)) return found;
  return backups.slice(0, backups.indexOf(found)).findLast(isFull);
}

function beforeTarget(
  survey: Survey,
  { target, modifier }: DeleteRequest & { readonly kind: "before" },
  rules: DeleteRules,
): CatalogueBackup | undefined {
  const backups = ordered(survey, rules);
  const timeNs = timeOf(target);
  if (timeNs !== undefined && timeNs > rules.nowNs) {
    throw new UsageError(`the time ${target} is in the future`);
  }
  const found =
    timeNs === undefined
      ? backups.findLast(({ name }) => name.startsWith(target))
      : backups.find((backup) => createdAt(backup, rules) >= timeNs);
  if (found === undefined && timeNs === undefined) throw unknownName(target);
  if (found === undefined || modifier === undefined) {
    if (found !== undefined) requireFull(found);
    return found;
  }
  return backups.slice(0, backups.indexOf(found) + 1).findLast(isFull);
}

/** A time, or undefined for the beginning of a name. */
function timeOf(text: string): TimeNs | undefined {
  if (!/^\d{4}-\d\d-\d\dT/.test(text)) return undefined;
  try {
    return parseTime(text);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new UsageError(error.message, {
      hint: "Write 2026-11-21T14:03:00Z or ...+01:00. Nothing was removed.",
      cause: error,
    });
  }
}

/** WAL-G's lists, from which users take times, show whole seconds. */
function createdAt(backup: CatalogueBackup, { isByTime }: DeleteRules): TimeNs {
  const { startTimeNs, finishTimeNs } = backup;
  return isByTime ? (startTimeNs ?? -1n) : finishedAt({ startTimeNs, finishTimeNs });
}

function finishedAt({
  finishTimeNs,
  startTimeNs,
}: Pick<CatalogueBackup, "finishTimeNs" | "startTimeNs">): TimeNs {
  return finishTimeNs ?? startTimeNs ?? -1n;
}

function unknownName(name: string): RefusedError {
  const time = /^\d{4}-\d/.test(name) ? " A time is written 2026-11-21T14:03:00Z." : "";
  return new RefusedError(`backup ${name} was not found`, {
    hint: `\`walnut backup-list\` shows all names.${time} Nothing was removed.`,
  });
}

function requireFull(backup: CatalogueBackup): void {
  if (isFull(backup)) return;
  throw new RefusedError(
    `${sentinelKey(backup.name).slice(BACKUPS_FOLDER.length)} is incremental and it's predecessors ` +
      "cannot be deleted. Consider FIND_FULL option.",
    { hint: "Nothing was removed." },
  );
}

/** Everything from the target on stays, with all WAL from there. */
function selectFrom(
  survey: Survey,
  target: CatalogueBackup | undefined,
  rules: DeleteRules,
): Selection | undefined {
  if (target === undefined) return undefined;
  const backups = ordered(survey, rules);
  const at = backups.indexOf(target);
  const reasons = new Reasons();
  const kept = backups.slice(at);
  for (const backup of kept) {
    reasons.add(backup, backup === target ? "the target" : `not older than ${target.name}`);
  }
  const clean = lastSound(survey, backups);
  if (clean !== undefined && !kept.some((backup) => isSound(survey, backup))) {
    reasons.add(clean, "the last backup without known damage");
  }
  return { kept: reasons.all, replayFrom: replayOf(backups, reasons), scope: WHOLE_SCOPE };
}

function lastSound(
  survey: Survey,
  backups: readonly CatalogueBackup[],
): CatalogueBackup | undefined {
  return backups.findLast((backup) => isSound(survey, backup));
}

function replayOf(
  backups: readonly CatalogueBackup[],
  reasons: Reasons,
): ReadonlyMap<BackupName, string> {
  const kept = backups.filter((backup) => reasons.has(backup));
  return new Map(
    kept.map(({ name }) => [name, `WAL for point-in-time recovery since ${name}`] as const),
  );
}

function selectNothing(survey: Survey, isForced: boolean): Selection {
  const { backups } = survey.catalogue;
  const permanent = backups.filter(({ isPermanent }) => isPermanent);
  if (permanent.length > 0 && !isForced) {
    const names = permanent.map(({ name }) => name).join(" ");
    throw new RefusedError(`Found permanent backups=[${names}]`, {
      hint: "Nothing was removed. `delete everything FORCE` removes permanent backups, too.",
    });
  }
  const scope = { ...WHOLE_SCOPE, isForced: true, hasRunning: isForced };
  const named = new Set(backups.map(({ name }) => name));
  return { kept: new Map(), replayFrom: new Map(), scope, named };
}

function targetFamily(
  survey: Survey,
  { choice, isFamily }: DeleteRequest & { readonly kind: "target" },
): ReadonlySet<CatalogueBackup> {
  const target = chosen(survey, choice);
  const root = isFamily
    ? chainOf(survey, target).findLast((one) => typeof one !== "string")
    : target;
  const family = new Set(
    survey.catalogue.backups.filter((backup) => chainOf(survey, backup).includes(root ?? target)),
  );
  for (const { name, isPermanent } of family) {
    if (!isPermanent) continue;
    throw new RefusedError(`Unable to delete permanent backup ${sentinelKey(name)}`, {
      hint: "Nothing was removed. `walnut backup-mark --impermanent NAME` makes it impermanent.",
    });
  }
  return family;
}

function chosen({ catalogue }: Survey, choice: TargetChoice): CatalogueBackup {
  const { backups } = catalogue;
  const [match, second] =
    choice.kind === "name"
      ? backups.filter(({ name }) => name === choice.name)
      : choice.kind === "latest"
        ? latest(backups)
        : backups.filter(
            ({ userData }) => userData !== undefined && isJsonEqual(userData, choice.value),
          );
  if (match === undefined) {
    const names = backups.map(({ name }) => name);
    const hint = names.length === 0 ? "There is no backup." : namesHint(names);
    throw new RefusedError("Requested backup was not found", {
      hint: `${hint} Nothing was removed.`,
    });
  }
  if (second !== undefined) {
    throw new RefusedError(`several backups have this user data: ${match.name}, ${second.name}`, {
      hint: "Choose one by its name. Nothing was removed.",
    });
  }
  return match;
}

/** As backup-list has it last: by recorded end. */
function latest(backups: readonly CatalogueBackup[]): readonly CatalogueBackup[] {
  return backups
    .toSorted((one, other) => {
      const difference = finishedAt(one) - finishedAt(other);
      return difference === 0n ? (one.name < other.name ? -1 : 1) : difference < 0n ? -1 : 1;
    })
    .slice(-1);
}

function selectAllBut(survey: Survey, family: ReadonlySet<CatalogueBackup>): Selection {
  const reasons = new Reasons();
  for (const backup of survey.catalogue.backups) {
    if (!family.has(backup)) reasons.add(backup, "not named");
  }
  return {
    kept: reasons.all,
    replayFrom: new Map(),
    scope: { hasBackups: true, hasUnfinished: false, hasWal: false },
    named: new Set([...family].map(({ name }) => name)),
  };
}

/** All backups stay; what no backup needs goes. Undefined if there is nothing to measure by. */
function selectAll(
  survey: Survey,
  { scope, isBackupCheckLeftOut }: DeleteRequest & { readonly kind: "garbage" },
): Selection | undefined {
  const { backups } = survey.catalogue;
  const measured = backups.filter(({ isPermanent }) => !isPermanent);
  if (measured.length === 0 && !isBackupCheckLeftOut) return undefined;
  const reasons = new Reasons();
  for (const backup of backups) reasons.add(backup, "garbage only is asked for");
  const replayFrom = measured.map(
    ({ name }) => [name, `WAL for point-in-time recovery since ${name}`] as const,
  );
  return {
    kept: reasons.all,
    replayFrom: new Map(replayFrom),
    scope: {
      hasBackups: false,
      hasUnfinished: scope !== "archives",
      hasWal: scope !== "backups",
      isBare: measured.length === 0,
    },
  };
}
