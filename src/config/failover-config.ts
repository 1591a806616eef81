import { ConfigError, FormatError } from "../errors.ts";
import type { HealthRules } from "../storage/failover-health.ts";
import type { FailoverConfig, StorageConfig } from "../storage/open.ts";
import { ALL_STORAGES, DEFAULT_STORAGE, failover } from "./failover-settings.ts";
import { type Found, FoundSettings } from "./found-settings.ts";
import { parseJsonObject } from "./json-file.ts";
import { OUR_PREFIX, type Setting } from "./setting.ts";
import { SettingIndex } from "./settings.ts";
import { isStoreSetting, isStorePrefix, readStorageConfig } from "./storage-config.ts";

/** The fail-over storages, in their order; undefined where there are none. Throws ConfigError. */
export function readFailoverConfig(
  found: FoundSettings,
  primary: StorageConfig | undefined,
): FailoverConfig | undefined {
  const text = found.get(failover.storages);
  const members = text === undefined ? [] : [...parseMap(found, text)].toSorted(byName);
  if (members.length === 0) return undefined;
  if (primary === undefined) {
    throw new ConfigError(`${found.describe(failover.storages)} stands in for no storage`, {
      hint: "Configure the first one outside of it, as if it were the only one.",
    });
  }
  const index = new SettingIndex();
  const stores = members.map(([name, settings]) => ({
    name,
    config: readMember(found, { name, settings }, index),
  }));
  requireDifferent([{ name: DEFAULT_STORAGE, config: primary }, ...stores]);
  return { stores, health: readHealthRules(found) };
}

/** The only store to use; undefined for all. Throws ConfigError for one that is not there. */
export function readTargetStorage(
  found: FoundSettings,
  config: FailoverConfig | undefined,
): string | undefined {
  const target = found.get(failover.target);
  if (target === undefined || target === ALL_STORAGES) return undefined;
  const names = [DEFAULT_STORAGE, ...(config?.stores ?? []).map(({ name }) => name)];
  if (names.includes(target)) return target;
  throw new ConfigError(`${found.describe(failover.target)}: there is no storage ${target}`, {
    hint: `There ${names.length === 1 ? "is" : "are"}: ${names.join(", ")}.`,
  });
}

/** Secrets of all stores in the text of the setting. */
export function failoverSecrets(text: string, index: SettingIndex): readonly string[] {
  try {
    return [...parseJsonObject(text).values()].flatMap((settings) =>
      [...parseJsonObject(settings)].flatMap(([key, value]) =>
        index.byName(key.toUpperCase())?.type.isSecret === true ? [value] : [],
      ),
    );
  } catch (error) {
    // Whoever reads the setting says what is wrong with it.
    if (error instanceof FormatError) return [];
    throw error;
  }
}

function parseMap(found: FoundSettings, text: string): ReadonlyMap<string, string> {
  try {
    return parseJsonObject(text);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new ConfigError(`${found.describe(failover.storages)}: ${error.message}`, {
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
  { name, settings }: { readonly name: string; readonly settings: string },
  index: SettingIndex,
): StorageConfig {
  const source = `storage ${JSON.stringify(name)} in ${found.describe(failover.storages)}`;
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

/** Objects would be deleted as the copies that they are not. */
function requireDifferent(
  stores: readonly { readonly name: string; readonly config: StorageConfig }[],
): void {
  const seen = new Map<string, string>();
  for (const { name, config } of stores) {
    const place = JSON.stringify(placeOf(config));
    const other = seen.get(place);
    if (other !== undefined) {
      throw new ConfigError(`the storages ${other} and ${name} are the same place`, {
        hint: "What is moved from one to the other would be deleted.",
      });
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

function readHealthRules(found: FoundSettings): HealthRules {
  return {
    isChecked: found.get(failover.check),
    checkTimeoutMs: found.get(failover.checkTimeout),
    checkBytes: found.get(failover.checkSize),
    lifetimeMs: found.get(failover.cacheLifetime),
    aliveLimit: found.get(failover.aliveLimit),
    deadLimit: found.get(failover.deadLimit),
    alphaAlive: { min: found.get(failover.alphaAliveMin), max: found.get(failover.alphaAliveMax) },
    alphaDead: { min: found.get(failover.alphaDeadMin), max: found.get(failover.alphaDeadMax) },
  };
}
