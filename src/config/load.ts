import { join } from "node:path";
import { parseCompressionLevel } from "../codec/table.ts";
import { ConfigError } from "../errors.ts";
import { ownTemporaryDirectory } from "../io/own-user.ts";
import { archive } from "./archive-settings.ts";
import { backup } from "./backup-settings.ts";
import type { ArchiveQueueConfig, Config, PostgresConfig, RetentionConfig } from "./config.ts";
import { readEncryptionConfig } from "./encryption-config.ts";
import { encryption } from "./encryption-settings.ts";
import { readFailoverConfig, readTargetStorage } from "./failover-config.ts";
import { FoundSettings } from "./found-settings.ts";
import { general } from "./general-settings.ts";
import { readMirrorConfig } from "./mirror-config.ts";
import { postgres } from "./postgres-settings.ts";
import { retention } from "./retention-settings.ts";
import { preferredName } from "./setting.ts";
import { readProxies, readStorageConfig, readStorageFolder } from "./storage-config.ts";
import { defined } from "./store-url.ts";
import { wal } from "./wal-settings.ts";

/** What the defaults depend on. */
export interface Surroundings {
  readonly homeDirectory?: string;
  readonly cpuCount: number;
}

/** Tar parts packed at the same time with TURBO, as in WAL-G. */
const TURBO_DISK_CONCURRENCY = 4;

/**
 * The typed, frozen configuration. Throws ConfigError with all that is wrong: unknown, unreadable
 * and contradicting settings, and those that ask for protection or for a store that does not exist
 * yet, because to go on without them would break a promise.
 */
export function makeConfig(found: FoundSettings, surroundings: Surroundings): Config {
  throwAll([...found.beside.problems, ...refusals(found)]);
  return deepFreeze(assemble(found, surroundings));
}

/** A configuration where nothing is set, for commands that need none. */
export function defaultConfig(surroundings: Surroundings): Config {
  // What needs no settings keeps nothing either.
  const { homeDirectory = "/" } = surroundings;
  return makeConfig(new FoundSettings(new Map()), { ...surroundings, homeDirectory });
}

/** Settings that were given and lack what the user may rely on, each as a sentence without stop. */
export function settingWarnings(found: FoundSettings): readonly string[] {
  return broken(found, "warning").map(({ what, reason }) => `${what} has no effect: ${reason}`);
}

function refusals(found: FoundSettings): readonly ConfigError[] {
  return broken(found, "refused").map(
    ({ what, reason }) =>
      new ConfigError(`${what} is not supported: ${reason}`, {
        hint: "Nothing was read or written. Remove the setting only if you can do without it.",
      }),
  );
}

/** Settings with this effect that were given and ask for something. */
function broken(
  found: FoundSettings,
  kind: "warning" | "refused",
): readonly { readonly what: string; readonly reason: string }[] {
  return [...found.given()].flatMap(({ setting, text }) => {
    const { effect } = setting;
    if (effect.kind !== kind || effect.harmlessText?.test(text) === true) return [];
    return [{ what: found.describe(setting), reason: effect.reason }];
  });
}

function throwAll(problems: readonly ConfigError[]): void {
  const [first] = problems;
  if (first === undefined) return;
  if (problems.length === 1) throw first;
  const hints = [...new Set(problems.flatMap(({ hint }) => hint ?? []))];
  throw new ConfigError(
    `${problems.length} settings are wrong: ${problems.map(({ message }) => message).join("; ")}`,
    hints.length === 0 ? {} : { hint: hints.join(" ") },
  );
}

