import { ConfigError } from "../errors.ts";
import { type ConfigFile, findHomeConfigFile, readConfigFile } from "./config-file.ts";
import { type Found, FoundSettings, parseFound } from "./found-settings.ts";
import { general } from "./general-settings.ts";
import { nearestWord } from "./nearest.ts";
import { type Setting, settingFlagNames, settingNames } from "./setting.ts";
import { allSettings } from "./settings.ts";

/** Everything that settings are read from. */
export interface SettingSources {
  /** By the flag's name without dashes. */
  readonly flags: ReadonlyMap<string, string>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Absent for a user without one. */
  readonly homeDirectory?: string;
}

/** The command line, the environment or a file. */
interface Place {
  readonly title: string;
  /** The names that a setting has here, the strongest first, and as a reader knows them. */
  readonly namesOf: (setting: Setting) => readonly string[];
  readonly shownName: (name: string) => string;
  /** Texts by name; undefined where there is none. */
  readonly get: (name: string) => string | undefined;
}

const OUR_PREFIX = /^(WALNUT|WALG|WALE)_/;

/** What Kubernetes adds to the environment for a service that is called "walnut" or "walg". */
const SERVICE_VARIABLE = /_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?$/;
const SERVICE_URL = /^(tcp|udp|sctp):\/\//;

/**
 * Looks for every setting on the command line, in the environment and in the config file, in this
 * order. Expected failures are collected as problems, so that a log can be opened nevertheless.
 */
export async function findSettings(sources: SettingSources): Promise<FoundSettings> {
  const problems: ConfigError[] = [];
  const commandLine: Place = {
    title: "the command line",
    namesOf: settingFlagNames,
    shownName: (name) => `--${name}`,
    get: (name) => sources.flags.get(name),
  };
  const environment = textPlace("the environment", (name) => sources.environment[name]);
  const file = await collect(problems, () =>
    readFile(findText(general.configFile, [commandLine, environment]), sources.homeDirectory),
  );
  const inFile = file === undefined ? [] : [textPlace(file.path, (name) => file.values.get(name))];

  const places = [commandLine, environment, ...inFile];
  const found = new Map<Setting, Found>();
  const secrets: string[] = [];
  for (const setting of allSettings) {
    if (setting.type.isSecret) secrets.push(...everyText(setting, places));
    const one = findSetting(setting, places, problems);
    if (one === undefined) continue;
    found.set(setting, one);
    await collect(problems, () => checkText(setting, one));
  }

  const known = new Set(allSettings.flatMap((setting) => settingNames(setting)));
  const variables = Object.entries(sources.environment).filter(
    ([name, text = ""]) =>
      !SERVICE_VARIABLE.test(name) && !(name.endsWith("_PORT") && SERVICE_URL.test(text)),
  );
  problems.push(
    ...unknownSettings(
      variables.map(([name]) => name),
      environment,
      known,
    ),
  );
  for (const place of inFile) {
    problems.push(...unknownSettings([...(file?.values.keys() ?? [])], place, known));
  }
  return new FoundSettings(found, {
    problems,
    secrets,
    sdkVariables: findSdkVariables(file, sources.environment, known),
    ...(file === undefined ? {} : { configFile: file.path }),
  });
}

/** The flags of every setting, for the reader of the command line. */
export function listSettingFlags(): readonly {
  readonly name: string;
  readonly isSwitch: boolean;
}[] {
  return allSettings.flatMap((setting) =>
    settingFlagNames(setting).map((name) => ({ name, isSwitch: setting.type.isSwitch })),
  );
}

function textPlace(title: string, read: (name: string) => string | undefined): Place {
  return {
    title,
    namesOf: settingNames,
    shownName: (name) => name,
    // Files in directories of variables end in a line end; an empty variable counts as absent.
    get: (name) => read(name)?.replace(/[\r\n]+$/, "") || undefined,
  };
}

async function readFile(
  path: string | undefined,
  homeDirectory: string | undefined,
): Promise<ConfigFile | undefined> {
  if (path === "") return undefined;
  const chosen =
    path ?? (homeDirectory === undefined ? undefined : await findHomeConfigFile(homeDirectory));
  return chosen === undefined ? undefined : await readConfigFile(chosen);
}

function findText(setting: Setting, places: readonly Place[]): string | undefined {
  return everyText(setting, places)[0];
}

function everyText(setting: Setting, places: readonly Place[]): readonly string[] {
  return places.flatMap((place) => namesIn(place, setting).map(({ text }) => text));
}

function namesIn(
  place: Place,
  setting: Setting,
): readonly { readonly name: string; readonly text: string }[] {
  return place.namesOf(setting).flatMap((name) => {
    const text = place.get(name);
    return text === undefined ? [] : [{ name, text }];
  });
}

/** An empty text, which only flags can have, takes away what weaker places say. */
function findSetting(
  setting: Setting,
  places: readonly Place[],
  problems: ConfigError[],
): Found | undefined {
  for (const place of places) {
    const given = namesIn(place, setting);
    const [first] = given;
    if (first === undefined) continue;
    const name = place.shownName(first.name);
    const other = given.find(({ text }) => text !== first.text);
    // WALNUT_NAME beside WALG_NAME is meant to override it.
    if (other !== undefined && first.name !== `WALNUT_${setting.name}`) {
      problems.push(
        new ConfigError(
          `${name} and ${place.shownName(other.name)} from ${place.title} contradict each other`,
          { hint: "They are two names of one setting: keep one of them." },
        ),
      );
    }
    return first.text === "" ? undefined : { name, source: place.title, text: first.text };
  }
  return undefined;
}

/** Without our prefix, a variable that changes nothing may well belong to another program. */
function checkText(setting: Setting, found: Found): void {
  if (setting.effect.kind === "none" && !OUR_PREFIX.test(found.name)) return;
  parseFound(setting, found);
}

function unknownSettings(
  names: readonly string[],
  place: Place,
  known: ReadonlySet<string>,
): readonly ConfigError[] {
  return names
    .filter((name) => OUR_PREFIX.test(name) && !known.has(name) && place.get(name) !== undefined)
    .map((name) => {
      const nearest = nearestName(name, known);
      return new ConfigError(`unknown setting ${name} from ${place.title}`, {
        hint: `${nearest === undefined ? "" : `Did you mean ${nearest}? `}\`walnut flags\` lists all.`,
      });
    });
}

/** Prefers the prefix that the user wrote, and a name that has no prefix over a far one. */
function nearestName(name: string, known: ReadonlySet<string>): string | undefined {
  const bare = name.replace(OUR_PREFIX, "");
  if (known.has(bare)) return bare;
  const prefix = name.slice(0, name.length - bare.length);
  const own = [...known].filter((one) => one.startsWith(prefix));
  return nearestWord(name, own) ?? nearestWord(bare, known);
}

function findSdkVariables(
  file: ConfigFile | undefined,
  environment: SettingSources["environment"],
  known: ReadonlySet<string>,
): ReadonlyMap<string, string> {
  const entries = [...(file?.values ?? [])].filter(
    ([name]) => name.startsWith("AWS_") && !known.has(name) && (environment[name] ?? "") === "",
  );
  return new Map(entries);
}

async function collect<T>(
  problems: ConfigError[],
  attempt: () => T | Promise<T>,
): Promise<T | undefined> {
  try {
    return await attempt();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(error);
    return undefined;
  }
}
