import { isIncrement } from "../catalogue/chain.ts";
import type { RepositoryInfo, ServerState } from "../catalogue/repository-info.ts";
import type { Config } from "../config/config.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { formatTimeUtc, timeMsOf, type TimeNs } from "../layout/time.ts";
import { formatLsn } from "../postgres/lsn.ts";
import { type MirrorStatus, mirrorJson, mirrorWarnings } from "./mirror-status.ts";

/** Version of what `info --json` prints; see docs/info-schema.md. */
const SCHEMA = 1n;

/** Undefined where the server was not asked. */
export type ServerAnswer = ServerState | { readonly problem: string } | undefined;

/** What the screen shows, as text or as JSON. */
export interface ShownInfo {
  readonly state: RepositoryInfo;
  readonly server: ServerAnswer;
  readonly config: Config;
  readonly mirrors: readonly MirrorStatus[];
  /** Names of storages that do not answer. */
  readonly unseen: readonly string[];
  readonly nowNs: TimeNs;
}

/** Of the storages that are away, of the repository, and of its mirrors. */
export function allWarnings({
  state,
  mirrors,
  unseen,
  nowNs,
}: ShownInfo): readonly { readonly code: string; readonly text: string }[] {
  return [
    ...unseen.map((name) => ({
      code: "storage-away",
      text: `storage ${name} does not answer: what it alone holds is not seen, and may be called missing here`,
    })),
    ...state.warnings,
    ...mirrors.flatMap((mirror) => mirrorWarnings(mirror, timeMsOf(nowNs))),
  ];
}

/** The screen as JSON. */
export function infoJson(shown: ShownInfo): JsonObject {
  const { state, server, config, mirrors, nowNs } = shown;
  const { lastBackup, restorableTo, sizes } = state;
  const rules = policyRules(config);
  return jsonObject([
    ["schema", SCHEMA],
    ["time", formatTimeUtc(nowNs)],
    ["store", state.storageName],
    ["storages_away", shown.unseen],
    ["mirrors", mirrors.map((one) => mirrorJson(one, timeMsOf(nowNs)))],
    ["cluster", clusterJson(state)],
    ["server", serverJson(server)],
    ["backup_count", BigInt(state.backupCount)],
    [
      "last_backup",
      lastBackup === undefined
        ? null
        : jsonObject([
            ["name", lastBackup.name],
            ["kind", isIncrement(lastBackup) ? "increment" : "full"],
            ["finish_time", timeJson(lastBackup.finishTimeNs)],
            ["age_seconds", ageJson(lastBackup.finishTimeNs, nowNs)],
          ]),
    ],
    ["last_segment", state.lastSegment ?? null],
    ["archived_lsn", state.archivedLsn === undefined ? null : formatLsn(state.archivedLsn)],
    ["lag_bytes", big(state.lagBytes)],
    [
      "restorable_to",
      restorableTo === undefined
        ? null
        : jsonObject([
            ["lsn", formatLsn(restorableTo.lsn)],
            ["time", timeJson(restorableTo.timeNs)],
            ["age_seconds", ageJson(restorableTo.timeNs, nowNs)],
          ]),
    ],
    [
      "sizes",
      jsonObject(
        Object.entries(sizes).map(([kind, { objects, bytes }]) => [
          kind,
          jsonObject([
            ["objects", BigInt(objects)],
            ["bytes", BigInt(bytes)],
          ]),
        ]),
      ),
    ],
    ["policy", jsonObject(rules.map(([name, value]) => [name, BigInt(value)]))],
    [
      "warnings",
      allWarnings(shown).map(({ code, text: what }) =>
        jsonObject([
          ["code", code],
          ["text", what],
        ]),
      ),
    ],
  ]);
}

function clusterJson(state: RepositoryInfo): JsonObject {
  return jsonObject([
    ["system_identifier", state.systemId?.toString() ?? null],
    ["pg_version", big(state.pgVersion)],
    ["segment_bytes", BigInt(state.segmentBytes)],
    ["timeline", big(state.timeline)],
  ]);
}

function serverJson(server: ServerAnswer): JsonObject | null {
  if (server === undefined) return null;
  if ("problem" in server) return jsonObject([["problem", server.problem]]);
  return jsonObject([
    ["pg_version", BigInt(server.versionNumber)],
    ["timeline", BigInt(server.timeline)],
    ["lsn", formatLsn(server.lsn)],
    ["in_recovery", server.isInRecovery],
    ["archiving", server.isArchiving],
    ["archiver_failing", server.isArchiverFailing],
  ]);
}

function timeJson(timeNs: TimeNs | undefined): string | null {
  return timeNs === undefined ? null : formatTimeUtc(timeNs);
}

function ageJson(timeNs: TimeNs | undefined, nowNs: TimeNs): bigint | null {
  return timeNs === undefined ? null : (nowNs - timeNs) / 1_000_000_000n;
}

function big(value: number | undefined): bigint | null {
  return value === undefined ? null : BigInt(value);
}

/** The rules of `walnut expire` that are set. */
export function policyRules({ retention }: Config): readonly (readonly [string, number])[] {
  const pairs = [
    ["fulls", retention.fullCount],
    ["window_days", retention.windowDays],
    ["pitr_days", retention.pitrDays],
    ["daily", retention.daily],
    ["weekly", retention.weekly],
    ["monthly", retention.monthly],
    ["yearly", retention.yearly],
  ] as const;
  return pairs.flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
}
