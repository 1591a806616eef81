import { type Catalogue, readCatalogue } from "../catalogue/catalogue.ts";
import { CommitFinder } from "../catalogue/commit-finder.ts";
import { find, type FindMatch, type FindQuery } from "../catalogue/find.ts";
import { resolveRelation } from "../catalogue/find-relation.ts";
import {
  planRecovery,
  recoveryCommands,
  type RecoveryRecipe,
  recoverySettings,
} from "../catalogue/recovery-recipe.ts";
import { historyOf, type WalView, walView } from "../catalogue/wal-view.ts";
import { planWindows } from "../catalogue/wal-windows.ts";
import { segmentTimeline } from "../catalogue/wal-integrity.ts";
import { FormatError, RefusedError, UsageError } from "../errors.ts";
import { formatJson } from "../layout/json.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { formatTimeUtc, parseTime } from "../layout/time.ts";
import { formatLsn, parseLsn } from "../postgres/lsn.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import type { SegmentRun } from "../catalogue/segment-set.ts";
import type { Command, Context, Words } from "./command.ts";
import { indentJson } from "./indented-json.ts";
import { commitJson } from "./timeline-json.ts";
import { requirePositionals } from "./words.ts";

type Wanted =
  | Exclude<FindQuery, { kind: "relation" }>
  | { readonly kind: "relation"; readonly name: string };

interface FindArguments {
  readonly wanted: Wanted;
  readonly timeline: number | undefined;
  readonly directory: string;
  readonly isJson: boolean;
}

/** `walnut find` */
export const findCommand: Command<FindArguments> = {
  name: "find",
  usage: "find (--time <t> | --xid <n> | --lsn <lsn> | --relation <name>) [--json]",
  summary: "Find a commit in the archive, and how to restore to just before it.",
  details:
    "--relation finds the commits that dropped, truncated or rewrote a table: by name " +
    "(database.schema.table, as it was at the time of a backup), by OID or by the number of its " +
    "files. Before PostgreSQL 15 the WAL does not tell a drop from a rewrite.\n\n" +
    "--time finds the first commit at or after a time, --lsn at or after a position.\n\n" +
    "The answer ends with commands for a shell that restore to just before the last commit found.",
  flags: [
    { name: "time", value: "<time>", text: 'As "2026-11-21T14:03:00Z", or with another offset.' },
    { name: "xid", value: "<n>", text: "A transaction, or one of its subtransactions." },
    { name: "lsn", value: "<lsn>", text: "A position in the WAL." },
    { name: "relation", value: "<name>", text: "A table, index or other relation." },
    {
      name: "timeline",
      value: "<n>",
      text: "Look on the way to this timeline; the newest unless set.",
    },
    { name: "to", value: "<directory>", text: "Where the printed commands restore to." },
    { name: "json", text: "One JSON object; see docs/verify.md." },
  ],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    return {
      wanted: parseWanted(words),
      timeline: parseTimeline(words.value("timeline")),
      directory: words.value("to") ?? "/path/to/new/data",
      isJson: words.has("json"),
    };
  },

  async run({ wanted, timeline, directory, isJson }, context) {
    const { config, signal } = context;
    await using storage = await context.openStorage();
    const catalogue = await readCatalogue(storage, { signal });
    const view = walView(catalogue);
    const target = timeline ?? view.timelines.at(-1);
    requireTimeline(view, target, storage.name);
    const query: FindQuery =
      wanted.kind === "relation"
        ? {
            kind: "relation",
            relation: await resolveRelation(storage, catalogue, wanted.name, { signal }),
          }
        : wanted;
    let doneBytes = 0;
    const onBytes = (count: number): void => {
      doneBytes += count;
      context.progress.update({ activity: "searching", doneBytes });
    };
    const { downloadConcurrency: jobs, codecJobs } = config;
    const options = { jobs, codecJobs, signal, onBytes };
    const finder = await CommitFinder.open(storage, { catalogue, view }, options);
    try {
      const history = historyOf(view, target);
      const place = { finder, history, runs: runsOnLine(view, history) };
      const matches = await find(place, query);
      context.progress.end();
      requireFound(matches, { wanted, target, storageName: storage.name });
      const recipe = recipeFor(matches, { catalogue, view, target });
      const answer = { matches, recipe, target, directory };
      await context.write(isJson ? toJson(answer, context) : toText(answer, context));
    } finally {
      context.progress.end();
      await finder.close();
    }
  },
};

function parseWanted(words: Words): Wanted {
  const kinds = ["time", "xid", "lsn", "relation"] as const;
  const given = kinds.filter((kind) => words.value(kind) !== undefined);
  const [kind, ...others] = given;
  if (kind === undefined || others.length > 0) {
    throw new UsageError("find needs exactly one of --time, --xid, --lsn and --relation");
  }
  const text = words.value(kind) ?? "";
  try {
    if (kind === "time") return { kind, timeNs: parseTime(text.replace(" ", "T")) };
    if (kind === "lsn") return { kind, lsn: parseLsn(text) };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const hint = kind === "time" ? { hint: "Write 2026-11-21T14:03:00Z or ...+01:00." } : {};
    throw new UsageError(error.message, { cause: error, ...hint });
  }
  if (kind === "relation") return { kind, name: text };
  if (!/^\d{1,10}$/.test(text)) throw new UsageError(`no transaction: ${JSON.stringify(text)}`);
  return { kind: "xid", xid: Number(text) };
}

