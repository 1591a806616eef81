import { ConfigError } from "../errors.ts";
import type { Storage } from "../storage/storage.ts";
import type { Context } from "./command.ts";

type ContextParts = Omit<Context, "openStorage">;

/** Makes the Context of one run: everything in `parts`, and the way to open the store. */
export function createContext(parts: ContextParts): Context {
  return { ...parts, openStorage: () => openConfigured(parts) };
}

async function openConfigured({ config, log, signal }: ContextParts): Promise<Storage> {
  if (config.storage === undefined) {
    throw new ConfigError("no storage is configured", {
      hint:
        "Set WALNUT_S3_PREFIX=s3://bucket/folder or WALNUT_FILE_PREFIX=/directory (WALG_ works, " +
        "too) in the environment or in a config file; `walnut config` shows what was read.",
    });
  }
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
  if (config.storageFolder === undefined) return storage;
  const { PrefixedStorage } = await import("../storage/prefixed.ts");
  return new PrefixedStorage(storage, config.storageFolder);
}
