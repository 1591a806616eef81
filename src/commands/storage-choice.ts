import type { Config } from "../config/config.ts";
import { ALL_STORAGES, DEFAULT_STORAGE } from "../config/failover-settings.ts";
import { ConfigError } from "../errors.ts";

/** The names of all configured storages, in their order. */
export function storageNames({ failover }: Config): readonly string[] {
  return [DEFAULT_STORAGE, ...(failover?.stores ?? []).map(({ name }) => name)];
}

/**
 * The configuration with one storage only, or with one of the mirrors; "all" changes nothing. The
 * mirrors are those of all storages together: where there are several, one has none of its own.
 * Throws ConfigError.
 */
export function withStorage(config: Config, name: string): Config {
  if (name === ALL_STORAGES) return config;
  const { failover, targetStorage: _, ...rest } = config;
  const { mirror, ...alone } = rest;
  if (name === DEFAULT_STORAGE) return failover === undefined ? rest : alone;
  const store = failover?.stores.find((one) => one.name === name);
  if (store !== undefined) return { ...alone, storage: store.config };
  const copy = mirror?.stores.find((one) => one.name === name);
  if (copy !== undefined) return { ...alone, storage: copy.config };
  throw new ConfigError(`there is no storage ${name}`, {
    hint: `Configured: ${storageNames(config).join(", ")}.`,
  });
}

/** The configuration with the storage only that the user wants to be the only one, if any. */
export function ofTarget(config: Config): Config {
  const { targetStorage, mirror } = config;
  if (targetStorage === undefined) return config;
  const isMirror = mirror?.stores.some(({ name }) => name === targetStorage) ?? false;
  const mirrored = mirror === undefined || isMirror ? {} : { mirror };
  return { ...withStorage(config, targetStorage), ...mirrored };
}

/** The names of the storages that commands use. */
export function usedStorages(config: Config): readonly string[] {
  return config.targetStorage === undefined ? storageNames(config) : [config.targetStorage];
}

/** What a storage is called where a list has no names of its own: there is one then. */
export function onlyStorageName({ targetStorage }: Config): string {
  return targetStorage ?? DEFAULT_STORAGE;
}
