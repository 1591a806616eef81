import { readCatalogue } from "../catalogue/catalogue.ts";
import { readCollisions } from "../catalogue/collisions.ts";
import { CommitFinder } from "../catalogue/commit-finder.ts";
import {
  type KindSize,
  type RepositoryInfo,
  summarizeRepository,
} from "../catalogue/repository-info.ts";
import { repositoryOwner } from "../catalogue/repository-owner.ts";
import { reportTimelines } from "../catalogue/timeline-report.ts";
import { walView } from "../catalogue/wal-view.ts";
import type { Config } from "../config/config.ts";
import { OperationError } from "../errors.ts";
import { formatJson } from "../layout/json.ts";
import { formatTimeUtc, timeMsOf, type TimeNs, timeNsOf } from "../layout/time.ts";
import { formatLsn } from "../postgres/lsn.ts";
import type { Command, Context } from "./command.ts";
import { indentJson } from "./indented-json.ts";
import {
  allWarnings,
  infoJson,
  policyRules,
  type ServerAnswer,
  type ShownInfo,
} from "./info-json.ts";
import { mirrorText, readMirrorStatuses } from "./mirror-status.ts";
import { formatBytes, formatSeconds } from "./progress.ts";
import { requirePositionals } from "./words.ts";

interface InfoArguments {
  readonly isJson: boolean;
  readonly isOffline: boolean;
}

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
    await using storage = await context.openStorage("alive");
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
      const owner = await repositoryOwner(storage, catalogue, { signal });
      const query = { catalogue, owner, view, report, collisions, server, nowNs };
      const state = summarizeRepository(query);
      const mirrors = await readMirrorStatuses(storage);
      const unseen = storage.unseen ?? [];
      const shown = { state, server, config, mirrors, unseen, nowNs };
      await context.write(
        isJson ? `${indentJson(formatJson(infoJson(shown)), "  ")}\n` : toText(shown),
      );
    } finally {
      context.progress.end();
      await finder.close();
    }
  },
};

async function askServer({ config, signal }: Context): Promise<ServerAnswer> {
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

function toText(shown: ShownInfo): string {
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

function serverText(server: ServerAnswer): string {
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
