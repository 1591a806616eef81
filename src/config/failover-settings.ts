import { defaulted, setting } from "./setting.ts";
import { boolean, bytes, duration, secretJson, share, text } from "./value-types.ts";

/** The name of the first store. */
export const DEFAULT_STORAGE = "default";

/** What "--target-storage" says for no store in particular. */
export const ALL_STORAGES = "all";

/** Stores that stand in for the first one. */
export const failover = {
  storages: setting(
    "FAILOVER_STORAGES",
    secretJson,
    "Further stores, which stand in for the first one: of each its name and an object of its " +
      "settings. What a store lacks counts from the top level, where its name there has no prefix.",
  ),
  target: setting(
    "TARGET_STORAGE",
    text,
    'The only store to use: "default" or the name of another one. All, if unset or "all".',
  ),
  check: defaulted(
    "FAILOVER_STORAGES_CHECK",
    boolean,
    "Find out which stores are alive, and remember it.",
    { default: "true" },
  ),
  checkTimeout: defaulted(
    "FAILOVER_STORAGES_CHECK_TIMEOUT",
    duration({ minMs: 100 }),
    "How long a store may take to answer a check; a third of it for a request's silence.",
    { default: "30s" },
  ),
  checkSize: defaulted(
    "FAILOVER_STORAGES_CHECK_SIZE",
    bytes(0),
    "Size of the object that is stored to check a store for writing.",
    { default: "1mb", unit: "bytes" },
  ),
  cacheLifetime: defaulted(
    "FAILOVER_STORAGES_CACHE_LIFETIME",
    duration({ minMs: 0 }),
    "How long a store that was found dead is not checked again.",
    { default: "15m" },
  ),
  aliveLimit: defaulted(
    "FAILOVER_STORAGES_CACHE_EMA_ALIVE_LIMIT",
    share,
    "Aliveness from which a dead store counts as alive.",
    { default: "0.99" },
  ),
  deadLimit: defaulted(
    "FAILOVER_STORAGES_CACHE_EMA_DEAD_LIMIT",
    share,
    "Aliveness below which a store counts as dead.",
    { default: "0.88" },
  ),
  alphaAliveMax: defaulted(
    "FAILOVER_STORAGES_CACHE_EMA_ALPHA_ALIVE_MAX",
    share,
    "How far one result moves the aliveness of a store that is alive, at aliveness 0.",
    { default: "0.05" },
  ),
  alphaAliveMin: defaulted(
    "FAILOVER_STORAGES_CACHE_EMA_ALPHA_ALIVE_MIN",
    share,
    "The same at aliveness 1.",
    { default: "0.01" },
  ),
  alphaDeadMax: defaulted(
    "FAILOVER_STORAGES_CACHE_EMA_ALPHA_DEAD_MAX",
    share,
    "How far one result moves the aliveness of a store that is dead, at aliveness 0.",
    { default: "0.5" },
  ),
  alphaDeadMin: defaulted(
    "FAILOVER_STORAGES_CACHE_EMA_ALPHA_DEAD_MIN",
    share,
    "The same at aliveness 1.",
    { default: "0.1" },
  ),
} as const;
