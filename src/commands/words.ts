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
  const tokens = tokenize(args, optionTable(known.values(), [HELP]));
  let isAfterUnknownFlag = false;
  for (const token of tokens) {
    if (token.kind === "positional" && (!isAfterUnknownFlag || isCommand(token.value))) {
      return { name: token.value, rest: args.toSpliced(token.index, 1) };
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
  const settingFlags = new Map(
    [...settings].flatMap((setting) =>
      ownFlags.has(setting.name) ? [] : [[setting.name, setting] as const],
    ),
  );
  const foundSettings = new Map<string, string>();
  const foundFlags = new Map<string, string[]>();
  const positionals: string[] = [];

  const tokens = tokenize(args, optionTable(settingFlags.values(), ownFlags.values()));
  for (let index = 0; index < tokens.length; index += 1) {
    const token = tokens[index];
    if (token === undefined || token.kind === "option-terminator") continue;
    if (token.kind === "positional") {
      positionals.push(token.value);
      continue;
    }
    const setting = settingFlags.get(token.name);
    const flag = ownFlags.get(token.name);
    if (setting !== undefined) {
      const next = tokens[index + 1];
      // WAL-G takes every setting as text: its users write "--pg-ready-rename true", too.
      const isNextItsValue =
        setting.isSwitch &&
        token.value === undefined &&
        next?.kind === "positional" &&
        (next.value === "true" || next.value === "false");
      if (isNextItsValue) index += 1;
      const value = isNextItsValue ? next.value : (token.value ?? (setting.isSwitch ? "true" : ""));
      foundSettings.set(setting.name, setting.isSwitch ? value : requireValue(token));
    } else if (flag === undefined) {
      throw unknownFlag(token, [...settingFlags.keys(), ...ownFlags.keys()]);
    } else {
      const values = foundFlags.get(flag.name) ?? [];
      values.push(flag.value === undefined ? switchValue(token) : requireValue(token));
      foundFlags.set(flag.name, values);
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
  // Without "=", a word that begins with a dash is a forgotten value more often than one.
  if (token.value === undefined || (token.inlineValue === false && token.value === "--")) {
    throw new UsageError(`flag ${token.rawName} needs a value`, {
      hint: `Write ${token.rawName}=VALUE.`,
    });
  }
  return token.value;
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
