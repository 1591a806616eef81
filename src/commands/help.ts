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
      await write(formatCommandHelp(await entry.load(program)));
    },
  };
}

/** The error for a word that is no command. */
export function unknownCommand(word: string, program: Pick<Program, "commands">): UsageError {
  const nearest = nearestWord(word, Object.keys(program.commands));
  return new UsageError(`unknown command ${JSON.stringify(word)}`, {
    hint:
      nearest === undefined
        ? "`walnut help` lists all commands."
        : `Did you mean ${nearest}? \`walnut help\` lists all commands.`,
  });
}

/** What walnut is, and one line a command. */
export async function formatOverview(program: Program): Promise<string> {
  const all = await Promise.all(
    Object.values(program.commands).map((entry) => entry.load(program)),
  );
  const rows = all.map(({ name, summary }) => [name, summary] as const);
  return [
    "walnut archives PostgreSQL's WAL, makes base backups and restores them.",
    "",
    "Usage: walnut <command> [arguments] [flags]",
    "",
    "Commands:",
    formatRows(rows),
    "",
    "`walnut help <command>` shows the arguments and flags of a command, `walnut flags` all",
    "settings, `walnut config` where each one comes from, `walnut help exit-codes` the exit codes.",
    "",
  ].join("\n");
}

/** Usage, flags and further paragraphs of one command. */
export function formatCommandHelp({ usage, summary, details, flags }: Command): string {
  const rows = [...flags.map(flagRow), ["-h, --help", "Show this help."] as const];
  return [
    `Usage: walnut ${usage} [flags]`,
    "",
    summary,
    ...(details === undefined ? [] : ["", details.trim()]),
    "",
    "Flags:",
    formatRows(rows),
    "",
    "Every setting is a flag, too: see `walnut flags`. Exit codes: `walnut help exit-codes`.",
    "",
  ].join("\n");
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

function formatRows(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([first]) => first.length));
  return rows.map(([first, second]) => `  ${first.padEnd(width)}  ${second}`).join("\n");
}
