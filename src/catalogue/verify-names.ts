import { RefusedError } from "../errors.ts";
import { sentinelKey, walKey } from "../layout/keys.ts";
import { formatHistoryName, formatSegmentName } from "../postgres/wal-file.ts";
import { type Catalogue, lostHistories } from "./catalogue.ts";
import { chainOf, CIRCLE } from "./chain.ts";
import type { Finding } from "./finding.ts";
import { missingText } from "./missing-text.ts";
import { countGivenUp } from "./timeline-report.ts";
import type { TimelinePlan } from "./wal-windows.ts";
import { runLength, type WalView } from "./wal-view.ts";

/**
 * What the names alone tell: bases, segments and histories that are missing, or are none.
 * Throws RefusedError where there is no backup and no WAL: a wrong prefix looks like that.
 */
export function judgeNames(
  catalogue: Catalogue,
  plans: readonly TimelinePlan[],
  view: WalView,
): readonly Finding[] {
  requireContent(catalogue);
  return [
    ...catalogue.histories.flatMap(({ key, problem }): readonly Finding[] =>
      problem === undefined ? [] : [{ kind: "damaged", subject: key, text: problem }],
    ),
    ...missingHistories(catalogue),
    ...brokenChains(catalogue),
    ...plans.flatMap((plan) => [...missingWal(plan, view), ...holes(plan, catalogue, view)]),
  ];
}

function requireContent({ backups, wal, histories, storageName }: Catalogue): void {
  if (backups.length > 0 || wal.count > 0 || histories.length > 0) return;
  throw new RefusedError(`there is no backup and no WAL in ${storageName}`, {
    hint:
      "Are the store and its prefix the right ones? If they are, nothing was stored yet, or all of " +
      "it is lost: `walnut st sync --restore` brings it back if a mirror has it, else take a base " +
      "backup now.",
  });
}

function missingHistories(catalogue: Catalogue): readonly Finding[] {
  return lostHistories(catalogue).map((timeline) => ({
    kind: "missing",
    subject: walKey(formatHistoryName(timeline), ""),
    text:
      "there is WAL of its timeline, which no recovery from before finds without it; " +
      "`walnut backfill` on the server that has the file brings it",
  }));
}

function brokenChains({ backups }: Catalogue): readonly Finding[] {
  const byName = new Map(backups.map((backup) => [backup.name, backup]));
  return backups.flatMap((backup): readonly Finding[] => {
    const { name, baseName } = backup;
    if (baseName === undefined || baseName === "") return [];
    if (!byName.has(baseName)) {
      const text = "it is the base of a backup";
      return [{ kind: "missing", subject: baseName, text, backup: name }];
    }
    if (chainOf({ byName }, backup).at(-1) !== CIRCLE) return [];
    return [{ kind: "damaged", subject: sentinelKey(name), text: CIRCLE }];
  });
}

function missingWal({ backups }: TimelinePlan, view: WalView): readonly Finding[] {
  return backups.flatMap(({ name, missing }) =>
    missing.map((run): Finding => {
      const text = `${missingText(runLength(run))} that it needs to become consistent`;
      return { kind: "missing", subject: rangeText(run, view), text, backup: name };
    }),
  );
}

function holes(plan: TimelinePlan, catalogue: Catalogue, view: WalView): readonly Finding[] {
  return plan.holes.map((hole): Finding => {
    const givenUpCount = countGivenUp(hole, catalogue, view);
    const subject = rangeText(hole, view);
    const count = missingText(runLength(hole));
    if (givenUpCount > 0) {
      const text = `${count}, ${givenUpCount} given up by the queue policy`;
      return { kind: "hole", subject, text };
    }
    return hole.isIntended
      ? { kind: "note", subject, text: `${count}, as retention leaves it` }
      : { kind: "hole", subject, text: `${count}: what follows can't be reached from before` };
  });
}

function rangeText(
  { timeline, first, last }: { timeline: number; first: number; last: number },
  { segmentBytes }: WalView,
): string {
  const [one, other] = [first, last].map((number) =>
    formatSegmentName(timeline, BigInt(number), segmentBytes),
  );
  return one === other ? `${one}` : `${one} to ${other}`;
}
