import { parseArgs } from "node:util";
import { nearestWord } from "../config/nearest.ts";
import { ConfigError, UsageError } from "../errors.ts";
import type { Flag, Words } from "./command.ts";

/** How a setting is given as a flag. */
export interface SettingFlag {
  /** Without dashes: "walg-s3-prefix". */
  readonly name: string;
  /** True or false when it is given without a value. */
  readonly isSwitch: boolean;
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
  settings: Iterable<SettingFlag>,
  isCommand: (word: string) => boolean,
): { readonly name: string | undefined; readonly rest: readonly string[] } {
  const known = new Map([...settings].map((setting) => [setting.name, setting]));
  const words = joinSwitches(args, known);
  let isAfterUnknownFlag = false;
  for (const token of tokenize(words, optionTable(known.values(), [HELP]))) {
    if (token.kind === "positional" && (!isAfterUnknownFlag || isCommand(token.value))) {
      return { name: token.value, rest: words.toSpliced(token.index, 1) };
    }
    isAfterUnknownFlag =
      token.kind === "option" && token.name !== HELP.name && !known.has(token.name);
  }
  return { name: undefined, rest: args };
}

/** Sorts the words of one command into settings, its own flags and the rest. */
export function readCommandLine(
  args: readonly string[],
  settings: Iterable<SettingFlag>,
  flags: readonly Flag[],
): CommandLine {
  const ownFlags = new Map([...flags, HELP].map((flag) => [flag.name, flag]));
  // A flag of the command counts before a setting of the same name.
  const settingFlags = new Map(
    [...settings].flatMap((flag) => (ownFlags.has(flag.name) ? [] : [[flag.name, flag] as const])),
  );
  const foundSettings = new Map<string, string>();
  const foundFlags = new Map<string, string[]>();
  const positionals: string[] = [];

  const words = joinSwitches(args, settingFlags);
  for (const token of tokenize(words, optionTable(settingFlags.values(), ownFlags.values()))) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const setting = settingFlags.get(token.name);
    const flag = ownFlags.get(token.name);
    if (setting !== undefined) {
      const value = setting.isSwitch ? (token.value ?? "true") : requireValue(token);
      foundSettings.set(setting.name, value);
    } else if (flag !== undefined) {
      const value = flag.value === undefined ? switchValue(token) : requireValue(token);
      foundFlags.set(flag.name, [...(foundFlags.get(flag.name) ?? []), value]);
    } else {
      throw unknownFlag(token, [...settingFlags.keys(), ...ownFlags.keys()]);
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

function tokenize(args: readonly string[], options: ReturnType<typeof optionTable>) {
  return parseArgs({
    args: [...args],
    options,
    strict: false,
    tokens: true,
    allowPositionals: true,
  }).tokens;
}

/** WAL-G takes every setting as text, so its users also write "--pg-ready-rename true". */
function joinSwitches(
  args: readonly string[],
  settings: ReadonlyMap<string, SettingFlag>,
): readonly string[] {
  const joined: string[] = [];
  for (const [index, word] of args.entries()) {
    if (word === "--") return [...joined, ...args.slice(index)];
    const switchWord = joined.at(-1) ?? "";
    const isSwitch =
      switchWord.startsWith("--") && settings.get(switchWord.slice(2))?.isSwitch === true;
    if (isSwitch && (word === "true" || word === "false")) joined.push(`${joined.pop()}=${word}`);
    else joined.push(word);
  }
  return joined;
}

function optionTable(settings: Iterable<SettingFlag>, flags: Iterable<Flag>) {
  const options: Record<string, { type: "string" | "boolean"; short?: string }> = {};
  for (const setting of settings) {
    options[setting.name] = { type: setting.isSwitch ? "boolean" : "string" };
  }
  for (const flag of flags) {
    options[flag.name] = {
      type: flag.value === undefined ? "boolean" : "string",
      ...(flag.short === undefined ? {} : { short: flag.short }),
    };
  }
  return options;
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
  const hint = nearest === undefined ? {} : { hint: `Did you mean --${nearest}?` };
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
