import { type Finding, isFailure } from "../catalogue/finding.ts";
import type { VerifyLevel, VerifyReport } from "../catalogue/verify.ts";
import { verifyPrimary } from "../catalogue/verify-primary.ts";
import { ObjectNotFoundError, UnsoundError, UsageError } from "../errors.ts";
import { formatJson } from "../layout/json.ts";
import { jsonObject } from "../layout/json-value.ts";
import { formatTimeUtc, timeNsOf } from "../layout/time.ts";
import type { Storage } from "../storage/storage.ts";
import type { Command, Context, Words } from "./command.ts";
import { indentJson } from "./indented-json.ts";
import { judgeObject } from "./object-judge.ts";
import { formatBytes } from "./progress.ts";
import { formatPlainTable } from "./table.ts";
import { requirePositionals } from "./words.ts";

interface Budget {
  readonly bytes?: number;
  readonly ms?: number;
}

interface VerifyArguments {
  readonly level: VerifyLevel;
  readonly budget: Budget;
  readonly isJson: boolean;
  readonly isRelearning: boolean;
}

/** Of stored bytes, for a sample without a budget of its own. */
const DEFAULT_BUDGET_BYTES = 1024 ** 3;
/** More backups and segments in memory at once would not be faster. */
const JOBS_MAX = 8;

/** `walnut verify` */
export const verify: Command<VerifyArguments> = {
  name: "verify",
  usage: "verify [--quick|--full] [--budget <n>] [--json]",
  summary: "Prove that what is stored can be restored.",
  details:
    "Without a flag a sample is read: 1 GiB of stored bytes, what was proved longest ago first, so " +
    "that daily runs prove everything in the course of time. --full reads every object to its end: " +
    "checksums of parts, hashes of files, page headers and records of the WAL. --quick looks at " +
    "names, sizes and documents, and at the checksums that the store tells: what is not as it was " +
    "when walnut read it is read again, up to 1 GiB. All levels check that the WAL is there from every backup to " +
    "consistency, and onwards without a hole along the real history of timelines.\n\n" +
    "Exit code 0: nothing wrong was found. Damage, missing objects and holes have an exit code of " +
    "their own, and so has a place where there is no backup and no WAL. With WALNUT_MIRROR it is " +
    "the first store that is checked; of what is wrong there it is told which mirror has a good " +
    "copy, and the command that repairs it. What was proved is remembered in " +
    "walnut_005/verified.json.",
  flags: [
    { name: "quick", text: "Look at names, sizes and documents only." },
    { name: "full", text: "Read everything." },
    {
      name: "budget",
      value: "<n>",
      text: "How much a sample reads: 500MiB, 20GiB; or for how long it begins more: 30m, 2h.",
    },
    { name: "json", text: "One JSON object; see docs/verify.md." },
    {
      name: "relearn",
      text: "Take objects that are sound, but not those of an earlier verify, for right.",
    },
  ],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    const isQuick = words.has("quick");
    const isFull = words.has("full");
    if (isQuick && isFull) throw new UsageError("--quick and --full contradict each other");
    const budget = parseBudget(words);
    if ((isQuick || isFull) && words.value("budget") !== undefined) {
      throw new UsageError("--budget is for a sample: neither --quick nor --full takes one");
    }
    return {
      level: isQuick ? "quick" : isFull ? "full" : "sample",
      budget,
      isJson: words.has("json"),
      isRelearning: words.has("relearn"),
    };
  },

  async run({ level, budget, isJson, isRelearning }, context) {
    const { config, clock, signal, log } = context;
    await using storage = await context.openStorage();
    try {
      const verified = await verifyPrimary(storage, {
        level,
        budgetBytes: budget.bytes,
        budgetMs: budget.ms,
        jobs: Math.min(config.downloadConcurrency, JOBS_MAX),
        codecJobs: config.codecJobs,
        isRelearning,
        clock,
        signal,
        onProgress: (state) => context.progress.update({ activity: "verifying", ...state }),
      });
      const findings = await withRepairs(verified.findings, storage, context);
      const report: Report = { ...verified, findings };
      context.progress.end();
      await context.write(isJson ? `${toJson(report, storage.name)}\n` : toText(report));
      if (report.catalogue.backups.length === 0) {
        log.warning("there is no backup: WAL alone restores nothing", { storage: storage.name });
      }
      requireSound(report);
    } finally {
      context.progress.end();
    }
  },
};

const BUDGET = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB|s|m|h)$/;
const UNITS: Readonly<Record<string, { readonly bytes: number } | { readonly ms: number }>> = {
  B: { bytes: 1 },
  KiB: { bytes: 1024 },
  MiB: { bytes: 1024 ** 2 },
  GiB: { bytes: 1024 ** 3 },
  TiB: { bytes: 1024 ** 4 },
  KB: { bytes: 1e3 },
  MB: { bytes: 1e6 },
  GB: { bytes: 1e9 },
  TB: { bytes: 1e12 },
  s: { ms: 1000 },
  m: { ms: 60_000 },
  h: { ms: 3_600_000 },
};

function parseBudget(words: Words): Budget {
  const text = words.value("budget");
  if (text === undefined) return { bytes: DEFAULT_BUDGET_BYTES };
  const [, count, unit = ""] = BUDGET.exec(text) ?? [];
  const scale = UNITS[unit];
  if (count === undefined || scale === undefined) {
    throw new UsageError(`no budget: ${JSON.stringify(text)}`, {
      hint: "Write bytes with a unit, such as 20GiB, or a time, such as 30m.",
    });
  }
  const number = Number(count);
  return "bytes" in scale ? { bytes: number * scale.bytes } : { ms: number * scale.ms };
}

