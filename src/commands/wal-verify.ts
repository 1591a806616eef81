import { listGapRecords } from "../archive/stored-gaps.ts";
import { findBackup, LATEST } from "../backup/catalogue.ts";
import {
  type Catalogue,
  type CatalogueBackup,
  lostHistories,
  readCatalogue,
} from "../catalogue/catalogue.ts";
import { repositoryOwner } from "../catalogue/repository-owner.ts";
import {
  checkIntegrity,
  checkTimeline,
  type CheckStatus,
  type StatusRun,
} from "../catalogue/wal-integrity.ts";
import { historyOf, runLength, type WalView, walView } from "../catalogue/wal-view.ts";
import {
  DatabaseError,
  FormatError,
  RefusedError,
  UnsoundError,
  UsageError,
  WrongClusterError,
} from "../errors.ts";
import { formatJson } from "../layout/json.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { type Lsn, lsn, parseLsn } from "../postgres/lsn.ts";
import { isOnHistory, type TimelineHistory } from "../postgres/timeline-history.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";
import type { Command, Context, Words } from "./command.ts";
import { formatBoxTable } from "./table.ts";
import { warnOfHistories } from "./wal-show.ts";

const CHECKS = ["integrity", "timeline"] as const;
type Check = (typeof CHECKS)[number];

interface Position {
  /** The server's; undefined where it was not asked. */
  readonly systemId?: bigint;
  readonly timeline: number;
  readonly lsn: Lsn;
}

interface WalVerifyArguments {
  readonly checks: ReadonlySet<Check>;
  readonly isJson: boolean;
  /** Undefined: the server is asked. */
  readonly position: Position | undefined;
  readonly backup: string | undefined;
}

interface CheckResult {
  readonly status: CheckStatus;
  readonly json: JsonObject;
  readonly text: string;
}

/** `walnut wal-verify integrity timeline` */
export const walVerify: Command<WalVerifyArguments> = {
  name: "wal-verify",
  usage: "wal-verify <integrity|timeline>... [--json] [--timeline <n> --lsn <lsn>]",
  summary: "Check by names that the archive has every segment, and the right timeline.",
  details:
    "integrity: every segment from the oldest backup that is not permanent to the server's current " +
    "one is there. timeline: no timeline in the archive is newer than the server's, and (else " +
    "WARNING) no history of one is lost.\n\n" +
    "FAILURE ends with an exit code of its own; WALNUT_WAL_VERIFY_EXIT_ZERO=true gives WAL-G's 0 " +
    "for it. Only names are looked at: `walnut verify` reads what the objects hold.",
  flags: [
    { name: "json", text: "One JSON object." },
    { name: "timeline", value: "<n>", text: "The server's timeline; needs --lsn." },
    {
      name: "lsn",
      value: "<lsn>",
      text: "The server's position; with --timeline it is not asked.",
    },
    { name: "backup-name", value: "<name>", text: "Check from this backup on, or LATEST." },
  ],
  needsConfig: true,

  parse(words) {
    const checks = words.positionals.map((word) => {
      const check = CHECKS.find((known) => known === word);
      if (check === undefined) throw new UsageError(`unknown check ${JSON.stringify(word)}`);
      return check;
    });
    if (checks.length === 0) {
      throw new UsageError("the check is missing", { hint: "integrity, timeline or both." });
    }
    return {
      checks: new Set(checks),
      isJson: words.has("json"),
      position: parsePosition(words),
      backup: words.value("backup-name"),
    };
  },

  async run({ checks, isJson, position, backup }, context) {
    const { log, signal } = context;
    const current = position ?? (await askServer(context));
    await using storage = await context.openStorage();
    const catalogue = await readCatalogue(storage, { signal });
    await requireOwnServer(storage, { catalogue, position: current, signal });
    warnOfHistories(catalogue, log);
    const view = walView(catalogue);
    const results = new Map<Check, CheckResult>();
    if (checks.has("integrity")) {
      const history = historyOf(view, current.timeline);
      const place = { storage, catalogue, history, signal };
      const fromLsn = await findStart(place, backup);
      const givenUp = await listGapRecords(storage, { signal });
      const found = { view, history, fromLsn, givenUp };
      results.set("integrity", integrityResult(found, current, context));
    }
    if (checks.has("timeline")) {
      results.set("timeline", timelineResult(view, current, lostHistories(catalogue)));
    }
    await context.write(isJson ? formatResults(results) : textOf(results));
    requireSound(results, context);
  },
};

