import type { OpenedKeys } from "../crypto/open.ts";
import { ConfigError } from "../errors.ts";
import { WAL_FOLDER } from "../layout/keys.ts";
import { ENCRYPTION_MARK_KEY, isSecretKey } from "../layout/secrecy.ts";
import type { Storage } from "../storage/storage.ts";
import type { Context } from "./command.ts";

type ContextParts = Omit<Context, "openStorage">;

/** Makes the Context of one run: everything in `parts`, and the way to open the store. */
export function createContext(parts: ContextParts): Context {
  return { ...parts, openStorage: () => openConfigured(parts) };
}

async function openConfigured(parts: ContextParts): Promise<Storage> {
  const { config, log, signal } = parts;
  if (config.storage === undefined) {
    throw new ConfigError("no storage is configured", {
      hint:
        "Set WALNUT_S3_PREFIX=s3://bucket/folder or WALNUT_FILE_PREFIX=/directory (WALG_ works, " +
        "too) in the environment or in a config file; `walnut config` shows what was read.",
    });
  }
  const keys = await openConfiguredKeys(parts);
  const { openStorage } = await import("../storage/open.ts");
  const storage = await openStorage(config.storage, {
    signal,
    log,
    requestTimeoutMs: config.requestTimeoutMs,
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
  if (config.storageFolder === undefined) return new EncryptedStorage(storage, rules);
  const { PrefixedStorage } = await import("../storage/prefixed.ts");
  return new EncryptedStorage(new PrefixedStorage(storage, config.storageFolder), rules);
}

/** Before the store is asked for anything: a key that can't be used refuses every command. */
async function openConfiguredKeys({
  config: { encryption },
  clock,
  log,
  signal,
}: ContextParts): Promise<OpenedKeys> {
  if (encryption === undefined) return { decrypters: [] };
  const { openKeys } = await import("../crypto/open.ts");
  return await openKeys(encryption, { clock, log, signal });
}
