import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import { segmentSets } from "../catalogue/segment-set.ts";
import type { RetentionPlan } from "./plan.ts";
import { isSound } from "./policy.ts";
import type { Survey } from "./survey.ts";
import { byEnd, wayToNewest } from "./wholeness.ts";

/** As a listing would show the repository when the plan is carried out. */
export function surveyAfter({ survey, backups, wal }: RetentionPlan): Survey {
  const kept = backups.filter(({ isKept }) => isKept).map(({ backup }) => backup);
  return {
    ...survey,
    byName: new Map(kept.map((backup) => [backup.name, backup])),
    sets: segmentSets(survey.catalogue.wal, survey.segmentBytes, (row) => wal.isKept(row)),
  };
}

/**
 * The backup since whose end every time can be restored to when the plan is carried out, as far as
 * names show: of those from which replay comes to the archive's end on the newest timeline the one
 * that ended first. Undefined where there is none, or the newest timeline's history is not known.
 */
export function recoveryStart(plan: RetentionPlan): CatalogueBackup | undefined {
  const after = surveyAfter(plan);
  if (!after.histories.has(after.timelines.at(-1) ?? 1)) return undefined;
  const leading = [...after.byName.values()].filter((backup) => {
    const way = isSound(after, backup) ? wayToNewest(after, backup) : undefined;
    return way !== undefined && way.hole === undefined;
  });
  return leading.toSorted(byEnd)[0];
}