function parseTimeline(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,9}$/.test(text)) throw new UsageError(`no timeline: ${JSON.stringify(text)}`);
  return Number(text);
}

function requireTimeline(
  { timelines }: WalView,
  target: number | undefined,
  storageName: string,
): asserts target is number {
  if (target === undefined) {
    throw new RefusedError(`${storageName} holds no WAL`, {
      hint: "Are the store and its prefix the right ones? Then nothing was archived yet.",
    });
  }
  if (timelines.includes(target)) return;
  throw new RefusedError(`${storageName} holds nothing of timeline ${target}`, {
    hint: `There is WAL of ${timelines.length === 1 ? "timeline" : "timelines"} ${timelines.join(", ")}.`,
  });
}

/** What is archived on the way to a timeline, oldest first. */
function runsOnLine(view: WalView, history: TimelineHistory): readonly SegmentRun[] {
  const runs: SegmentRun[] = [];
  for (const timeline of [...history.ancestors.map((one) => one.timeline), history.timeline]) {
    for (const run of view.sets.get(timeline)?.runs ?? []) {
      const own = clip(
        run,
        (number) => segmentTimeline(history, number, view.segmentBytes) === timeline,
      );
      if (own !== undefined) runs.push(own);
    }
  }
  return runs;
}

/** The part of a run that is this timeline's own on the way: what it has beyond was left. */
function clip(run: SegmentRun, isOwn: (number: number) => boolean): SegmentRun | undefined {
  let { first, last } = run;
  while (first <= last && !isOwn(first)) first += 1;
  while (last >= first && !isOwn(last)) last -= 1;
  return first <= last ? { first, last } : undefined;
}

function requireFound(
  matches: readonly FindMatch[],
  {
    wanted,
    target,
    storageName,
  }: { readonly wanted: Wanted; readonly target: number; readonly storageName: string },
): void {
  if (matches.length > 0) return;
  const what = {
    relation: wanted.kind === "relation" ? `removes ${wanted.name}` : "",
    xid: "has this xid",
    time: "has this time or a later one",
    lsn: "is at this position or behind it",
  }[wanted.kind];
  throw new RefusedError(`no commit on the way to timeline ${target} in ${storageName} ${what}`, {
    hint: "Is it on another timeline (--timeline), or not archived yet? `walnut timeline` shows both.",
  });
}

function recipeFor(
  matches: readonly FindMatch[],
  place: { readonly catalogue: Catalogue; readonly view: WalView; readonly target: number },
): RecoveryRecipe | undefined {
  const { catalogue, view, target } = place;
  const last = matches.at(-1);
  if (last === undefined) return undefined;
  const plans = planWindows(view, catalogue.backups);
  // The timeline of the commit itself is enough, and is reached without what came later.
  for (const timeline of [last.timeline, target]) {
    const plan = plans.find((one) => one.timeline === timeline);
    const recipe = planRecovery(plan, catalogue.backups, last.end.lsn);
    if (recipe !== undefined) return recipe;
  }
  return undefined;
}

interface Answer {
  readonly matches: readonly FindMatch[];
  readonly recipe: RecoveryRecipe | undefined;
  readonly target: number;
  readonly directory: string;
}

function programOf({ self }: Context): readonly string[] {
  return self?.words ?? ["walnut"];
}

function toText({ matches, recipe, directory }: Answer, context: Context): string {
  const lines = matches.flatMap((match) => describe(match));
  if (recipe === undefined) {
    lines.push("", "No backup in the archive can be replayed to there: see `walnut timeline`.");
  } else {
    lines.push(
      "",
      `# restores to just before ${formatLsn(recipe.lsn)}, from ${recipe.backup}:`,
      ...recoveryCommands(recipe, programOf(context), directory),
    );
  }
  return `${lines.join("\n")}\n`;
}

function describe({ end, timeline, before, effect }: FindMatch): readonly string[] {
  const did = effect === undefined ? "" : ` (${effect})`;
  const lines = [
    `${end.kind} ${formatLsn(end.lsn)} at ${formatTimeUtc(end.timeNs)}, ` +
      `transaction ${end.xid}, timeline ${timeline}${did}`,
  ];
  if (before !== undefined) {
    lines.push(
      `  the commit before it: ${formatLsn(before.lsn)} at ${formatTimeUtc(before.timeNs)}, ` +
        `transaction ${before.xid}`,
    );
  }
  return lines;
}

function toJson({ matches, recipe, directory }: Answer, context: Context): string {
  const program = programOf(context);
  const text = formatJson(
    jsonObject([
      ["schema", 1n],
      ["matches", matches.map(matchJson)],
      [
        "restore",
        recipe === undefined
          ? null
          : jsonObject([
              ["backup", recipe.backup],
              ["settings", jsonObject(recoverySettings(recipe, program))],
              ["commands", recoveryCommands(recipe, program, directory)],
            ]),
      ],
    ]),
  );
  return `${indentJson(text, "  ")}\n`;
}

function matchJson({ end, timeline, before, effect }: FindMatch): JsonObject {
  return jsonObject([
    ["kind", end.kind],
    ["lsn", formatLsn(end.lsn)],
    ["time", formatTimeUtc(end.timeNs)],
    ["xid", BigInt(end.xid)],
    ["timeline", BigInt(timeline)],
    ["effect", effect],
    ["commit_before", commitJson(before)],
  ]);
}
