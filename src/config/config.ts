import type { CompressionMethod } from "../codec/codec.ts";
import type { EncryptionConfig } from "../crypto/open.ts";
import type { ProxyConfig } from "../storage/http-proxy.ts";
import type { MirrorConfig } from "../storage/mirror-open.ts";
import type { FailoverConfig, StorageConfig } from "../storage/open.ts";

/** How to reach PostgreSQL: libpq's names and meanings; what is absent has libpq's default. */
export interface PostgresConfig {
  readonly host?: string;
  readonly port?: number;
  readonly user?: string;
  readonly password?: string;
  readonly passwordFile?: string;
  readonly database?: string;
  readonly applicationName: string;
  readonly sslMode?: string;
  readonly sslKeyFile?: string;
  readonly sslCertificateFile?: string;
  readonly sslRootCertificateFile?: string;
}

/** How wal-receive works. */
export interface ReceiveConfig {
  readonly slot: string;
  /** Store at once what was received. */
  readonly isSynchronous: boolean;
  /** Between two copies of a segment that grows. */
  readonly partialIntervalMs: number;
  /** Growth that is stored without waiting for the interval. */
  readonly partialBytes?: number;
}

/** How files are archived ahead, and what happens when they can't be. */
export interface ArchiveQueueConfig {
  /** Tells this server from the others; absent = host name and data directory do. */
  readonly serverName?: string;
  /** A directory for the spools of any number of data directories; absent = beside each. */
  readonly spoolDirectory?: string;
  /** Files that may be archived before PostgreSQL asks for them. */
  readonly aheadMax: number;
  /** Whether we mark those as done ourselves. */
  readonly isMarkingDone: boolean;
  /** Absent: what can't be stored is never acknowledged. */
  readonly dropAboveBytes?: number;
  /** Whether a backup is taken by itself after segments were given up. */
  readonly isGapBackedUp: boolean;
  /** Shell command that takes it, or has it taken; absent = backup-push. */
  readonly gapBackupCommand?: string;
  /** zstd's level follows the backlog. */
  readonly isLevelByNeed: boolean;
  /** Whether what each segment changes is noted while it is pushed. */
  readonly isNotingChanges: boolean;
  /** Whether a process of its own notes the commits of what was archived. */
  readonly isIndexingCommits: boolean;
}

/** How segments are fetched ahead of recovery. */
export interface PrefetchConfig {
  /** A directory for those of any number of data directories; absent = in the spool. */
  readonly directory?: string;
  /** Segments; 1 = none. */
  readonly aheadMax: number;
  readonly aheadBytesMax: number;
}

/** Whether and on what backup-push bases an increment. */
export interface IncrementConfig {
  /** 0 = full backups only. */
  readonly maxSteps: number;
  readonly origin: "latest" | "latest-full";
  /** A backup's name, or LATEST. */
  readonly fromName?: string;
  /** JSON. */
  readonly fromUserData?: string;
  /** Whether changed blocks may be found by a look at all pages. */
  readonly isPageScanAllowed: boolean;
}

/** What `expire` keeps: see RetentionPolicy; and how anything is removed. */
export interface RetentionConfig {
  readonly fullCount?: number;
  readonly windowDays?: number;
  readonly pitrDays?: number;
  readonly daily?: number;
  readonly weekly?: number;
  readonly monthly?: number;
  readonly yearly?: number;
  readonly minimumFulls: number;
}

/** How objects are removed. */
export interface RemovalConfig {
  readonly abandonedAfterMs: number;
  readonly deletesPerSecond?: number;
}

