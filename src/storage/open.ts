import { systemClock } from "../io/clock.ts";
import type { Clock } from "../io/clock.ts";
import { silentLog } from "../io/log.ts";
import type { Log } from "../io/log.ts";
import { STORAGE_RETRY_POLICY, systemRandom } from "../io/retry.ts";
import type { Random, RetryContext, RetryEvent, RetryPolicy } from "../io/retry.ts";
import type { AzureConfig } from "./azure-config.ts";
import { countedStorage } from "./counted.ts";
import type { CreateOnlyProbe } from "./create-only.ts";
import { deadlineStorage } from "./deadline.ts";
import { DirectoryStorage } from "./directory.ts";
import type { HealthRules } from "./failover-health.ts";
import type { FailoverOpenOptions, StoreToOpen } from "./failover-open.ts";
import type { GcsConfig } from "./gcs-config.ts";
import type { ProxyConfig } from "./http-proxy.ts";
import { heardStorage } from "./life-sign.ts";
import type { MirrorConfig } from "./mirror-open.ts";
import { PrefixedStorage } from "./prefixed.ts";
import { rateLimitedStorage } from "./rate-limited.ts";
import type { RcloneConfig } from "./rclone-config.ts";
import { RetryingStorage } from "./retrying.ts";
import type { SftpConfig } from "./sftp-config.ts";
import type { CallOptions, Storage } from "./storage.ts";
import type { SwiftConfig } from "./swift-config.ts";
import { StorageTraffic } from "./traffic.ts";
import type { Silence, StoreTraffic } from "./traffic.ts";

/** A directory on a local or mounted file system. */
export interface DirectoryConfig {
  readonly kind: "directory";
  /** Absolute; it must exist. */
  readonly path: string;
}

