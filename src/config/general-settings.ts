import { defaulted, setting } from "./setting.ts";
import {
  boolean,
  bytes,
  choice,
  duration,
  integer,
  json,
  path,
  proxyUrl,
  text,
} from "./value-types.ts";

/** Settings of walnut itself that have an effect. */
export const general = {
  configFile: setting("CONFIG", path, "File with settings: JSON, YAML, TOML or dotenv.", {
    form: "own",
    aliases: ["WALG_CONFIG_PATH"],
  }),
  storagePrefix: setting(
    "STORAGE_PREFIX",
    text,
    "One more folder below the prefix of the store, for several clusters with one configuration.",
  ),

  compressionMethod: defaulted(
    "COMPRESSION_METHOD",
    choice(["zstd", "lz4", "brotli", "lzma", "none"]),
    "How new objects are compressed. Every method is read, whatever is set here.",
    { default: "zstd" },
  ),
  zstdLevel: setting(
    "ZSTD_LEVEL",
    text,
    "Level of zstd: fastest, default, better, best, a number from 1 to 22, or auto: faster while WAL " +
      "has to wait.",
  ),
  compressionLevel: setting(
    "COMPRESSION_LEVEL",
    text,
    "Level of the compression method in its own scale: zstd 1 to 22, brotli 0 to 11, lzma 0 to 9.",
    { form: "own" },
  ),
  codecJobs: setting(
    "CODEC_JOBS",
    integer(1, 1024),
    "Jobs of compression and decompression at the same time; the number of cores unless set.",
    { form: "own" },
  ),

  uploadConcurrency: defaulted(
    "UPLOAD_CONCURRENCY",
    integer(1, 1024),
    "Objects, and parts of large objects, that are uploaded at the same time.",
    { form: "any", default: "16" },
  ),
  uploadDiskConcurrency: defaulted(
    "UPLOAD_DISK_CONCURRENCY",
    integer(1, 1024),
    "Tar parts that backup-push packs at the same time.",
    { default: "1" },
  ),
  downloadConcurrency: defaulted(
    "DOWNLOAD_CONCURRENCY",
    integer(1, 1024),
    "Tar parts that backup-fetch downloads at the same time; unless it is set, 6 at most, 3 for a " +
      "million files; what is set counts as far as a quarter of the memory has 16 MiB for each. " +
      "Also the segments that may be fetched ahead of recovery, where 1 means none.",
    { default: "10" },
  ),
  tarSizeThreshold: defaulted(
    "TAR_SIZE_THRESHOLD",
    bytes(1),
    "A tar part is closed once it holds more content than this.",
    { default: "1073741823", unit: "bytes" },
  ),
  tarDisableFsync: defaulted(
    "TAR_DISABLE_FSYNC",
    boolean,
    "Leave out the fsync of restored files: faster, and lost in a power failure soon after.",
    { default: "false" },
  ),
  networkRateLimit: setting(
    "NETWORK_RATE_LIMIT",
    bytes(1),
    "Most bytes per second to and from one store; a daemon that reloads its settings keeps to a new " +
      "value at once.",
    { unit: "bytes per second" },
  ),
  diskRateLimit: setting(
    "DISK_RATE_LIMIT",
    bytes(1),
    "Most bytes per second read from the data directory by backup-push.",
    { unit: "bytes per second" },
  ),
  stats: defaulted(
    "STATS",
    boolean,
    "Say on standard error at the end what passed between walnut and the store: calls, requests, " +
      "bytes, repetitions and waits; as one line of JSON where the log is JSON.",
    { form: "own", default: "false" },
  ),
  turbo: defaulted(
    "TURBO",
    boolean,
    "Ignore the rate limits, and pack four tar parts at the same time.",
    { form: "own", default: "false" },
  ),

  walTimeout: defaulted(
    "WAL_TIMEOUT",
    duration({ minMs: 1000 }),
    "How long one wal-push or wal-fetch may take before it fails; as long again whenever a MiB " +
      "of the file has passed in that time.",
    { form: "own", default: "60s" },
  ),
  requestTimeout: defaulted(
    "REQUEST_TIMEOUT",
    duration({ minMs: 100 }),
    "How long one request to the store may take, its repetitions not counted.",
    { form: "own", default: "30s" },
  ),

  httpsProxy: setting(
    "HTTPS_PROXY",
    proxyUrl,
    "Proxy on the way to stores that are reached by https: http://host:port, also with name:password@.",
    { form: "plain", aliases: ["https_proxy"] },
  ),
  httpProxy: setting("HTTP_PROXY", proxyUrl, "The same for stores that are reached by http.", {
    form: "plain",
    aliases: ["http_proxy"],
  }),
  noProxy: setting(
    "NO_PROXY",
    text,
    "Hosts that are reached without a proxy, with commas: names (also what ends in them), addresses, " +
      "ranges such as 10.0.0.0/8, each with a port or without; * for all. This machine always is.",
    { form: "plain", aliases: ["no_proxy"] },
  ),

  withoutFilesMetadata: defaulted(
    "WITHOUT_FILES_METADATA",
    boolean,
    "Leave out files_metadata.json.",
    { default: "false" },
  ),
  useCopyComposer: defaulted(
    "USE_COPY_COMPOSER",
    boolean,
    "Take full backups, and copy parts of the last one that are unchanged.",
    { default: "false" },
  ),
  useDatabaseComposer: defaulted(
    "USE_DATABASE_COMPOSER",
    boolean,
    "Give each database parts of its own.",
    { default: "false" },
  ),
  useRatingComposer: defaulted(
    "USE_RATING_COMPOSER",
    boolean,
    "Put files that change about as often into the same parts.",
    { default: "false" },
  ),
  manifestHash: defaulted(
    "MANIFEST_HASH",
    choice(["xxh64", "sha256"]),
    "Checksum of each file in walnut's manifest of a backup.",
    { form: "own", default: "xxh64" },
  ),
  sentinelUserData: setting(
    "SENTINEL_USER_DATA",
    json,
    "JSON of your own that a new backup keeps.",
  ),
  fetchTargetUserData: setting(
    "FETCH_TARGET_USER_DATA",
    json,
    "backup-fetch takes the one backup that has this user data.",
  ),

  cacheDirectory: setting(
    "CACHE_DIR",
    path,
    "Where walnut keeps what may be lost, such as the system identifier it saw in a repository; " +
      "~/.cache/walnut unless set; without a home directory walnut-cache-<user number> in $TMPDIR or /tmp.",
    { form: "own" },
  ),
  logLevel: defaulted(
    "LOG_LEVEL",
    choice(["NORMAL", "DEVEL", "ERROR"]),
    "NORMAL, DEVEL for debugging as well, or ERROR for errors only.",
    { default: "NORMAL" },
  ),
  logFormat: defaulted(
    "LOG_FORMAT",
    choice(["text", "json"]),
    "Lines of text, or one JSON object a line.",
    { form: "own", default: "text" },
  ),
  logDestination: setting(
    "LOG_DESTINATION",
    path,
    "A file for the log, or stderr, where the reason of a failure is said in any case.",
    {
      form: "own",
      aliases: ["WALG_LOG_DESTINATION"],
    },
  ),
} as const;
