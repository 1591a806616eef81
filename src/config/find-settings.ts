import { ConfigError } from "../errors.ts";
import { fileState } from "../io/file-state.ts";
import { type ConfigFile, findHomeConfigFile, readConfigFile } from "./config-file.ts";
import { type Found, FoundSettings, parseFound } from "./found-settings.ts";
import { failover } from "./failover-settings.ts";
import { general } from "./general-settings.ts";
import { mirror } from "./mirror-settings.ts";
import { nearestWord } from "./nearest.ts";
import {
  OUR_PREFIX,
  type Setting,
  isSecretText,
  settingFlagNames,
  settingNames,
} from "./setting.ts";
import { SettingIndex } from "./settings.ts";
import { storeMapSecrets } from "./store-map.ts";

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
  /** In front of names, as a reader knows them. */
  readonly dashes: "--" | "";
  readonly entries: Iterable<readonly [string, string | undefined]>;
  readonly find: (name: string) => Setting | undefined;
}

interface Given {
  readonly name: string;
  readonly text: string;
}

/** What Kubernetes adds to the environment for a service that is called "walnut" or "walg". */
const SERVICE_VARIABLE = /_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?$/;
/** Variables that the SDKs read by themselves. */
const SDK_VARIABLE = /^(AWS|AZURE)_/;
const SERVICE_URL = /^(tcp|udp|sctp):\/\//;

/**
 * Looks for every setting on the command line, in the environment and in the config file, in this
 * order. Expected failures are collected as problems, so that a log can be opened nevertheless.
 */
export async function findSettings(
  sources: SettingSources,
  index = new SettingIndex(),
): Promise<FoundSettings> {
  const collector = new Collector(index);
  const byName = (name: string) => index.byName(name);
  collector.add({
    title: "the command line",
    dashes: "--",
    entries: sources.flags,
    find: (flag) => index.byFlag(flag),
  });
  collector.add({
    title: "the environment",
    dashes: "",
    entries: Object.entries(sources.environment).filter(([name, text = ""]) => isOurs(name, text)),
    find: byName,
  });
  const file = await collector.attempt(() =>
    readFile(collector.text(general.configFile), sources.homeDirectory),
  );
  if (file !== undefined) {
    collector.add({ title: file.path, dashes: "", entries: file.values, find: byName });
  }
  return new FoundSettings(collector.found, {
    problems: collector.problems,
    secrets: collector.secrets,
    sdkVariables: findSdkVariables(file, sources.environment, index),
    ...(file === undefined ? {} : { configFile: file.path, configState: file.state }),
  });
}

/** Takes one place after the other, the strongest first. */
class Collector {
  readonly found = new Map<Setting, Found>();
  readonly problems: ConfigError[] = [];
  readonly secrets: string[] = [];
  readonly #index: SettingIndex;
  /** Settings that a stronger place has, also those that it takes away. */
  readonly #decided = new Map<Setting, string>();

  constructor(index: SettingIndex) {
    this.#index = index;
  }

  add(place: Place): void {
    for (const [setting, given] of this.#group(place)) {
      if (this.#decided.has(setting)) continue;
      const first = this.#choose(setting, given, place);
      this.#decided.set(setting, first.text);
      if (first.text === "") continue;
      const one = { name: place.dashes + first.name, source: place.title, text: first.text };
      this.found.set(setting, one);
      try {
        checkText(setting, one);
      } catch (error) {
        this.#note(error);
      }
    }
  }

  /** The text that was found so far; "" when a flag takes the setting away. */
  text(setting: Setting): string | undefined {
    return this.#decided.get(setting);
  }

  /** Collects a ConfigError instead of rejecting with it. */
  async attempt<T>(action: () => Promise<T>): Promise<T | undefined> {
    try {
      return await action();
    } catch (error) {
      this.#note(error);
      return undefined;
    }
  }

  #note(error: unknown): void {
    if (!(error instanceof ConfigError)) throw error;
    this.problems.push(error);
  }

