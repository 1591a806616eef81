import { ConfigError, FormatError } from "../errors.ts";
import type { StorageConfig } from "../storage/open.ts";
import { ALL_STORAGES, DEFAULT_STORAGE } from "./failover-settings.ts";
import { type Found, FoundSettings } from "./found-settings.ts";
import { parseJsonObject } from "./json-file.ts";
import { OUR_PREFIX, type Setting, isSecretText } from "./setting.ts";
import { SettingIndex } from "./settings.ts";
import { isStorePrefix, isStoreSetting, readStorageConfig } from "./storage-config.ts";

/** A store besides the first one, as a setting names it. */
export interface NamedStore {
  readonly name: string;
  readonly config: StorageConfig;
}

/**
 * The stores in a map from names to settings, in byte order of the names; none where the setting is
 * absent. `purpose`: what they do for the first one. Throws ConfigError, also without a first one.
 */
export function readStoreMap(
  found: FoundSettings,
  setting: Setting<string>,
  { primary, purpose }: { readonly primary: StorageConfig | undefined; readonly purpose: string },
): readonly NamedStore[] {
  const text = found.get(setting);
  if (text === undefined) return [];
  const members = [...parseMap(found, setting, text)].toSorted(byName);
  if (members.length > 0 && primary === undefined) {
    throw new ConfigError(`${found.describe(setting)} ${purpose} no storage`, {
      hint: "Configure the first one outside of it, as if it were the only one.",
    });
  }
  const index = new SettingIndex();
  return members.map(([name, settings]) => ({
    name,
    config: readMember(found, setting, { name, settings }, index),
  }));
}

/** Secrets of all stores in the text of the setting. */
export function storeMapSecrets(text: string, index: SettingIndex): readonly string[] {
  try {
    return [...parseJsonObject(text).values()].flatMap((settings) =>
      [...parseJsonObject(settings)].flatMap(([key, value]) => {
        const type = index.byName(key.toUpperCase())?.type;
        return type !== undefined && isSecretText(type, value) ? [value] : [];
      }),
    );
  } catch (error) {
    // Whoever reads the setting says what is wrong with it.
    if (error instanceof FormatError) return [];
    throw error;
  }
}

function parseMap(
  found: FoundSettings,
  setting: Setting<string>,
  text: string,
): ReadonlyMap<string, string> {
  try {
    return parseJsonObject(text);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new ConfigError(`${found.describe(setting)}: ${error.message}`, {
      hint: 'It takes an object: {"name": {"WALG_S3_PREFIX": "s3://bucket/folder"}}.',
      cause: error,
    });
  }
}

function byName([one]: readonly [string, string], [other]: readonly [string, string]): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}

function readMember(
  found: FoundSettings,
  setting: Setting,
  { name, settings }: { readonly name: string; readonly settings: string },
  index: SettingIndex,
): StorageConfig {
  const source = `storage ${JSON.stringify(name)} in ${found.describe(setting)}`;
  if (name === DEFAULT_STORAGE || name === ALL_STORAGES || !/^[^\s/#]+$/.test(name)) {
    throw new ConfigError(`${source} can't be called that`, {
      hint: `${DEFAULT_STORAGE} is the first storage, ${ALL_STORAGES} means all; a name has no blanks, slashes or #.`,
    });
  }
  const own = ownSettings(settings, source, index);
  const all = new Map<Setting, Found>([...inherited(found), ...own]);
  const config = readStorageConfig(new FoundSettings(all));
  if (config !== undefined) return config;
  throw new ConfigError(`${source} names no place to store in`, {
    hint: "Give it a prefix of its own, such as WALG_S3_PREFIX or WALG_FILE_PREFIX.",
  });
}

function ownSettings(
  text: string,
  source: string,
  index: SettingIndex,
): ReadonlyMap<Setting, Found> {
  const own = new Map<Setting, Found>();
  let members: ReadonlyMap<string, string>;
  try {
    members = parseJsonObject(text);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new ConfigError(`${source} is no object of settings`, { cause: error });
  }
  for (const [key, value] of members) {
    const setting = index.byName(key.toUpperCase());
    const text = value.replace(/[\r\n]+$/, "");
    if (setting !== undefined && isStoreSetting(setting)) {
      if (text !== "") own.set(setting, { name: key, source, text });
    } else if (setting !== undefined || OUR_PREFIX.test(key.toUpperCase())) {
      throw new ConfigError(`${key} of ${source} is no setting of a store`, {
        hint: "All other settings stand outside and count for all stores.",
      });
    }
  }
  return own;
}

/** As for WAL-G: what stands at the top level under a name without prefix. */
function inherited(found: FoundSettings): readonly (readonly [Setting, Found])[] {
  return [...found.given()].flatMap(({ setting }) => {
    const origin = found.origin(setting);
    if (origin === undefined || !isStoreSetting(setting) || isStorePrefix(setting)) return [];
    const bare = origin.name.replace(/^--/, "").replaceAll("-", "_").toUpperCase();
    return OUR_PREFIX.test(bare) ? [] : [[setting, origin] as const];
  });
}

/** Throws ConfigError, with the hint, where two of them are one place. */
export function requireDifferent(stores: readonly NamedStore[], hint: string): void {
  const seen = new Map<string, string>();
  for (const { name, config } of stores) {
    const place = JSON.stringify(placeOf(config));
    const other = seen.get(place);
    if (other !== undefined) {
      throw new ConfigError(`the storages ${other} and ${name} are the same place`, { hint });
    }
    seen.set(place, name);
  }
}

const PLACE_MEMBERS: ReadonlySet<string> = new Set([
  "kind",
  "path",
  "bucket",
  "container",
  "prefix",
  "endpoint",
  "account",
  "host",
  "port",
  "remote",
  "storageUrl",
  "region",
]);

function placeOf(config: StorageConfig): readonly (readonly [string, unknown])[] {
  return Object.entries(config).filter(([member]) => PLACE_MEMBERS.has(member));
}