/** Every effective setting, read once at the start and frozen. Made by `load.ts` from the table. */
export interface Config {
  /** Absent when no storage is configured: `openStorage` says so. */
  readonly storage?: StorageConfig;
  /** Stores that stand in for `storage`; absent where there are none. */
  readonly failover?: FailoverConfig;
  /** Stores that get every object as well. */
  readonly mirror?: MirrorConfig;
  /** Of all these, the only one to use: "default", or a name in `failover`. */
  readonly targetStorage?: string;
  /** One more folder below `storage` that holds everything; segments joined by "/". */
  readonly storageFolder?: string;
  /** The way to stores that are reached by HTTP; absent where it is direct. */
  readonly proxy?: ProxyConfig;
  /** Absent when no key is configured. */
  readonly encryption?: EncryptionConfig;
  /** Store without a key even where objects are encrypted. */
  readonly isUnencryptedWritten: boolean;
  readonly postgres: PostgresConfig;
  /** PGDATA, where a command needs it and has no argument for it. */
  readonly dataDirectory?: string;
  /** Where we keep what may be lost: which repository was seen with which system identifier. */
  readonly cacheDirectory: string;

  readonly compressionMethod: Exclude<CompressionMethod, "gzip">;
  /** In the scale of `compressionMethod`; absent = its default. */
  readonly compressionLevel?: number;

  /** Objects and parts uploaded at the same time. */
  readonly uploadConcurrency: number;
  /** Tar parts packed at the same time. */
  readonly uploadDiskConcurrency: number;
  readonly downloadConcurrency: number;
  /** Whether somebody has set that, rather than nobody. */
  readonly isDownloadConcurrencyAsked: boolean;
  /** Jobs of compression and decompression: the number of cores unless set. */
  readonly codecJobs: number;
  /** A tar part is closed once it holds more content than this. */
  readonly tarSizeThresholdBytes: number;
  readonly networkRateLimitBytesPerSecond?: number;
  readonly diskRateLimitBytesPerSecond?: number;
  /** fsync of restored files; only ever false on request. */
  readonly fsync: boolean;

  /** In all, for one wal-push or wal-fetch. */
  readonly walTimeoutMs: number;
  /** For one request to the store, retries not counted. */
  readonly requestTimeoutMs: number;
  /** How long backup-push waits for a switched segment to arrive before it refuses. */
  readonly archiveCheckTimeoutMs: number;
  /** How long backup-push waits at its end for the last segment; 0 = without end. */
  readonly stopBackupTimeoutMs: number;
  /** How often the backup session is asked whether it still lives. */
  readonly aliveCheckIntervalMs: number;

  readonly archiveQueue: ArchiveQueueConfig;
  readonly prefetch: PrefetchConfig;
  /** For one push of the daemon's; `walTimeoutMs` counts, too. */
  readonly daemonPushTimeoutMs: number;
  readonly receive: ReceiveConfig;
  /** Whether wal-fetch may give an unfinished segment where there is nothing else. */
  readonly isPartialFetched: boolean;
  /** Whether recovery may end, and open the database, where WAL is missing before later WAL. */
  readonly canEndAtHole: boolean;

  /** Of the newest segments: so many may be late without being lost. */
  readonly integrityMaxDelayedWals: number;
  /** wal-verify says FAILURE in words only. */
  readonly isWalVerifyExitZero: boolean;

  readonly retention: RetentionConfig;
  readonly removal: RemovalConfig;
  readonly increments: IncrementConfig;
  /** Whether a full backup can be resumed, and resumes one. */
  readonly isBackupResumed: boolean;
  /** What both ends of catchup-send know. */
  readonly catchUpSecret?: string;
  /** Whether backup-push verifies the checksums of pages. */
  readonly isPageVerified: boolean;
  /** Whether files_metadata.json names all damaged blocks of a file, or the first ten. */
  readonly isEveryCorruptBlockListed: boolean;
  /** Checksum of each file in our manifest. */
  readonly manifestHash: "xxh64" | "sha256";
  readonly isFilesMetadataWritten: boolean;
  /** Which files of a backup share a part. */
  readonly composer: "regular" | "rating" | "database" | "copy";
  /** Database and table names in files_metadata.json, for partial restores. */
  readonly isPartialRestorePrepared: boolean;
  /** Parsed JSON, exact numbers kept as text: the user's words for a new backup. */
  readonly sentinelUserData?: string;
  readonly fetchTargetUserData?: string;
}