  #group({ title, dashes, entries, find }: Place): ReadonlyMap<Setting, readonly Given[]> {
    const groups = new Map<Setting, Given[]>();
    for (const [name, raw = ""] of entries) {
      // Files in directories of variables end in a line end.
      const text = raw.replace(/[\r\n]+$/, "");
      // An empty variable counts as absent; an empty flag takes away what weaker places say.
      if (text === "" && dashes === "") continue;
      const setting = find(name);
      if (setting === undefined) {
        if (OUR_PREFIX.test(name)) this.problems.push(unknownSetting(name, title, this.#index));
        continue;
      }
      if (isSecretText(setting.type, text)) this.secrets.push(text);
      if (setting === failover.storages || setting === mirror.stores) {
        this.secrets.push(...storeMapSecrets(text, this.#index));
      }
      groups.set(setting, [...(groups.get(setting) ?? []), { name, text }]);
    }
    return groups;
  }

  /** The strongest of several names. WALNUT_NAME beside WALG_NAME is meant to override it. */
  #choose(setting: Setting, given: readonly Given[], { title, dashes }: Place): Given {
    const order = dashes === "" ? settingNames(setting) : settingFlagNames(setting);
    const sorted = given.toSorted(
      (one, other) => order.indexOf(one.name) - order.indexOf(other.name),
    );
    const [first = { name: "", text: "" }] = sorted;
    const other = sorted.find(({ text }) => text !== first.text);
    if (other !== undefined && first.name !== `WALNUT_${setting.name}`) {
      this.problems.push(
        new ConfigError(
          `${dashes}${first.name} and ${dashes}${other.name} from ${title} contradict each other`,
          { hint: "They are two names of one setting: keep one of them." },
        ),
      );
    }
    return first;
  }
}

function isOurs(name: string, text: string): boolean {
  return !SERVICE_VARIABLE.test(name) && !(name.endsWith("_PORT") && SERVICE_URL.test(text));
}

async function readFile(
  path: string | undefined,
  homeDirectory: string | undefined,
): Promise<(ConfigFile & { readonly state: string | undefined }) | undefined> {
  if (path === "") return undefined;
  const chosen =
    path ?? (homeDirectory === undefined ? undefined : await findHomeConfigFile(homeDirectory));
  if (chosen === undefined) return undefined;
  const state = fileState(chosen);
  return { ...(await readConfigFile(chosen)), state };
}

/** Without our prefix, a variable that changes nothing may well belong to another program. */
function checkText(setting: Setting, found: Found): void {
  if (setting.effect.kind === "none" && !OUR_PREFIX.test(found.name)) return;
  parseFound(setting, found);
}

function unknownSetting(name: string, title: string, index: SettingIndex): ConfigError {
  const nearest = nearestName(name, index);
  return new ConfigError(`unknown setting ${name} from ${title}`, {
    hint: `${nearest === undefined ? "" : `Did you mean ${nearest}? `}\`walnut flags\` lists all.`,
  });
}

/** Prefers the prefix that the user wrote, and a name that has no prefix over a far one. */
function nearestName(name: string, index: SettingIndex): string | undefined {
  const bare = name.replace(OUR_PREFIX, "");
  if (index.byName(bare) !== undefined) return bare;
  const prefix = name.slice(0, name.length - bare.length);
  const names = index.names();
  const own = names.filter((one) => one.startsWith(prefix));
  return nearestWord(name, own) ?? nearestWord(bare, names);
}

function findSdkVariables(
  file: ConfigFile | undefined,
  environment: SettingSources["environment"],
  index: SettingIndex,
): ReadonlyMap<string, string> {
  return new Map(
    [...(file?.values ?? [])].filter(
      ([name]) =>
        SDK_VARIABLE.test(name) &&
        index.byName(name) === undefined &&
        (environment[name] ?? "") === "",
    ),
  );
}