function assemble(found: FoundSettings, surroundings: Surroundings): Config {
  const isTurbo = found.get(general.turbo);
  const { networkRateLimit, diskRateLimit } = general;
  return {
    ...readStores(found, surroundings),
    ...defined("encryption", readEncryptionConfig(found)),
    isUnencryptedWritten: found.get(encryption.writeUnencrypted),
    postgres: readPostgres(found),
    ...defined("dataDirectory", found.get(postgres.dataDirectory)),
    cacheDirectory: found.get(general.cacheDirectory) ?? defaultCacheDirectory(surroundings),

    compressionMethod: found.get(general.compressionMethod),
    ...defined("compressionLevel", readCompressionLevel(found)),

    uploadConcurrency: found.get(general.uploadConcurrency),
    uploadDiskConcurrency: isTurbo
      ? TURBO_DISK_CONCURRENCY
      : found.get(general.uploadDiskConcurrency),
    downloadConcurrency: found.get(general.downloadConcurrency),
    isDownloadConcurrencyAsked: found.origin(general.downloadConcurrency) !== undefined,
    codecJobs: found.get(general.codecJobs) ?? surroundings.cpuCount,
    tarSizeThresholdBytes: found.get(general.tarSizeThreshold),
    ...(isTurbo ? {} : defined("networkRateLimitBytesPerSecond", found.get(networkRateLimit))),
    ...(isTurbo ? {} : defined("diskRateLimitBytesPerSecond", found.get(diskRateLimit))),
    fsync: !found.get(general.tarDisableFsync),

    walTimeoutMs: found.get(general.walTimeout),
    requestTimeoutMs: found.get(general.requestTimeout),
    archiveCheckTimeoutMs: found.get(postgres.archiveCheckTimeout),
    stopBackupTimeoutMs: found.get(postgres.stopBackupTimeout),
    aliveCheckIntervalMs: found.get(postgres.aliveCheckInterval),

    archiveQueue: readArchiveQueue(found),
    prefetch: {
      ...defined("directory", found.get(archive.prefetchDirectory)),
      aheadMax: found.get(general.downloadConcurrency),
      aheadBytesMax: found.get(archive.prefetchMax),
    },
    daemonPushTimeoutMs: found.get(archive.daemonPushTimeout),
    receive: {
      slot: found.get(wal.slot),
      isSynchronous: found.get(wal.receiveSynchronous),
      partialIntervalMs: found.get(wal.receivePartialInterval),
      ...defined("partialBytes", found.get(wal.receivePartialBytes)),
    },
    isPartialFetched: found.get(wal.fetchPartial),
    canEndAtHole: found.get(wal.fetchEndAtHole),
    retention: readRetention(found),
    removal: {
      abandonedAfterMs: found.get(retention.abandonedAfter),
      ...defined("deletesPerSecond", found.get(retention.deleteRate)),
    },

    integrityMaxDelayedWals: found.get(wal.integrityMaxDelayedWals),
    isWalVerifyExitZero: found.get(wal.walVerifyExitZero),

    increments: {
      maxSteps: found.get(backup.deltaMaxSteps),
      origin: found.get(backup.deltaOrigin) === "LATEST_FULL" ? "latest-full" : "latest",
      ...defined("fromName", found.get(backup.deltaFromName)),
      ...defined("fromUserData", found.get(backup.deltaFromUserData)),
      isPageScanAllowed: !found.get(backup.forceWalDelta),
    },
    ...defined("catchUpSecret", found.get(backup.catchUpSecret)),
    isBackupResumed: found.get(backup.backupResume),
    isPageVerified: found.get(backup.verifyPageChecksums),
    isEveryCorruptBlockListed: found.get(backup.storeAllCorruptBlocks),
    manifestHash: found.get(general.manifestHash),
    isFilesMetadataWritten: !found.get(general.withoutFilesMetadata),
    composer: readComposer(found),
    isPartialRestorePrepared: !found.get(postgres.disablePartialRestore),
    ...defined("sentinelUserData", found.get(general.sentinelUserData)),
    ...defined("fetchTargetUserData", found.get(general.fetchTargetUserData)),
  };
}

function readStores(
  found: FoundSettings,
  { homeDirectory }: Surroundings,
): Pick<Config, "storage" | "failover" | "mirror" | "targetStorage" | "storageFolder" | "proxy"> {
  const primary = readStorageConfig(found);
  const failover = readFailoverConfig(found, primary);
  const others = failover?.stores ?? [];
  const mirror = readMirrorConfig(found, { homeDirectory, primary, others });
  const all = [...others, ...(mirror?.stores ?? [])];
  return {
    ...defined("storage", primary),
    ...defined("failover", failover),
    ...defined("mirror", mirror),
    ...defined("targetStorage", readTargetStorage(found, all)),
    ...defined("storageFolder", readStorageFolder(found)),
    ...defined("proxy", readProxies(found)),
  };
}

/** In WAL-G's order, where several are set. */
function readComposer(found: FoundSettings): Config["composer"] {
  if (found.get(general.useCopyComposer)) return "copy";
  if (found.get(general.useDatabaseComposer)) return "database";
  return found.get(general.useRatingComposer) ? "rating" : "regular";
}

