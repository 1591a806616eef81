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

/** The names and texts of one place. */
interface Source {
  readonly title: string;
  readonly isFlags: boolean;
  get(name: string): string | undefined;
}

const OUR_PREFIX = /^(WALNUT|WALG|WALE)_/;

/** What Kubernetes adds to the environment for a service that is called "walnut" or "walg". */
const SERVICE_VARIABLE =
  /_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)?$/;

/**
 * Looks for every setting on the command line, in the environment and in the config file, in this
 * order. What is wrong is collected as `problems`; only a config file that can't be read throws.
 */
export async function findSettings(sources: SettingSources): Promise<FoundSettings> {
  const flags: Source = {
    title: "the command line",
    isFlags: true,
    get: (name) => sources.flags.get(name),
  };
  const environment: Source = {
    title: "the environment",
    isFlags: false,
    get: (name) => cleanText(sources.environment[name]),
  };
  const problems: ConfigError[] = [];
  const file = await findFile([flags, environment], sources.homeDirectory);
  const found = new Map<Setting, Found>();
  const places = [flags, environment, ...(file === undefined ? [] : [fileSource(file)])];
  for (const setting of allSettings) {
    const one = findOne(setting, places, problems);
    if (one === undefined || one.text === "") continue;
    found.set(setting, one);
    collect(problems, () => void parseFound(setting, one));
  }
  const known = new Set(allSettings.flatMap((setting) => settingNames(setting)));
  rejectUnknown(Object.entries(sources.environment), environment.title, known, problems);
  if (file !== undefined) rejectUnknown(file.values, file.path, known, problems);
  return new FoundSettings(found, problems);
}

async function findFile(
  places: readonly Source[],
  homeDirectory: string | undefined,
): Promise<ConfigFile | undefined> {
  const named = findOne(general.configFile, places, []);
  if (named !== undefined) return named.text === "" ? undefined : await readConfigFile(named.text);
  if (homeDirectory === undefined) return undefined;
  const path = await findHomeConfigFile(homeDirectory);
  return path === undefined ? undefined : await readConfigFile(path);
}

function fileSource(file: ConfigFile): Source {
  return { title: file.path, isFlags: false, get: (name) => cleanText(file.values.get(name)) };
}

/** An empty text counts as absent, but for a flag: there it takes away what others set. */
function findOne(
  setting: Setting,
  places: readonly Source[],
  problems: ConfigError[],
): Found | undefined {
  const names = settingNames(setting);
  const flagNames = settingFlagNames(setting);
  for (const place of places) {
    const given = (place.isFlags ? flagNames : names).flatMap((name) => {
      const text = place.get(name);
      return text === undefined ? [] : [{ name, text }];
    });
    const [first] = given;
    if (first === undefined) continue;
    const isOverride = !place.isFlags && first.name === `WALNUT_${setting.name}`;
    const other = isOverride ? undefined : given.find(({ text }) => text !== first.text);
    const dashes = place.isFlags ? "--" : "";
    if (other !== undefined) {
      problems.push(
        new ConfigError(
          `${dashes}${first.name} and ${dashes}${other.name} from ${place.title} contradict ` +
            "each other",
          { hint: "They are two names of one setting; keep one of them." },
        ),
      );
    }
    return { name: `${dashes}${first.name}`, source: place.title, text: first.text };
  }
  return undefined;
}

function cleanText(text: string | undefined): string | undefined {
  const clean = text?.replace(/[\r\n]+$/, "");
  return clean === "" ? undefined : clean;
}

function rejectUnknown(
  entries: Iterable<readonly [string, string | undefined]>,
  source: string,
  known: ReadonlySet<string>,
  problems: ConfigError[],
): void {
  for (const [name, text] of entries) {
    if (!OUR_PREFIX.test(name) || known.has(name)) continue;
    if (text === undefined || SERVICE_VARIABLE.test(name)) continue;
    problems.push(unknownSetting(name, source, known));
  }
}

function unknownSetting(name: string, source: string, known: ReadonlySet<string>): ConfigError {
  const bare = name.replace(OUR_PREFIX, "");
  const nearest = known.has(bare) ? bare : nearestWord(name, known);
  return new ConfigError(`unknown setting ${name} from ${source}`, {
    hint:
      nearest === undefined
        ? "`walnut flags` lists all settings."
        : `Did you mean ${nearest}? \`walnut flags\` lists all settings.`,
  });
}

function collect(problems: ConfigError[], check: () => void): void {
  try {
    check();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(error);
  }
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
