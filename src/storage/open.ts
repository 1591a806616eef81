import { systemClock } from "../io/clock.ts";
import type { Clock } from "../io/clock.ts";
import { silentLog } from "../io/log.ts";
import type { Log } from "../io/log.ts";
import { RateLimit } from "../io/rate-limit.ts";
import { STORAGE_RETRY_POLICY, systemRandom } from "../io/retry.ts";
import type { Random, RetryContext, RetryEvent, RetryPolicy } from "../io/retry.ts";
import type { AzureConfig } from "./azure-config.ts";
import { DeadlineStorage } from "./deadline.ts";
import { DirectoryStorage } from "./directory.ts";
import type { GcsConfig } from "./gcs-config.ts";
import { PrefixedStorage } from "./prefixed.ts";
import { RateLimitedStorage } from "./rate-limited.ts";
import type { RcloneConfig } from "./rclone-config.ts";
import { RetryingStorage } from "./retrying.ts";
import type { SftpConfig } from "./sftp-config.ts";
import type { CallOptions, Storage } from "./storage.ts";
import type { SwiftConfig } from "./swift-config.ts";

/** A directory on a local or mounted file system. */
export interface DirectoryConfig {
  readonly kind: "directory";
  /** Absolute; it must exist. */
  readonly path: string;
}

/** An S3 bucket and a prefix in it. What is absent is left to the SDK's own sources. */
export interface S3Config {
  readonly kind: "s3";
  readonly bucket: string;
  /** Segments joined by "/", "" for the whole bucket. */
  readonly prefix: string;
  readonly endpoint?: string;
  readonly region?: string;
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  readonly profile?: string;
  readonly roleArn?: string;
  readonly roleSessionName?: string;
  readonly isPathStyle: boolean;
  readonly isDualStack: boolean;
  readonly caFile?: string;
  readonly storageClass?: string;
  readonly sse?: string;
  readonly sseKmsKeyId?: string;
  readonly sseCustomerKey?: string;
  readonly maxPartBytes: number;
  readonly useListObjectsV1: boolean;
  readonly deleteBatchSize: number;
}

export type StorageConfig =
  | DirectoryConfig
  | S3Config
  | AzureConfig
  | GcsConfig
  | SftpConfig
  | SwiftConfig
  | RcloneConfig;

/** What every opened storage is wrapped with. */
export interface OpenOptions extends CallOptions {
  /** For one request; retries are not counted in. */
  readonly requestTimeoutMs: number;
  /** In all for one call with its retries; absent = the retries' own limit. */
  readonly callTimeoutMs?: number;
  readonly uploadConcurrency: number;
  readonly rateLimitBytesPerSecond?: number;
  /** Told of every request that is repeated; silent unless given. */
  readonly log?: Log;
  /** The system's unless given. */
  readonly clock?: Clock;
  readonly random?: Random;
  /** STORAGE_RETRY_POLICY unless given. */
  readonly retryPolicy?: RetryPolicy;
}

/** Opens the configured store and wraps it: rate limit, deadline, retry. */
export async function openStorage(config: StorageConfig, options: OpenOptions): Promise<Storage> {
  const { clock = systemClock, log = silentLog, callTimeoutMs } = options;
  const retry = { clock, random: options.random ?? systemRandom, onRetry: retryLogger(log) };
  const retryPolicy = options.retryPolicy ?? STORAGE_RETRY_POLICY;

  const store = await openStore(config, { ...options, ...retry, retryPolicy });
  let storage: Storage = new RetryingStorage(store, retryPolicy, retry);
  if (callTimeoutMs !== undefined) storage = new DeadlineStorage(storage, callTimeoutMs, clock);
  if (options.rateLimitBytesPerSecond !== undefined) {
    const limit = new RateLimit(options.rateLimitBytesPerSecond, clock);
    storage = new RateLimitedStorage(storage, limit);
  }
  return storage;
}

async function openStore(
  config: StorageConfig,
  options: OpenOptions & RetryContext & { readonly retryPolicy: RetryPolicy },
): Promise<Storage> {
  options.signal.throwIfAborted();
  if (config.kind === "directory") {
    const storage = new DirectoryStorage(config.path, options.clock);
    await storage.requireRoot();
    return storage;
  }
  if (config.kind === "sftp") {
    const { openSftpStorage } = await import("./sftp.ts");
    return await openSftpStorage(config, options);
  }
  if (config.kind === "rclone") {
    const { openRcloneStorage } = await import("./rclone.ts");
    return await openRcloneStorage(config, options);
  }
  const whole = await openWhole(config, options);
  return config.prefix === "" ? whole : new PrefixedStorage(whole, config.prefix);
}

/** Each store is loaded when it is used: an SDK takes longer than a push to a directory in all. */
async function openWhole(
  config: Exclude<StorageConfig, DirectoryConfig | SftpConfig | RcloneConfig>,
  options: OpenOptions & RetryContext & { readonly retryPolicy: RetryPolicy },
): Promise<Storage> {
  if (config.kind === "s3") return await (await import("./s3.ts")).openS3Storage(config, options);
  if (config.kind === "swift") {
    return await (await import("./swift.ts")).openSwiftStorage(config, options);
  }
  if (config.kind === "azure") {
    return await (await import("./azure.ts")).openAzureStorage(config, options);
  }
  return await (await import("./gcs.ts")).openGcsStorage(config, options);
}

function retryLogger(log: Log): (event: RetryEvent) => void {
  return ({ error, failures, delayMs }) => {
    const fields = { error: error.message, failures, delayMs: Math.round(delayMs) };
    log.warning("storage request failed and will be repeated", fields);
  };
}
