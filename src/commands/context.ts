import type { Config } from "../config/config.ts";
import type { OpenedKeys } from "../crypto/open.ts";
import { ConfigError } from "../errors.ts";
import {
  CREATE_ONLY_KEY,
  groupOfKey,
  isRewrittenKey,
  PROBE_FOLDER,
} from "../layout/backup-group.ts";
import { WAL_FOLDER } from "../layout/keys.ts";
import { ENCRYPTION_MARK_KEY, isSecretKey } from "../layout/secrecy.ts";
import type { StorageUse } from "../storage/failover-open.ts";
import type { FailoverRequest } from "../storage/open.ts";
import type { Storage } from "../storage/storage.ts";
import type { Context } from "./command.ts";
import { ofTarget, withStorage } from "./storage-choice.ts";

/** Of the silence and of the repetitions of a check: who runs one waits for what it says. */
const CHECK_MS = 15_000;

type ContextParts = Omit<Context, "openStorage" | "openStored">;

/** Makes the Context of one run: everything in `parts`, and the way to open the store. */
export function createContext(parts: ContextParts): Context {
  return {
    ...parts,
    openStorage: async (use) => (await openSides(parts, use)).readable,
    openStored: async () => (await openSides(parts)).stored,
  };
}

/** The same run with one storage only, or with "all". Throws ConfigError if there is no such. */
export function inStorage(context: Context, name: string): Context {
  const config = withStorage(context.config, name);
  const isOne = context.config.failover === undefined && context.config.mirror === undefined;
  return isOne || config === context.config ? context : createContext({ ...context, config });
}

/** A repository, seen in two ways; closing one closes both. */
export interface RepositorySides {
  /** Objects as they are stored. */
  readonly stored: Storage;
  /** The same through encryption, as all other commands see it. */
  readonly readable: Storage;
}

/** Opens the store of a configuration. Throws ConfigError if there is none. */
export async function openSides(
  parts: Pick<ContextParts, "config" | "clock" | "log" | "signal" | "traffic" | "audience">,
  use: StorageUse = "all",
): Promise<RepositorySides> {
  const { clock, log, signal } = parts;
  const config = ofTarget(parts.config);
  if (config.storage === undefined) {
    throw new ConfigError("no storage is configured", {
      hint:
        "Set WALNUT_S3_PREFIX=s3://bucket/folder or WALNUT_FILE_PREFIX=/directory (WALG_ works, " +
        "too) in the environment or in a config file; `walnut config` shows what was read.",
    });
  }
  const keys = await openConfiguredKeys(parts);
  const { openStorage } = await import("../storage/open.ts");
  // Which that one has loaded.
  const { STORAGE_RETRY_POLICY } = await import("../io/retry.ts");
  const isCheck = use === "check";
  const stored = await openStorage(config.storage, {
    clock,
    signal,
    log,
    traffic: parts.traffic,
    audience: parts.audience,
    folder: config.storageFolder,
    failover: failoverRequest(config, use),
    ...(config.mirror === undefined
      ? {}
      : { mirror: { config: config.mirror, isReader: use === "alive" } }),
    cacheDirectory: config.cacheDirectory,
    createOnly: { cacheDirectory: config.cacheDirectory, key: CREATE_ONLY_KEY },
    proxy: config.proxy,
    requestTimeoutMs: isCheck
      ? Math.min(CHECK_MS, config.requestTimeoutMs)
      : config.requestTimeoutMs,
    ...(isCheck ? { retryPolicy: { ...STORAGE_RETRY_POLICY, totalMs: CHECK_MS } } : {}),
    uploadConcurrency: config.uploadConcurrency,
    ...(config.networkRateLimitBytesPerSecond === undefined
      ? {}
      : { rateLimitBytesPerSecond: config.networkRateLimitBytesPerSecond }),
  });
  const { EncryptedStorage } = await import("../storage/encrypted.ts");
  const isPlainRead = config.encryption?.isPlainRead ?? false;
  const { MarkedRepository } = await import("../storage/encryption-guard.ts");
  const guard = new MarkedRepository({
    crypter: keys.crypter,
    markKey: ENCRYPTION_MARK_KEY,
    sampleFolder: WAL_FOLDER,
    cacheDirectory: config.cacheDirectory,
    isPlainWritten: keys.crypter === undefined && config.isUnencryptedWritten,
    log,
  });
  const rules = { ...keys, isSecret: isSecretKey, isPlainRead, guard };
  return { stored, readable: new EncryptedStorage(stored, rules) };
}

function failoverRequest(
  { failover, cacheDirectory }: Config,
  use: StorageUse,
): FailoverRequest | undefined {
  if (failover === undefined) return undefined;
  const keys = { groupOf: groupOfKey, isRewritten: isRewrittenKey };
  return { config: failover, use, keys, probeFolder: PROBE_FOLDER, cacheDirectory };
}

/** Before the store is asked for anything: a key that can't be used refuses every command. */
async function openConfiguredKeys({
  config: { encryption, proxy, requestTimeoutMs: timeoutMs },
  clock,
  log,
  signal,
}: Pick<ContextParts, "config" | "clock" | "log" | "signal">): Promise<OpenedKeys> {
  if (encryption === undefined) return { decrypters: [] };
  const { openKeys } = await import("../crypto/open.ts");
  const options = { clock, log, signal };
  // KMS alone is asked over the network; its SDK would go directly.
  if (proxy === undefined) return await openKeys(encryption, options);
  const { HttpSender } = await import("../storage/http-sender.ts");
  const requestHandler = new HttpSender({ timeoutMs, clock, proxy });
  return await openKeys(encryption, { ...options, requestHandler });
}