/** How long an object can't be removed from now on, and by whom it can nevertheless. */
export interface S3Lock {
  /** COMPLIANCE: by nobody; GOVERNANCE: by who has the right to. */
  readonly mode: "GOVERNANCE" | "COMPLIANCE";
  readonly periodSeconds: number;
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
  /** Keeps each new object from being removed; needs a bucket with object lock. */
  readonly lock?: S3Lock;
  /** "key=value&key=value", escaped as in URLs, for each new object. */
  readonly tags?: string;
  readonly isRequesterPays?: boolean;
  /** Headers of every request. */
  readonly requestHeaders?: Readonly<Record<string, string>>;
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

/** Stores that stand in for the first one, in their order: FAILOVER_STORAGES.md. */
export interface FailoverConfig {
  readonly stores: readonly { readonly name: string; readonly config: StorageConfig }[];
  readonly health: HealthRules;
}

/** What is asked of several stores. */
export type FailoverRequest = Pick<
  FailoverOpenOptions,
  "use" | "keys" | "probeFolder" | "cacheDirectory"
> & { readonly config: FailoverConfig };

/** Stores that get every object as well. */
export interface MirrorRequest {
  readonly config: MirrorConfig;
  /** Nothing is decided by what a list lacks. */
  readonly isReader: boolean;
}

/** What every opened storage is wrapped with. */
export interface OpenOptions extends CallOptions {
  /** Where all objects are, below the prefix of the store: segments joined by "/". */
  readonly folder?: string | undefined;
  /** Absent where there is one store. */
  readonly failover?: FailoverRequest | undefined;
  readonly mirror?: MirrorRequest | undefined;
  /** Where it is remembered that a directory has held objects; absent: an empty one is a new one. */
  readonly cacheDirectory?: string | undefined;
  /** How it is found out what a store does with create-only puts; `key` is below the folder. */
  readonly createOnly?: CreateOnlyProbe | undefined;
  /** The way to stores that are reached by HTTP; absent: it is direct. */
  readonly proxy?: ProxyConfig | undefined;
  /** For one request; retries are not counted in. */
  readonly requestTimeoutMs: number;
  /** In all for one call with its retries; absent = the retries' own limit. */
  readonly callTimeoutMs?: number;
  readonly uploadConcurrency: number;
  /** Of each store; counts for all that have it open with the same traffic. Absent = no limit. */
  readonly rateLimitBytesPerSecond?: number;
  /** Shared with other storages of this process; its own unless given. */
  readonly traffic?: StorageTraffic | undefined;
  /** Told of every request that is repeated; silent unless given. */
  readonly log?: Log;
  /** The system's unless given. */
  readonly clock?: Clock;
  readonly random?: Random;
  /** STORAGE_RETRY_POLICY unless given. */
  readonly retryPolicy?: RetryPolicy;
  /** Who waits for what a command will say; nobody unless given. */
  readonly audience?: Audience | undefined;
}

/** Who waits: "reader" for an answer, "watcher" for work that goes on also without being watched. */
export type Audience = "reader" | "watcher";

/** A store that is silent for so long is named to who waits for it. */
const SILENCE_MS = 10_000;
/** For a reader: how long a store may fail that has not answered once. */
const FIRST_ANSWER_MS = 30_000;

/** Opens the configured store, or stores, and wraps them: deadline, retry, rate limit. */
export async function openStorage(config: StorageConfig, options: OpenOptions): Promise<Storage> {
  const { clock = systemClock, log = silentLog, callTimeoutMs } = options;
  const traffic = options.traffic ?? new StorageTraffic(clock);
  const onRetry = retryListener(log, traffic, options);
  const retry = { clock, random: options.random ?? systemRandom, onRetry };
  const lasting = options.retryPolicy ?? STORAGE_RETRY_POLICY;
  const retryPolicy = options.audience === "reader" ? untilAnswered(lasting, traffic) : lasting;

  const all = { ...options, ...retry, log, retryPolicy, traffic };
  let storage = await openAll(config, all);
  if (callTimeoutMs !== undefined) storage = deadlineStorage(storage, callTimeoutMs, clock);
  return storage;
}

/** Whoever asks a store that is away wants to know it; what is half done outlasts an outage. */
function untilAnswered(policy: RetryPolicy, traffic: StorageTraffic): RetryPolicy {
  const firstMs = Math.min(FIRST_ANSWER_MS, policy.totalMs);
  return {
    ...policy,
    get totalMs() {
      return traffic.hasAnswered ? policy.totalMs : firstMs;
    },
  };
}

type AllOptions = OpenOptions &
  RetryContext & { readonly retryPolicy: RetryPolicy; readonly traffic: StorageTraffic };
/** With what one store shares of the traffic. */
type StoreOptions = Omit<AllOptions, "traffic"> & { readonly traffic: StoreTraffic };

type LoggedOptions = AllOptions & { readonly log: Log };

async function openAll(config: StorageConfig, options: LoggedOptions): Promise<Storage> {
  const { failover, mirror, retryPolicy } = options;
  if (mirror !== undefined) return await openWithMirrors(config, mirror, options);
  if (failover !== undefined) return await openSeveral(config, failover, options);
  return new RetryingStorage(await openInFolder(config, options), retryPolicy, options);
}

async function openSeveral(
  config: StorageConfig,
  { config: { stores, health }, ...request }: FailoverRequest,
  options: AllOptions & { readonly log: Log },
): Promise<Storage> {
  const [{ openFailover }, { BRISK_SHARE }] = await Promise.all([
    import("./failover-open.ts"),
    import("./failover-health.ts"),
  ]);
  // A store that is silent must leave time for the next one.
  const requestTimeoutMs = Math.min(options.requestTimeoutMs, health.checkTimeoutMs * BRISK_SHARE);
  const toOpen = [{ name: "default", config }, ...stores].map((one) =>
    storeToOpen(one, { ...options, requestTimeoutMs }),
  );
  return await openFailover(toOpen, { ...options, ...request, health });
}

async function openWithMirrors(
  config: StorageConfig,
  { config: { stores, ...rules }, isReader }: MirrorRequest,
  options: LoggedOptions,
): Promise<Storage> {
  const { openMirrored } = await import("./mirror-open.ts");
  const primary =
    options.failover === undefined
      ? storeToOpen({ name: "default", config }, options)
      : await openSeveral(config, options.failover, options);
  const mirrors = stores.map((one) => storeToOpen(one, options));
  return openMirrored(primary, mirrors, { ...options, ...rules, isReader });
}

function storeToOpen(
  { name, config }: { readonly name: string; readonly config: StorageConfig },
  options: AllOptions,
): StoreToOpen {
  return {
    name,
    title: titleOf(config, options.folder),
    settings: JSON.stringify([config, options.folder]),
    open: async (retryPolicy = options.retryPolicy) =>
      await openInFolder(config, { ...options, retryPolicy }),
  };
}

/** What a store is called before it is open. */
function titleOf(config: StorageConfig, folder: string | undefined): string {
  const parts = [...placeOf(config), ...(folder === undefined ? [] : [folder])];
  return `${config.kind === "directory" ? "file" : config.kind}://${parts.join("/")}`;
}

function placeOf(config: StorageConfig): readonly string[] {
  if (config.kind === "directory") return [config.path];
  if (config.kind === "sftp") return [config.host + config.path];
  if (config.kind === "rclone") return [config.remote];
  const whole = "bucket" in config ? config.bucket : config.container;
  const host = "endpoint" in config ? config.endpoint?.replace(/^\w+:\/\//, "") : undefined;
  return [host ?? "", whole, config.prefix].filter((part) => part !== "");
}

async function openInFolder(config: StorageConfig, options: AllOptions): Promise<Storage> {
  const traffic = options.traffic.of(titleOf(config, undefined));
  traffic.setRate(options.rateLimitBytesPerSecond);
  if (options.audience !== undefined) traffic.silence = silenceOf(options);
  const opened = await openStore(config, { ...options, traffic });
  // The others keep to the rate themselves, where the bytes go onto the network.
  const isSlowedHere = ["directory", "sftp", "rclone"].includes(config.kind);
  const slowed = isSlowedHere ? rateLimitedStorage(opened, traffic) : opened;
  const store = heardStorage(countedStorage(slowed, traffic.calls), traffic.life);
  return options.folder === undefined ? store : new PrefixedStorage(store, options.folder);
}

async function openStore(config: StorageConfig, options: StoreOptions): Promise<Storage> {
  options.signal.throwIfAborted();
  if (config.kind === "directory") {
    const storage = new DirectoryStorage(config.path, options.clock, options.cacheDirectory);
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
  const whole = await openWhole(config, { ...options, createOnly: probeOf(config, options) });
  return config.prefix === "" ? whole : new PrefixedStorage(whole, config.prefix);
}

/** The same of a whole bucket. */
function probeOf(
  { prefix }: { readonly prefix: string },
  { createOnly, folder = "" }: StoreOptions,
): CreateOnlyProbe | undefined {
  if (createOnly === undefined) return undefined;
  const parts = [prefix, folder, createOnly.key].filter((part) => part !== "");
  return { ...createOnly, key: parts.join("/") };
}

/** Each store is loaded when it is used: an SDK takes longer than a push to a directory in all. */
async function openWhole(
  config: Exclude<StorageConfig, DirectoryConfig | SftpConfig | RcloneConfig>,
  options: StoreOptions,
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

/** Requests that are silent at the same time are told of once. */
function silenceOf({ clock, log }: Pick<AllOptions, "clock" | "log">): Silence {
  let toldAtMs = Number.NEGATIVE_INFINITY;
  const tell = (store: string): void => {
    const nowMs = clock.monotonicMs();
    if (nowMs - toldAtMs < SILENCE_MS) return;
    toldAtMs = nowMs;
    log?.warning("the store does not answer; it is waited for", {
      store,
      silentSeconds: SILENCE_MS / 1000,
    });
  };
  return { afterMs: SILENCE_MS, tell };
}

function retryListener(
  log: Log,
  traffic: StorageTraffic,
  { audience }: Pick<OpenOptions, "audience">,
): (event: RetryEvent) => void {
  return ({ error, failures, delayMs, leftMs }) => {
    traffic.countRetry(delayMs);
    const fields = {
      error: error.message,
      failures,
      delayMs: Math.round(delayMs),
      givesUpInSeconds: audience === undefined ? undefined : Math.round(leftMs / 1000),
    };
    // The call may go on like this for long: who reads must not wait for its end to be told.
    const hint = failures === 1 && error.hint !== undefined ? { hint: error.hint } : {};
    log.warning("storage request failed and will be repeated", { ...fields, ...hint });
  };
}