function readPostgres(found: FoundSettings): PostgresConfig {
  return {
    ...defined("host", found.get(postgres.host)),
    ...defined("port", found.get(postgres.port)),
    ...defined("user", found.get(postgres.user)),
    ...defined("password", found.get(postgres.password)),
    ...defined("passwordFile", found.get(postgres.passwordFile)),
    ...defined("database", found.get(postgres.database)),
    applicationName: found.get(postgres.applicationName),
    ...defined("sslMode", found.get(postgres.sslMode)),
    ...defined("sslKeyFile", found.get(postgres.sslKeyFile)),
    ...defined("sslCertificateFile", found.get(postgres.sslCertificateFile)),
    ...defined("sslRootCertificateFile", found.get(postgres.sslRootCertificateFile)),
  };
}

function readRetention(found: FoundSettings): RetentionConfig {
  return {
    ...defined("fullCount", found.get(retention.fulls)),
    ...defined("windowDays", found.get(retention.days)),
    ...defined("pitrDays", found.get(retention.pitrDays)),
    ...defined("daily", found.get(retention.daily)),
    ...defined("weekly", found.get(retention.weekly)),
    ...defined("monthly", found.get(retention.monthly)),
    ...defined("yearly", found.get(retention.yearly)),
    minimumFulls: found.get(retention.minimum),
  };
}

function readCompressionLevel(found: FoundSettings): number | undefined {
  const method = found.get(general.compressionMethod);
  const { zstdLevel, compressionLevel } = general;
  const isZstdLevelGiven = found.origin(zstdLevel) !== undefined;
  if (isZstdLevelGiven && method !== "zstd") {
    throw new ConfigError(
      `${found.describe(zstdLevel)} does not fit ` +
        `${found.describe(general.compressionMethod)}, which is ${method}`,
      { hint: "Remove the level or set the method to zstd." },
    );
  }
  if (isZstdLevelGiven && found.origin(compressionLevel) !== undefined) {
    throw new ConfigError(
      `${found.describe(zstdLevel)} and ${found.describe(compressionLevel)} contradict each other`,
    );
  }
  const text = found.get(zstdLevel) ?? found.get(compressionLevel);
  if (isLevelByNeed(found)) return undefined;
  return text === undefined ? undefined : parseCompressionLevel(method, text);
}

/** "auto" is no level of the codec's: nothing but the archive's queue makes use of it. */
function isLevelByNeed(found: FoundSettings): boolean {
  return found.get(general.zstdLevel)?.toLowerCase() === "auto";
}

function readArchiveQueue(found: FoundSettings): ArchiveQueueConfig {
  const isDropping = found.get(archive.queuePolicy) === "drop";
  const queueMaxBytes = found.get(archive.queueMax);
  if (isDropping && queueMaxBytes === undefined) {
    throw new ConfigError(
      `${found.describe(archive.queuePolicy)} is drop, but WALNUT_ARCHIVE_QUEUE_MAX is not set`,
      { hint: "Say how many bytes of WAL may wait before segments are given up." },
    );
  }
  return {
    ...defined("serverName", found.get(archive.serverName)),
    ...defined("spoolDirectory", found.get(archive.spoolDirectory)),
    aheadMax: found.get(archive.aheadLimit),
    isMarkingDone: found.get(archive.readyRename),
    ...(isDropping ? defined("dropAboveBytes", queueMaxBytes) : {}),
    isGapBackedUp: found.get(archive.gapBackup),
    ...defined("gapBackupCommand", found.get(archive.gapBackupCommand)),
    isLevelByNeed: isLevelByNeed(found),
    isNotingChanges: found.get(archive.useWalDelta),
    isIndexingCommits: found.get(archive.commitIndex),
  };
}

function defaultCacheDirectory({ homeDirectory }: Surroundings): string {
  if (homeDirectory !== undefined) return join(homeDirectory, ".cache", "walnut");
  const path = ownTemporaryDirectory("walnut-cache");
  if (path !== undefined) return path;
  // What somebody else put there could make us believe that a segment is archived.
  throw new ConfigError("there is no directory of our own for what walnut remembers", {
    hint:
      "This user has no home directory, and the one for temporary files can't be used: set " +
      `${preferredName(general.cacheDirectory)}.`,
  });
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    for (const member of Object.values(value)) deepFreeze(member);
    Object.freeze(value);
  }
  return value;
}