function parsePosition(words: Words): Position | undefined {
  const [timelineText, lsnText] = [words.value("timeline"), words.value("lsn")];
  if (timelineText === undefined && lsnText === undefined) return undefined;
  if (timelineText === undefined || lsnText === undefined) {
    throw new UsageError("--timeline and --lsn need each other");
  }
  const timeline = Number(timelineText);
  if (!/^\d{1,10}$/.test(timelineText) || timeline < 1 || timeline > 0xffff_ffff) {
    throw new UsageError(`no timeline: ${JSON.stringify(timelineText)}`);
  }
  try {
    return { timeline, lsn: parseLsn(lsnText) };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new UsageError(error.message, { cause: error });
  }
}

async function askServer({ config, signal }: Context): Promise<Position> {
  const [{ connectPostgres }, { readWalPosition }] = await Promise.all([
    import("../connection/connect.ts"),
    import("../connection/wal-position.ts"),
  ]);
  try {
    await using session = await connectPostgres(config.postgres, { signal });
    return await readWalPosition(session, { signal });
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    const hint = `${error.hint ?? ""} Without it, say how far the WAL goes: --timeline N --lsn X/Y.`;
    throw new DatabaseError(error.message, { hint: hint.trimStart(), cause: error });
  }
}

/** Positions of another cluster's server say nothing about this archive. */
async function requireOwnServer(
  storage: Storage,
  {
    catalogue,
    position: { systemId },
    signal,
  }: {
    readonly catalogue: Catalogue;
    readonly position: Position;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  if (systemId === undefined) return;
  const owner = await repositoryOwner(storage, catalogue, { signal });
  if (owner === undefined || owner === systemId) return;
  throw new WrongClusterError(
    `the server is cluster ${systemId}, the repository ${storage.name} of cluster ${owner}`,
    {
      hint:
        "Check PGHOST, PGPORT and the storage prefix; pg_upgrade and initdb make a new cluster. For the " +
        "repository as it is, say how far the WAL goes: --timeline N --lsn X/Y.",
    },
  );
}

interface StartPlace {
  readonly storage: Storage;
  readonly catalogue: Catalogue;
  readonly history: TimelineHistory;
  readonly signal: AbortSignal;
}

/** Start of the earliest backup that has to be restorable, or of the one that was named. */
async function findStart(
  { storage, catalogue: { backups }, history, signal }: StartPlace,
  name: string | undefined,
): Promise<Lsn | undefined> {
  if (name !== undefined) {
    const choice =
      name === LATEST ? ({ kind: "latest" } as const) : ({ kind: "name", name } as const);
    const found = await findBackup(storage, choice, { signal });
    const start = backups.find((backup) => backup.name === found)?.startLsn;
    if (start === undefined) throw new RefusedError(`backup ${found} does not say where it begins`);
    return lsn(start);
  }
  const starts = backups
    .filter((backup) => isEligible(backup, history))
    .flatMap(({ startLsn }) => startLsn ?? []);
  const [earliest] = starts.toSorted((one, other) => (one < other ? -1 : 1));
  return earliest === undefined ? undefined : lsn(earliest);
}

function isEligible(backup: CatalogueBackup, history: TimelineHistory): boolean {
  const { startLsn, finishLsn = startLsn, timeline, isPermanent } = backup;
  if (isPermanent || finishLsn === undefined) return false;
  return isOnHistory(history, timeline, lsn(finishLsn));
}

interface Found {
  readonly view: WalView;
  readonly history: TimelineHistory;
  readonly fromLsn: Lsn | undefined;
  readonly givenUp: ReadonlySet<string>;
}

function integrityResult(
  { view, history, fromLsn, givenUp }: Found,
  current: Position,
  { config }: Context,
): CheckResult {
  const { status, runs } = checkIntegrity({
    ...view,
    history,
    currentLsn: current.lsn,
    fromLsn,
    givenUp,
    delayedMax: config.integrityMaxDelayedWals,
    uploadingMax: config.uploadConcurrency,
  });
  const rows = runs.map((run) => rowOf(run, view.segmentBytes));
  const columns = [
    { heading: "TLI", isNumber: true },
    { heading: "START" },
    { heading: "END" },
    { heading: "SEGMENTS COUNT", isNumber: true },
    { heading: "STATUS" },
  ];
  const table = formatBoxTable(
    columns,
    rows.map(({ timeline, start, end, count, status: state }) => [
      String(timeline),
      start,
      end,
      String(count),
      state,
    ]),
  );
  const details = rows.map(({ timeline, start, end, count, status: state }) =>
    jsonObject([
      ["timeline_id", BigInt(timeline)],
      ["start_segment", start],
      ["end_segment", end],
      ["segments_count", BigInt(count)],
      ["status", state],
    ]),
  );
  return {
    status,
    json: jsonObject([
      ["status", status],
      ["details", details.length === 0 ? null : details],
    ]),
    text: table,
  };
}

function rowOf(run: StatusRun, segmentBytes: number) {
  const { timeline, first, last, status } = run;
  return {
    timeline,
    start: formatSegmentName(timeline, BigInt(first), segmentBytes),
    end: formatSegmentName(timeline, BigInt(last), segmentBytes),
    count: runLength(run),
    status,
  };
}

function timelineResult(
  { timelines }: WalView,
  { timeline }: Position,
  lost: readonly number[],
): CheckResult {
  const { status, highestTimeline } = checkTimeline(timelines, timeline, lost);
  return {
    status,
    json: jsonObject([
      ["status", status],
      [
        "details",
        jsonObject([
          ["current_timeline_id", BigInt(timeline)],
          ["highest_storage_timeline_id", BigInt(highestTimeline)],
        ]),
      ],
    ]),
    text:
      `Highest timeline found in storage: ${highestTimeline}\n` +
      `Current cluster timeline: ${timeline}\n` +
      (lost.length === 0 ? "" : `Timelines whose history is lost: ${lost.join(", ")}\n`),
  };
}

function formatResults(results: ReadonlyMap<Check, CheckResult>): string {
  return formatJson(jsonObject([...results].map(([check, { json }]) => [check, json])));
}

function textOf(results: ReadonlyMap<Check, CheckResult>): string {
  return [...results]
    .map(
      ([check, { status, text }]) =>
        `[wal-verify] ${check} check status: ${status}\n` +
        `[wal-verify] ${check} check details:\n${text}`,
    )
    .join("");
}

const WAYS_OUT: Readonly<Record<Check, string>> = {
  integrity:
    "Take a new base backup now, so that what comes can be restored. Look for missing segments " +
    "in pg_wal of the server and its standbys; `walnut timeline` shows what can be restored.",
  timeline:
    "If the archive's timeline is higher, another server was promoted and archives here: see that " +
    "only one of the two is in use. If it is lower, nothing of the server's timeline was archived " +
    "yet: `walnut info` shows whether archiving works.",
};

function requireSound(results: ReadonlyMap<Check, CheckResult>, { config }: Context): void {
  if (config.isWalVerifyExitZero) return;
  const failed = [...results].filter(([, { status }]) => status === "FAILURE");
  if (failed.length === 0) return;
  const names = failed.map(([check]) => check).join(" and ");
  throw new UnsoundError(`wal-verify ${names}: FAILURE`, {
    hint: failed.map(([check]) => WAYS_OUT[check]).join(" "),
  });
}