function requireSound({ findings }: Report): void {
  const faults = findings.filter(({ kind }) => kind !== "note");
  if (faults.length === 0) return;
  const { length: count } = faults;
  throw new UnsoundError(`verify found ${count} ${count === 1 ? "fault" : "faults"}`, {
    hint: faults.every(({ mirror }) => mirror !== undefined)
      ? "A mirror has a good copy of everything that is wrong: the table above names the commands."
      : "Take a new base backup now, so that there is one that is whole. Then look for other copies " +
        "of what is damaged: object versions, another repository, pg_wal of a standby.",
  });
}

function toText(report: VerifyReport): string {
  const { findings, read, there, catalogue, level, oldestProofMs } = report;
  const rows = findings.map(({ kind, subject, text, backup }) => [
    kind,
    backup === undefined || subject.includes(backup) ? subject : `${subject} (${backup})`,
    text,
  ]);
  const table = rows.length === 0 ? "" : formatPlainTable(["kind", "object", "what"], rows);
  const share =
    level === "full" ? "everything" : level === "quick" ? "names and documents" : "a part";
  const proof =
    oldestProofMs === undefined || level === "quick"
      ? ""
      : oldestProofMs === 0
        ? "; some of it was never read yet"
        : `; all of it was read since ${formatMs(oldestProofMs)}`;
  return (
    `${table}${toSumsText(report)}verified ${share}: ${number(catalogue.backups.length, "backup")}, ` +
    `${number(read.objects, "object")} and ` +
    `${formatBytes(read.bytes)} read of ${formatBytes(there.bytes)}${proof}: ` +
    `${isFailure(findings) ? "FAILURE" : "OK"}\n`
  );
}

function number(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** A finding, with what to do where a mirror has a sound copy. */
interface Row extends Finding {
  readonly mirror?: string;
}

interface Report extends VerifyReport {
  readonly findings: readonly Row[];
}

async function withRepairs(
  findings: readonly Finding[],
  storage: Storage,
  context: Context,
): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const finding of findings) {
    const { soundIn: place, text } = finding;
    const mirror = place === undefined ? undefined : context.config.mirror?.stores[place]?.name;
    if (mirror === undefined) rows.push(finding);
    else {
      const repair = await repairOf({ ...finding, mirror }, storage, context);
      rows.push({
        ...finding,
        mirror,
        text: `${text}; mirror ${mirror} has a good copy: ${repair}`,
      });
    }
  }
  return rows;
}

async function repairOf(
  { kind, subject, mirror }: Row,
  { primary }: Storage,
  context: Context,
): Promise<string> {
  const restore = "`walnut st sync --restore` brings it back";
  if (kind !== "damaged" || primary === undefined) return restore;
  try {
    const isTold = (await judgeObject(primary, subject, context)) === "damaged";
    if (isTold) return "`walnut st sync --content` puts it into the place of the damaged one";
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return restore;
    throw error;
  }
  // Nothing in the object itself tells a sync which of the two is right.
  return (
    `\`walnut st get -t ${mirror} --no-decrypt --no-decompress ${subject} good-copy && ` +
    `walnut st put --force --no-encrypt --no-compress good-copy ${subject}\``
  );
}

/** What the store's checksums told, and of how many objects they told nothing. */
function toSumsText({ level, marks: { same, changed, unread, untold } }: VerifyReport): string {
  if (level !== "quick") return "";
  const parts = [
    `${same} are as they were when walnut read them`,
    changed === 0 ? [] : `${changed} are not and were looked at`,
    unread === 0 ? [] : `${unread} were not read yet`,
    untold === 0 ? [] : `of ${untold} the store tells none (sizes are compared)`,
  ].flat();
  return `store checksums of parts and segments: ${parts.join(", ")}\n`;
}

function formatMs(timeMs: number): string {
  return formatTimeUtc(timeNsOf(timeMs));
}

function toJson(report: Report, storage: string): string {
  const { findings, read, there, catalogue, level, startedAtMs, oldestProofMs, marks } = report;
  const oldest =
    oldestProofMs === undefined || oldestProofMs === 0 ? null : formatMs(oldestProofMs);
  const text = formatJson(
    jsonObject([
      ["schema", 1n],
      ["storage", storage],
      ["level", level],
      ["status", isFailure(findings) ? "FAILURE" : "OK"],
      ["started", formatMs(startedAtMs)],
      ["backups", BigInt(catalogue.backups.length)],
      ["objects_read", BigInt(read.objects)],
      ["bytes_read", BigInt(read.bytes)],
      ["bytes_total", BigInt(there.bytes)],
      ["all_proved_since", oldest],
      [
        "store_checksums",
        jsonObject([
          ["same", BigInt(marks.same)],
          ["changed", BigInt(marks.changed)],
          ["not_read_before", BigInt(marks.unread)],
          ["not_told", BigInt(marks.untold)],
        ]),
      ],
      [
        "findings",
        findings.map(({ kind, subject, text: what, backup, mirror }) =>
          jsonObject([
            ["kind", kind],
            ["object", subject],
            ["backup", backup],
            ["what", what],
            ["sound_copy_in", mirror],
          ]),
        ),
      ],
    ]),
  );
  return indentJson(text, "  ");
}
