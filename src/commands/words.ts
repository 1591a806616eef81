import { parseArgs } from "node:util";
import { nearestWord } from "../config/nearest.ts";
import { ConfigError, UsageError } from "../errors.ts";
import type { Flag, Words } from "./command.ts";

/** Which flags are settings. */
export interface SettingFlags {
  /** Whether a flag, without dashes, may stand without a value; undefined for no setting. */
  readonly find: (flag: string) => { readonly isSwitch: boolean } | undefined;
  /** All of them, for suggestions. */
  readonly names: () => readonly string[];
}

/** A command line that was taken apart. */
export interface CommandLine {
  readonly isHelp: boolean;
  /** Settings by the flag's name, the last value if repeated. */
  readonly settings: ReadonlyMap<string, string>;
  readonly words: Words;
}

const HELP: Flag = { name: "help", short: "h", text: "Show the help." };
const SETTING_PREFIX = /^(walnut|walg|wale)-/;

interface OptionToken {
  readonly kind: "option";
  readonly name: string;
  readonly rawName: string;
  readonly value?: string | undefined;
  readonly inlineValue?: boolean | undefined;
}

/**
 * The command's name and the words without it. Settings may stand before it; so may flags of the
 * command, which can't be known yet: what follows an unknown flag counts as its value unless it is
 * a command.
 */
export function findCommand(
  args: readonly string[],
  settings: SettingFlags,
  isCommand: (word: string) => boolean,
): { readonly name: string | undefined; readonly rest: readonly string[] } {
  const words = joinSwitches(args, settings);
  let isAfterUnknownFlag = false;
  for (const token of tokenize(words, settings, [HELP])) {
    if (token.kind === "positional" && (!isAfterUnknownFlag || isCommand(token.value))) {
      return { name: token.value, rest: words.toSpliced(token.index, 1) };
    }
    isAfterUnknownFlag =
      token.kind === "option" &&
      token.name !== HELP.name &&
      settings.find(token.name) === undefined;
  }
  return { name: undefined, rest: args };
}

/** Sorts the words of one command into settings, its own flags and the rest. */
export function readCommandLine(
  args: readonly string[],
  settings: SettingFlags,
  flags: readonly Flag[],
): CommandLine {
  const ownFlags = new Map([...flags, HELP].map((flag) => [flag.name, flag]));
  const foundSettings = new Map<string, string>();
  const foundFlags = new Map<string, string[]>();
  const positionals: string[] = [];

  const words = joinSwitches(args, settings);
  for (const token of tokenize(words, settings, [...ownFlags.values()])) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const flag = ownFlags.get(token.name);
    const setting = settings.find(token.name);
    // A flag of the command counts before a setting of the same name.
    if (flag !== undefined) {
      const value = flag.value === undefined ? switchValue(token) : requireValue(token);
      foundFlags.set(flag.name, [...(foundFlags.get(flag.name) ?? []), value]);
    } else if (setting !== undefined) {
      const value = setting.isSwitch ? (token.value ?? "true") : requireValue(token);
      foundSettings.set(token.name, value);
    } else {
      throw unknownFlag(token, [...settings.names(), ...ownFlags.keys()]);
    }
  }

  const has = (name: string) => foundFlags.get(name)?.at(-1) === "true";
  const values = (name: string) => foundFlags.get(name) ?? [];
  return {
    isHelp: has(HELP.name),
    settings: foundSettings,
    words: { positionals, has, values, value: (name) => values(name).at(-1) },
  };
}

/** WAL-G takes every setting as text, so its users also write "--pg-ready-rename true". */
function joinSwitches(args: readonly string[], settings: SettingFlags): readonly string[] {
  const joined: string[] = [];
  for (const [index, word] of args.entries()) {
    if (word === "--") return [...joined, ...args.slice(index)];
    const last = joined.at(-1) ?? "";
    const isSwitchValue =
      (word === "true" || word === "false") &&
      last.startsWith("--") &&
      settings.find(last.slice(2))?.isSwitch === true;
    if (isSwitchValue) joined.push(`${joined.pop()}=${word}`);
    else joined.push(word);
  }
  return joined;
}

/** Tells parseArgs of those settings only that occur: there are hundreds. */
function tokenize(args: readonly string[], settings: SettingFlags, flags: readonly Flag[]) {
  const options: Record<string, { type: "string" | "boolean"; short?: string }> = {};
  for (const word of args) {
    const [, name = ""] = /^--([^=]+)/.exec(word) ?? [];
    const setting = settings.find(name);
    if (setting !== undefined) options[name] = { type: setting.isSwitch ? "boolean" : "string" };
  }
  for (const { name, short, value } of flags) {
    const type = value === undefined ? "boolean" : "string";
    options[name] = short === undefined ? { type } : { type, short };
  }
  return parseArgs({
    args: [...args],
    options,
    strict: false,
    tokens: true,
    allowPositionals: true,
  }).tokens;
}

function requireValue(token: OptionToken): string {
  const { value, inlineValue } = token;
  // Without "=", a word that begins with a dash is more often the next flag than a value.
  if (value === undefined || (inlineValue === false && /^-./.test(value))) {
    throw new UsageError(`flag ${token.rawName} needs a value`, {
      hint: `Write ${token.rawName}=VALUE.`,
    });
  }
  return value;
}

function switchValue(token: OptionToken): string {
  const value = token.value ?? "true";
  if (value !== "true" && value !== "false") {
    throw new UsageError(`flag ${token.rawName} is true or false, not ${value}`);
  }
  return value;
}

function unknownFlag(token: OptionToken, known: Iterable<string>): Error {
  const nearest = nearestWord(token.name, known);
  const hint =
    token.name === "dry-run"
      ? { hint: "What removes backups removes nothing without --confirm: that is the dry run." }
      : nearest === undefined
        ? {}
        : { hint: `Did you mean --${nearest}?` };
  return SETTING_PREFIX.test(token.name)
    ? new ConfigError(`unknown setting ${token.rawName} on the command line`, hint)
    : new UsageError(`unknown flag ${token.rawName}`, hint);
}

/** The only positional argument; `what` names it in the error ("the WAL file"). */
export function onePath(words: Words, what = "the path"): string {
  return requirePositionals(words, [what])[0] ?? "";
}

/**
 * The positional arguments: as many as `what` names, none of them empty. The last `optionalCount`
 * of them may be absent.
 */
export function requirePositionals(
  words: Words,
  what: readonly string[],
  optionalCount = 0,
): readonly string[] {
  const required = what.slice(0, what.length - optionalCount);
  const missing = required.find((_, index) => (words.positionals[index] ?? "") === "");
  if (missing !== undefined) throw new UsageError(`${missing} is missing`);
  const surplus = words.positionals[what.length];
  if (surplus !== undefined) throw new UsageError(`surplus argument ${JSON.stringify(surplus)}`);
  return words.positionals;
}
