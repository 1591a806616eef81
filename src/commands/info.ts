import { readCatalogue } from "../catalogue/catalogue.ts";
import { readCollisions } from "../catalogue/collisions.ts";
import { isIncrement } from "../catalogue/chain.ts";
import { CommitFinder } from "../catalogue/commit-finder.ts";
import {
  type KindSize,
  type RepositoryInfo,
  type ServerState,
  summarizeRepository,
} from "../catalogue/repository-info.ts";
import { reportTimelines } from "../catalogue/timeline-report.ts";
import { walView } from "../catalogue/wal-view.ts";
import type { Config } from "../config/config.ts";
import { OperationError } from "../errors.ts";
import { formatJson } from "../layout/json.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { formatTimeUtc, timeMsOf, type TimeNs, timeNsOf } from "../layout/time.ts";
import { formatLsn } from "../postgres/lsn.ts";
import type { Command, Context } from "./command.ts";
import { indentJson } from "./indented-json.ts";
import {
  type MirrorStatus,
  mirrorJson,
  mirrorText,
  mirrorWarnings,
  readMirrorStatuses,
} from "./mirror-status.ts";
import { formatBytes, formatSeconds } from "./progress.ts";
import { requirePositionals } from "./words.ts";

interface InfoArguments {
  readonly isJson: boolean;
  readonly isOffline: boolean;
}

/** Version of what `info --json` prints; see docs/info-schema.md. */
const SCHEMA = 1n;
/** For a server that does not answer: the screen is about the repository. */
const SERVER_TIMEOUT_MS = 10_000;

/** `walnut info` */
export const info: Command<InfoArguments> = {
  name: "info",
  usage: "info [--offline] [--json]",
  summary: "Show the state of everything on one screen.",
  details:
    "The cluster, the last backup, the last segment, how far the archive is behind the server, to " +
    "when a restore can go, how much is stored, the policy, and what somebody should look at.\n\n" +
    "The exit code is 0 also with warnings: `walnut verify` is the check. docs/info-schema.md " +
    "describes --json.",
  flags: [
    { name: "offline", text: "Do not ask the server." },
    { name: "json", text: "One JSON object." },
  ],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    return { isJson: words.has("json"), isOffline: words.has("offline") };
  },

  async run({ isJson, isOffline }, context) {
    const { config, clock, signal } = context;
    await using storage = await context.openStorage();
    const catalogue = await readCatalogue(storage, { signal });
    const view = walView(catalogue);
    let doneBytes = 0;
    const onBytes = (count: number): void => {
      doneBytes += count;
      context.progress.update({ activity: "reading commits", doneBytes });
    };
    const { downloadConcurrency: jobs, codecJobs } = config;
    const options = { jobs, codecJobs, signal, onBytes };
    const finder = await CommitFinder.open(storage, { catalogue, view }, options);
    try {
      const report = await reportTimelines({ catalogue, view, finder });
      context.progress.end();
      const server = isOffline ? undefined : await askServer(context);
      const nowNs = timeNsOf(clock.now());
      const collisions = await readCollisions(storage, catalogue.ownKeys, { signal });
      const query = { catalogue, view, report, collisions, server, nowNs };
      const state = summarizeRepository(query);
      const mirrors = await readMirrorStatuses(storage);
      const shown = { state, server, config, mirrors, nowNs };
      await context.write(isJson ? toJson(shown) : toText(shown));
    } finally {
      context.progress.end();
      await finder.close();
    }
  },
};

type Server = ServerState | { readonly problem: string } | undefined;

async function askServer({ config, signal }: Context): Promise<Server> {
  const [
    { connectPostgres },
    { readServerFacts },
    { readArchiverHealth, readWalPosition },
    { isReceiving, readSlotRow },
  ] = await Promise.all([
    import("../connection/connect.ts"),
    import("../connection/server-facts.ts"),
    import("../connection/wal-position.ts"),
    import("../connection/slot.ts"),
  ]);
  const limit = AbortSignal.any([signal, AbortSignal.timeout(SERVER_TIMEOUT_MS)]);
  try {
    await using session = await connectPostgres(config.postgres, { signal: limit });
    const facts = await readServerFacts(session, { signal: limit });
    const position = await readWalPosition(session, { signal: limit });
    const archiver = await readArchiverHealth(session, { signal: limit });
    const { slot } = config.receive;
    const row = await readSlotRow(session, slot, { signal: limit });
    return {
      ...position,
      systemId: facts.systemId,
      versionNumber: facts.versionNumber,
      isInRecovery: facts.isInRecovery,
      isArchiving: archiver.isArchiving,
      receiver:
        row?.isPhysical === true
          ? { ...row, slot, isReceiving: isReceiving(row), storedLsn: row.flushLsn }
          : undefined,
      isArchiverFailing: archiver.isFailing,
      lastFailedWal: archiver.lastFailedWal,
      lastFailedAt: archiver.lastFailedAt,
    };
  } catch (error) {
    signal.throwIfAborted();
    if (limit.aborted) return { problem: `no answer within ${SERVER_TIMEOUT_MS / 1000} s` };
    if (error instanceof OperationError) {
      return { problem: error.message };
    }
    throw error;
  }
}

