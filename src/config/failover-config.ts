import { ConfigError } from "../errors.ts";
import type { HealthRules } from "../storage/failover-health.ts";
import type { FailoverConfig, StorageConfig } from "../storage/open.ts";
import { ALL_STORAGES, DEFAULT_STORAGE, failover } from "./failover-settings.ts";
import type { FoundSettings } from "./found-settings.ts";
import { type NamedStore, readStoreMap, requireDifferent } from "./store-map.ts";

/** The fail-over storages, in their order; undefined where there are none. Throws ConfigError. */
export function readFailoverConfig(
  found: FoundSettings,
  primary: StorageConfig | undefined,
): FailoverConfig | undefined {
  const stores = readStoreMap(found, failover.storages, { primary, purpose: "stands in for" });
  if (primary === undefined || stores.length === 0) return undefined;
  requireDifferent(
    [{ name: DEFAULT_STORAGE, config: primary }, ...stores],
    "What is moved from one to the other would be deleted.",
  );
  return { stores, health: readHealthRules(found) };
}

/** The only store to use; undefined for all. Throws ConfigError for one that is not there. */
export function readTargetStorage(
  found: FoundSettings,
  others: readonly NamedStore[],
): string | undefined {
  const target = found.get(failover.target);
  if (target === undefined || target === ALL_STORAGES) return undefined;
  const names = [DEFAULT_STORAGE, ...others.map(({ name }) => name)];
  if (names.includes(target)) return target;
  throw new ConfigError(`${found.describe(failover.target)}: there is no storage ${target}`, {
    hint: `There ${names.length === 1 ? "is" : "are"}: ${names.join(", ")}.`,
  });
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
