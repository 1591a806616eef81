import { formatJson } from "../layout/json.ts";
import { jsonObject, type JsonObject } from "../layout/json-value.ts";
import { formatTimeUtc } from "../layout/time.ts";
import { recoveryStart } from "./after-plan.ts";
import type { RetentionPlan } from "./plan.ts";

/** Objects of WAL in a row, in the order of their keys, with which the same happens. */
export interface WalRun {
  readonly timeline: number;
  /** Names of segments, both included. */
  readonly first: string;
  readonly last: string;
  readonly objectCount: number;
  readonly sizeBytes: number;
  /** Why they stay; undefined when they go. */
  readonly reason: string | undefined;
}

/** All objects of the WAL folder that are named after a segment, as few runs as that takes. */
export function* walRuns({ survey, wal }: RetentionPlan): Generator<WalRun> {
  const rows = survey.catalogue.wal;
  let start = 0;
  let sizeBytes = 0;
  for (let row = 0; row < rows.count; row += 1) {
    sizeBytes += rows.sizeAt(row);
    const reason = wal.reasonAt(row);
    const next = row + 1;
    const isSame =
      next < rows.count &&
      rows.timelineAt(next) === rows.timelineAt(row) &&
      wal.reasonAt(next) === reason;
    if (isSame) continue;
    yield {
      timeline: rows.timelineAt(row),
      first: rows.segmentNameAt(start),
      last: rows.segmentNameAt(row),
      objectCount: next - start,
      sizeBytes,
      reason,
    };
    start = next;
    sizeBytes = 0;
  }
}

/**
 * A line for each backup, each folder without sentinel, and each run of WAL; the last one says
 * since when every time can be restored to.
 */
export function formatPlanTable(plan: RetentionPlan): string {
  const lines: string[] = [];
  for (const { backup, isKept, reasons } of plan.backups) {
    const time = backup.finishTimeNs === undefined ? "-" : formatTimeUtc(backup.finishTimeNs);
    lines.push(`${verb(isKept)} backup ${backup.name} ${time} ${why(reasons)}`);
  }
  for (const { unfinished, isKept, reason } of plan.unfinished) {
    lines.push(`${verb(isKept)} folder ${unfinished.name} - ${why([reason])}`);
  }
  for (const { first, last, objectCount, sizeBytes, reason } of walRuns(plan)) {
    const size = `${objectCount} objects, ${sizeBytes} bytes`;
    const reasons = reason === undefined ? [] : [reason];
    lines.push(`${verb(reason !== undefined)} wal    ${first}..${last} (${size}) ${why(reasons)}`);
  }
  for (const key of plan.removedKeys) lines.push(`remove object ${key} - ${why([])}`);
  lines.push(recoveryLine(plan));
  return lines.map((line) => `${line.trimEnd()}\n`).join("");
}

function recoveryLine(plan: RetentionPlan): string {
  const start = recoveryStart(plan);
  if (start === undefined) {
    return "after this no backup leads to the end of the archive: each can be restored to its own end";
  }
  const { name, finishTimeNs } = start;
  const time = finishTimeNs === undefined ? "" : ` (${formatTimeUtc(finishTimeNs)})`;
  return `after this every time since the end of ${name}${time} can be restored to`;
}

function verb(isKept: boolean): string {
  return isKept ? "keep  " : "remove";
}

function why(reasons: readonly string[]): string {
  return reasons.length === 0 ? "nothing keeps it" : reasons.join("; ");
}

/**
 * The same as one JSON object, of an empty plan if there is none; docs/retention.md describes its
 * members.
 */
export function formatPlanJson(plan?: RetentionPlan): string {
  const promise = plan?.selection.promise;
  return formatJson(
    jsonObject([
      ["version", 1n],
      [
        "promise",
        promise === undefined
          ? undefined
          : jsonObject([
              ["restorable_from", formatTimeUtc(promise.fromNs)],
              ["backup", promise.backup],
            ]),
      ],
      ["recovery", plan === undefined ? null : recoveryJson(plan)],
      ["backups", plan?.backups.map(toBackupJson) ?? []],
      ["unfinished", plan?.unfinished.map(toUnfinishedJson) ?? []],
      ["wal", plan === undefined ? [] : [...walRuns(plan)].map(toRunJson)],
      ["objects", plan?.removedKeys ?? []],
    ]),
  );
}

function recoveryJson(plan: RetentionPlan): JsonObject | null {
  const start = recoveryStart(plan);
  if (start === undefined) return null;
  const { name, finishTimeNs } = start;
  return jsonObject([
    ["since", finishTimeNs === undefined ? null : formatTimeUtc(finishTimeNs)],
    ["backup", name],
  ]);
}

function toUnfinishedJson({
  unfinished,
  isKept,
  reason,
}: RetentionPlan["unfinished"][number]): JsonObject {
  return jsonObject([
    ["name", unfinished.name],
    ["action", isKept ? "keep" : "remove"],
    ["reasons", [reason]],
  ]);
}

function toBackupJson({ backup, isKept, reasons }: RetentionPlan["backups"][number]): JsonObject {
  const { finishTimeNs } = backup;
  return jsonObject([
    ["name", backup.name],
    ["finish_time", finishTimeNs === undefined ? null : formatTimeUtc(finishTimeNs)],
    ["action", isKept ? "keep" : "remove"],
    ["reasons", reasons],
  ]);
}

function toRunJson({ timeline, first, last, objectCount, sizeBytes, reason }: WalRun): JsonObject {
  return jsonObject([
    ["timeline", BigInt(timeline)],
    ["first", first],
    ["last", last],
    ["objects", BigInt(objectCount)],
    ["bytes", BigInt(sizeBytes)],
    ["action", reason === undefined ? "remove" : "keep"],
    ["reasons", reason === undefined ? [] : [reason]],
  ]);
}