interface Shown {
  readonly state: RepositoryInfo;
  readonly server: Server;
  readonly config: Config;
  readonly mirrors: readonly MirrorStatus[];
  readonly nowNs: TimeNs;
}

function allWarnings({
  state,
  mirrors,
  nowNs,
}: Shown): readonly { readonly code: string; readonly text: string }[] {
  return [
    ...state.warnings,
    ...mirrors.flatMap((mirror) => mirrorWarnings(mirror, timeMsOf(nowNs))),
  ];
}

function toText(shown: Shown): string {
  const { state, server, config, mirrors, nowNs } = shown;
  const { sizes, lastBackup, restorableTo } = state;
  const lines: (readonly [name: string, value: string])[] = [
    ["store", state.storageName],
    ...mirrors.map((one) => ["mirror", mirrorText(one, timeMsOf(nowNs))] as const),
    ["cluster", clusterText(state)],
    ["server", serverText(server)],
    [
      "last backup",
      lastBackup === undefined
        ? "none"
        : `${lastBackup.name}${ageText(lastBackup.finishTimeNs, nowNs)}`,
    ],
    [
      "backups",
      `${state.backupCount}: ${sizeText("full", sizes.full)}, ${sizeText("increments", sizes.increments)}`,
    ],
    ["WAL", `${sizeText("objects", sizes.wal)}; last segment ${state.lastSegment ?? "none"}`],
    ["lag", lagText(state)],
    [
      "restorable to",
      restorableTo === undefined
        ? "nothing"
        : `${formatLsn(restorableTo.lsn)}${ageText(restorableTo.timeNs, nowNs)}`,
    ],
    ["policy", policyText(config)],
  ];
  const width = Math.max(...lines.map(([name]) => name.length));
  const body = lines.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join("");
  const warnings = allWarnings(shown)
    .map(({ text }) => `WARNING: ${text}\n`)
    .join("");
  return `${body}${warnings === "" ? "nothing to look at\n" : warnings}`;
}

function clusterText({ systemId, pgVersion, segmentBytes, timeline }: RepositoryInfo): string {
  const version = pgVersion === undefined ? "" : `, PostgreSQL ${Math.trunc(pgVersion / 10_000)}`;
  const line = timeline === undefined ? "" : `, timeline ${timeline}`;
  return `${systemId ?? "unknown"}${version}${line}, segments of ${formatBytes(segmentBytes)}`;
}

function serverText(server: Server): string {
  if (server === undefined) return "not asked";
  if ("problem" in server) return "not reached";
  const role = server.isInRecovery ? "standby" : "primary";
  return `${role} at ${formatLsn(server.lsn)}, timeline ${server.timeline}`;
}

function ageText(timeNs: TimeNs | undefined, nowNs: TimeNs): string {
  if (timeNs === undefined) return "";
  const seconds = Math.max(0, timeMsOf(nowNs - timeNs) / 1000);
  return `, ${formatTimeUtc(timeNs)} (${formatSeconds(seconds)} ago)`;
}

function sizeText(name: string, { objects, bytes }: KindSize): string {
  return name === "objects"
    ? `${objects} objects, ${formatBytes(bytes)}`
    : `${name} ${formatBytes(bytes)}`;
}

function lagText({ lagBytes, segmentBytes }: RepositoryInfo): string {
  if (lagBytes === undefined) return "unknown";
  return `${formatBytes(lagBytes)}, ${Math.floor(lagBytes / segmentBytes)} whole segments`;
}

function policyText(config: Config): string {
  const rules = policyRules(config).map(([name, value]) => `${name} ${value}`);
  return rules.length === 0 ? "none: nothing is removed by itself" : rules.join(", ");
}

function policyRules({ retention }: Config): readonly (readonly [string, number])[] {
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

function toJson(shown: Shown): string {
  const { state, server, config, mirrors, nowNs } = shown;
  const { lastBackup, restorableTo, sizes } = state;
  const rules = policyRules(config);
  const text = formatJson(
    jsonObject([
      ["schema", SCHEMA],
      ["time", formatTimeUtc(nowNs)],
      ["store", state.storageName],
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
    ]),
  );
  return `${indentJson(text, "  ")}\n`;
}

function clusterJson(state: RepositoryInfo): JsonObject {
  return jsonObject([
    ["system_identifier", state.systemId?.toString() ?? null],
    ["pg_version", big(state.pgVersion)],
    ["segment_bytes", BigInt(state.segmentBytes)],
    ["timeline", big(state.timeline)],
  ]);
}

function serverJson(server: Server): JsonObject | null {
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
