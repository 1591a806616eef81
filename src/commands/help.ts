import { UsageError } from "../errors.ts";
import type { Command, Flag } from "./command.ts";
import { listExitCodes } from "./exit-codes.ts";
import type { Program } from "./index.ts";
import { nearestWord } from "../config/nearest.ts";
import { requirePositionals } from "./words.ts";

const EXIT_CODES_TOPIC = "exit-codes";

/** `walnut help [command]`. */
export function helpCommand(program: Program): Command<string | undefined> {
  return {
    name: "help",
    usage: "help [command | exit-codes]",
    summary: "Show how a command is used, or what the exit codes mean.",
    flags: [],
    needsConfig: false,

    parse: (words) => requirePositionals(words, ["the command"], 1)[0],

    async run(topic, { write }) {
      if (topic === undefined) return await write(await formatOverview(program));
      if (topic === EXIT_CODES_TOPIC) return await write(formatExitCodes());
      const entry = Object.hasOwn(program.commands, topic) ? program.commands[topic] : undefined;
      if (entry === undefined) throw unknownCommand(topic, program);
      await write(await formatCommandHelp(await entry.load(program)));
    },
  };
}

/** What other tools call it, and what comes to mind. */
const OTHER_WORDS: ReadonlyMap<string, string> = new Map([
  ["archive-get", "wal-fetch"],
  ["archive-push", "wal-push"],
  ["backup", "backup-push"],
  ["backups", "backup-list"],
  ["list", "backup-list"],
  ["list-backups", "backup-list"],
  ["prune", "expire"],
  ["restore", "backup-fetch"],
  ["status", "info"],
]);

/** The error for a word that is no command. */
export function unknownCommand(word: string, program: Pick<Program, "commands">): UsageError {
  const nearest = OTHER_WORDS.get(word) ?? nearestWord(word, Object.keys(program.commands));
  return new UsageError(`unknown command ${JSON.stringify(word)}`, {
    hint:
      nearest === undefined
        ? "`walnut help` lists all commands."
        : `Did you mean ${nearest}? \`walnut help\` lists all commands.`,
  });
}

/** What to type first when a database is lost; then one line a command, by purpose. */
export async function formatOverview(program: Program): Promise<string> {
  const { guideGroups } = await import("./guide.ts");
  const loaded = await Promise.all(
    Object.values(program.commands).map((entry) => entry.load(program)),
  );
  const summaries = new Map(loaded.map(({ name, summary }) => [name, summary]));
  const width = Math.max(...[...summaries.keys()].map(({ length }) => length));
  const groups = guideGroups.map(({ title, guides }) => {
    const rows = Object.keys(guides).map((name) => [name, summaries.get(name) ?? ""] as const);
    return `${title}:\n${formatRows(rows, width)}\n`;
  });
  return [
    "walnut archives PostgreSQL's WAL, makes base backups and restores them.",
    "",
    "Usage: walnut <command> [arguments] [flags]",
    "",
    "To get a database back:",
    formatRows([
      ["walnut info", "what is there, and to when it can be restored"],
      ["walnut backup-fetch <new directory> LATEST", "then do what it says at its end"],
      ["walnut find --relation <database.schema.table>", "just before a table was dropped"],
    ]),
    "",
    ...groups,
    wrap(
      "`walnut help <command>` shows its arguments, flags and examples, `walnut flags` all " +
        "settings, `walnut config` where each one comes from, `walnut help exit-codes` the codes.",
    ),
    "",
  ].join("\n");
}

/** Usage, flags, further paragraphs and what guide.ts says of one command. */
export async function formatCommandHelp(command: Command): Promise<string> {
  const { name, usage, summary, details, flags } = command;
  const { commandGuide } = await import("./guide.ts");
  const guide = commandGuide(name);
  const examples = guide?.examples.map(([words, effect]) => [`walnut ${words}`, effect] as const);
  const exits = guide?.exits
    .toSorted((one, other) => one.code - other.code)
    .map(({ code, text }) => [String(code), text] as const);
  return [
    `Usage: walnut ${usage} [flags]`,
    "",
    wrap(summary),
    ...(details === undefined ? [] : ["", wrap(details.trim())]),
    ...section("Examples:", examples),
    ...section("Flags:", [...flags.map(flagRow), ["-h, --help", "Show this help."]]),
    ...section("Settings that matter most:", await settingRows(guide?.settings ?? [])),
    ...section("Exit codes to tell apart:", exits),
    "",
    "Every setting is a flag, too: `walnut flags`. Exit codes: `walnut help exit-codes`.",
    "",
  ].join("\n");
}

function section(
  title: string,
  rows: readonly (readonly [string, string])[] | undefined,
): readonly string[] {
  return rows === undefined || rows.length === 0 ? [] : ["", title, formatRows(rows)];
}

async function settingRows(
  names: readonly string[],
): Promise<readonly (readonly [string, string])[]> {
  if (names.length === 0) return [];
  const { SettingIndex } = await import("../config/settings.ts");
  const index = new SettingIndex();
  return names.flatMap((name) => {
    const setting = index.byName(name);
    if (setting === undefined) return [];
    const unit = setting.unit === undefined ? "" : ` In ${setting.unit}.`;
    const standard = setting.default === undefined ? "" : ` Default: ${setting.default}.`;
    return [[name, `${setting.text}${unit}${standard}`] as const];
  });
}

/** One line an exit code. */
export function formatExitCodes(): string {
  const rows = listExitCodes().map(({ code, text }) => [String(code), text] as const);
  return `Exit codes:\n${formatRows([["0", "all is done and safe"], ...rows])}\n`;
}

function flagRow({ name, short, value, text, isRepeatable }: Flag): readonly [string, string] {
  const dashes = short === undefined ? "    " : `-${short}, `;
  return [
    `${dashes}--${name}${value === undefined ? "" : ` ${value}`}`,
    isRepeatable === true ? `${text} May be given several times.` : text,
  ];
}

/** Columns of a terminal that nobody has made larger. */
const COLUMNS = 80;
/** A second column is never made narrower than this. */
const TEXT_COLUMNS = 36;
const MOST_FIRST = COLUMNS - TEXT_COLUMNS - 4;

/** Two columns; where the first leaves too little room, its text begins on the next line. */
function formatRows(rows: readonly (readonly [string, string])[], atLeast = 0): string {
  const fitting = rows.map(([first]) => first.length).filter((length) => length <= MOST_FIRST);
  const width = Math.max(atLeast, ...fitting);
  const indent = " ".repeat(width + 4);
  return rows
    .map(([first, second]) => {
      const text = wrap(second, COLUMNS - indent.length).replaceAll("\n", `\n${indent}`);
      return first.length > width
        ? `  ${first}\n${indent}${text}`
        : `  ${first.padEnd(width)}  ${text}`;
    })
    .join("\n");
}

/** Breaks lines that are too long at their spaces. */
function wrap(text: string, columns = COLUMNS): string {
  const lines: string[] = [];
  for (const paragraph of text.split("\n")) {
    let line = "";
    for (const word of paragraph.split(/(?<=\S) /)) {
      const longer = line === "" ? word : `${line} ${word}`;
      if (longer.length > columns && line !== "") {
        lines.push(line);
        line = word;
      } else {
        line = longer;
      }
    }
    lines.push(line);
  }
  return lines.join("\n");
}
