import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Config } from "../../src/config/config.ts";
import { findSettings } from "../../src/config/find-settings.ts";
import { defaultConfig, makeConfig, settingWarnings } from "../../src/config/load.ts";
import { encryptionSettings } from "../../src/config/encryption-settings.ts";
import { settingNames } from "../../src/config/setting.ts";
import { ConfigError } from "../../src/errors.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const surroundings = { homeDirectory: "/home/x", cpuCount: 3 };

async function find(environment: Readonly<Record<string, string>>) {
  return await findSettings({ flags: new Map(), environment });
}

async function load(environment: Readonly<Record<string, string>>): Promise<Config> {
  return makeConfig(await find(environment), surroundings);
}

test("without settings everything has its default", () => {
  assert.deepEqual(defaultConfig(surroundings), {
    isUnencryptedWritten: false,
    postgres: { applicationName: "walnut" },
    cacheDirectory: "/home/x/.cache/walnut",
    compressionMethod: "zstd",
    uploadConcurrency: 16,
    uploadDiskConcurrency: 1,
    downloadConcurrency: 10,
    isDownloadConcurrencyAsked: false,
    codecJobs: 3,
    tarSizeThresholdBytes: 1_073_741_823,
    fsync: true,
    walTimeoutMs: 60_000,
    requestTimeoutMs: 30_000,
    archiveCheckTimeoutMs: 60_000,
    stopBackupTimeoutMs: 0,
    aliveCheckIntervalMs: 5000,
    archiveQueue: {
      aheadMax: 32,
      isMarkingDone: false,
      isGapBackedUp: true,
      isLevelByNeed: false,
      isNotingChanges: false,
      isIndexingCommits: true,
    },
    prefetch: { aheadMax: 10, aheadBytesMax: 1024 ** 3 },
    daemonPushTimeoutMs: 60_000,
    receive: { slot: "walg", isSynchronous: false, partialIntervalMs: 10_000 },
    isPartialFetched: true,
    canEndAtHole: false,
    retention: { minimumFulls: 1 },
    removal: { abandonedAfterMs: 86_400_000 },
    increments: { maxSteps: 0, origin: "latest", isPageScanAllowed: true },
    isBackupResumed: false,
    isPageVerified: false,
    isEveryCorruptBlockListed: false,
    integrityMaxDelayedWals: 0,
    isWalVerifyExitZero: false,
    manifestHash: "xxh64",
    isFilesMetadataWritten: true,
    composer: "regular",
    isPartialRestorePrepared: true,
  });
});

test("without a home directory the cache still has a place", () => {
  assert.match(defaultConfig({ cpuCount: 1 }).cacheDirectory, /^\/.+walnut/);
});

test("every setting arrives", async () => {
  const config = await load({
    PGHOST: "h",
    PGPORT: "5433",
    PGUSER: "u",
    PGPASSWORD: "p",
    PGPASSFILE: "/pass",
    PGDATABASE: "d",
    PGAPPNAME: "a",
    PGSSLMODE: "verify-full",
    PGSSLKEY: "/key",
    PGSSLCERT: "/cert",
    PGSSLROOTCERT: "/root",
    PGDATA: "/data",
    WALNUT_CACHE_DIR: "/cache",
    WALG_COMPRESSION_METHOD: "brotli",
    WALNUT_COMPRESSION_LEVEL: "5",
    WALG_UPLOAD_CONCURRENCY: "2",
    WALG_UPLOAD_DISK_CONCURRENCY: "3",
    WALG_DOWNLOAD_CONCURRENCY: "4",
    WALG_PREFETCH_DIR: "/ahead",
    WALNUT_PREFETCH_MAX: "32KiB",
    WALNUT_CODEC_JOBS: "5",
    WALG_TAR_SIZE_THRESHOLD: "1MiB",
    WALG_NETWORK_RATE_LIMIT: "10485760",
    WALG_DISK_RATE_LIMIT: "41943040",
    WALG_TAR_DISABLE_FSYNC: "true",
    WALNUT_WAL_TIMEOUT: "2m",
    WALNUT_REQUEST_TIMEOUT: "500ms",
    WALNUT_ARCHIVE_CHECK_TIMEOUT: "10s",
    WALG_STOP_BACKUP_TIMEOUT: "1h",
    WALG_ALIVE_CHECK_INTERVAL: "0",
    WALG_SLOTNAME: "s_1",
    WALNUT_RECEIVE_SYNCHRONOUS: "true",
    WALNUT_RECEIVE_PARTIAL_INTERVAL: "3s",
    WALNUT_RECEIVE_PARTIAL_BYTES: "64KiB",
    WALNUT_FETCH_PARTIAL: "false",
    WALNUT_FETCH_END_AT_HOLE: "true",
    WALNUT_RETAIN_FULLS: "3",
    WALNUT_RETAIN_DAYS: "7",
    WALNUT_RETAIN_PITR_DAYS: "14",
    WALNUT_RETAIN_DAILY: "5",
    WALNUT_RETAIN_WEEKLY: "4",
    WALNUT_RETAIN_MONTHLY: "12",
    WALNUT_RETAIN_YEARLY: "10",
    WALNUT_RETAIN_MINIMUM: "2",
    WALNUT_ABANDONED_AFTER: "2h",
    WALNUT_DELETE_RATE: "300",
    WALG_DELTA_MAX_STEPS: "6",
    WALG_DELTA_ORIGIN: "LATEST_FULL",
    WALG_DELTA_FROM_NAME: "LATEST",
    WALG_DELTA_FROM_USER_DATA: "{}",
    WALG_FORCE_WAL_DELTA: "true",
    WALNUT_BACKUP_RESUME: "true",
    WALG_VERIFY_PAGE_CHECKSUMS: "true",
    WALG_STORE_ALL_CORRUPT_BLOCKS: "t",
    WALNUT_MANIFEST_HASH: "sha256",
    WALG_WITHOUT_FILES_METADATA: "1",
    WALG_USE_COPY_COMPOSER: "1",
    WALG_USE_DATABASE_COMPOSER: "1",
    WALG_USE_RATING_COMPOSER: "1",
    WALG_DISABLE_PARTIAL_RESTORE: "t",
    WALG_SENTINEL_USER_DATA: '{"n":1.50}',
    WALG_FETCH_TARGET_USER_DATA: "12345678901234567890",
  });
  assert.deepEqual(config, {
    postgres: {
      host: "h",
      port: 5433,
      user: "u",
      password: "p",
      passwordFile: "/pass",
      database: "d",
      applicationName: "a",
      sslMode: "verify-full",
      sslKeyFile: "/key",
      sslCertificateFile: "/cert",
      sslRootCertificateFile: "/root",
    },
    isUnencryptedWritten: false,
    dataDirectory: "/data",
    cacheDirectory: "/cache",
    compressionMethod: "brotli",
    compressionLevel: 5,
    uploadConcurrency: 2,
    uploadDiskConcurrency: 3,
    downloadConcurrency: 4,
    isDownloadConcurrencyAsked: true,
    codecJobs: 5,
    tarSizeThresholdBytes: 1_048_576,
    networkRateLimitBytesPerSecond: 10_485_760,
    diskRateLimitBytesPerSecond: 41_943_040,
    fsync: false,
    walTimeoutMs: 120_000,
    requestTimeoutMs: 500,
    archiveCheckTimeoutMs: 10_000,
    stopBackupTimeoutMs: 3_600_000,
    aliveCheckIntervalMs: 0,
    archiveQueue: {
      aheadMax: 32,
      isMarkingDone: false,
      isGapBackedUp: true,
      isLevelByNeed: false,
      isNotingChanges: false,
      isIndexingCommits: true,
    },
    prefetch: { directory: "/ahead", aheadMax: 4, aheadBytesMax: 32_768 },
    daemonPushTimeoutMs: 60_000,
    receive: { slot: "s_1", isSynchronous: true, partialIntervalMs: 3000, partialBytes: 65_536 },
    isPartialFetched: false,
    canEndAtHole: true,
    retention: {
      fullCount: 3,
      windowDays: 7,
      pitrDays: 14,
      daily: 5,
      weekly: 4,
      monthly: 12,
      yearly: 10,
      minimumFulls: 2,
    },
    removal: { abandonedAfterMs: 7_200_000, deletesPerSecond: 300 },
    increments: {
      maxSteps: 6,
      origin: "latest-full",
      fromName: "LATEST",
      fromUserData: "{}",
      isPageScanAllowed: false,
    },
    isBackupResumed: true,
    isPageVerified: true,
    isEveryCorruptBlockListed: true,
    integrityMaxDelayedWals: 0,
    isWalVerifyExitZero: false,
    manifestHash: "sha256",
    isFilesMetadataWritten: false,
    composer: "copy",
    isPartialRestorePrepared: false,
    sentinelUserData: '{"n":1.50}',
    fetchTargetUserData: "12345678901234567890",
  });
});

test("the configuration can't be changed", async () => {
  const config = await load({ WALG_FILE_PREFIX: "/store" });
  assert.throws(() => Object.assign(config, { fsync: false }), TypeError);
  assert.throws(() => Object.assign(config.postgres, { host: "x" }), TypeError);
  assert.throws(() => Object.assign(config.storage ?? {}, { path: "x" }), TypeError);
});

test("turbo takes the limits away", async () => {
  const config = await load({
    WALNUT_TURBO: "true",
    WALG_NETWORK_RATE_LIMIT: "1",
    WALG_DISK_RATE_LIMIT: "1",
  });
  assert.equal(config.networkRateLimitBytesPerSecond, undefined);
  assert.equal(config.diskRateLimitBytesPerSecond, undefined);
  assert.equal(config.uploadDiskConcurrency, 4);
});

const levels: readonly (readonly [
  Readonly<Record<string, string>>,
  number | RegExp | undefined,
])[] = [
  [{}, undefined],
  [{ WALG_ZSTD_LEVEL: "fastest" }, 1],
  [{ WALG_ZSTD_LEVEL: "Default" }, 3],
  [{ WALG_ZSTD_LEVEL: "better" }, 7],
  [{ WALG_ZSTD_LEVEL: "BEST" }, 11],
  [{ WALG_ZSTD_LEVEL: "19" }, 19],
  [{ WALG_ZSTD_LEVEL: "23" }, /^compression level 23 is unknown for zstd$/],
  [{ WALG_ZSTD_LEVEL: "fast" }, /^compression level fast is unknown for zstd$/],
  [
    { WALG_ZSTD_LEVEL: "best", WALG_COMPRESSION_METHOD: "lz4" },
    /^WALG_ZSTD_LEVEL from .* does not fit WALG_COMPRESSION_METHOD from .*, which is lz4$/,
  ],
  [
    { WALG_ZSTD_LEVEL: "best", WALNUT_COMPRESSION_LEVEL: "3" },
    /^WALG_ZSTD_LEVEL .* and WALNUT_COMPRESSION_LEVEL .* contradict each other$/,
  ],
  [{ WALNUT_COMPRESSION_LEVEL: "better" }, 7],
  [{ WALNUT_COMPRESSION_LEVEL: "9", WALG_COMPRESSION_METHOD: "lzma" }, 9],
  [
    { WALNUT_COMPRESSION_LEVEL: "10", WALG_COMPRESSION_METHOD: "lzma" },
    /^compression level 10 is unknown for lzma$/,
  ],
  [
    { WALNUT_COMPRESSION_LEVEL: "1", WALG_COMPRESSION_METHOD: "none" },
    /^compression level 1 is set, but none has no levels$/,
  ],
];

for (const [environment, expected] of levels) {
  test(`compression level of ${JSON.stringify(environment)}`, async () => {
    if (expected instanceof RegExp) {
      await assert.rejects(load(environment), { code: "config", message: expected });
    } else {
      assert.equal((await load(environment)).compressionLevel, expected);
    }
  });
}

test("every setting of Yandex KMS is refused, whatever its value", async () => {
  for (const setting of encryptionSettings) {
    if (setting.effect.kind !== "refused") continue;
    const [, name = settingNames(setting)[0] ?? ""] = settingNames(setting);
    for (const text of ["0123456789abcdef0123456789abcdef", "none", "1h", "\n0"]) {
      await assert.rejects(
        load({ [name]: text, WALG_FILE_PREFIX: "/store" }),
        (error: unknown) =>
          error instanceof ConfigError && !error.message.includes("0123456789abcdef"),
        `${name}=${text}`,
      );
    }
  }
  assert.equal(encryptionSettings.filter(({ effect }) => effect.kind === "refused").length, 7);
});

const refused: readonly (readonly [Readonly<Record<string, string>>, RegExp])[] = [
  [{ WALG_ENVELOPE_PGP_KEY: "k" }, /^WALG_ENVELOPE_PGP_KEY from .* is not supported: .*Yandex KMS/],
  [{ YC_CSE_KMS_KEY_ID: "k" }, /not supported: .*Yandex KMS/],
  [{ WALG_OSS_PREFIX: "oss://b/f" }, /^WALG_OSS_PREFIX from .* not supported: .* S3 interface/],
  [{ WALE_AZ_PREFIX: "azure://b/f" }, /needs a storage account/],
  [{ WALE_OSS_PREFIX: "oss://b/f" }, /by rclone/],
  [{ WALG_FAILOVER_STORAGES: '{"b":{}}' }, /stands in for no storage/],
  [{ WALG_TARGET_STORAGE: "b" }, /there is no storage b/],
  [{ S3_USE_YC_SESSION_TOKEN: "true" }, /ask Yandex Cloud for credentials/],
  [{ S3_ENDPOINT_SOURCE: "http://x" }, /only AWS_ENDPOINT/],
];

for (const [environment, message] of refused) {
  test(`refuses ${JSON.stringify(environment)}`, async () => {
    await assert.rejects(load({ ...environment }), { code: "config", message });
  });
}

test("values that ask for nothing are not refused", async () => {
  await load({
    WALG_FAILOVER_STORAGES: "{ }",
    WALG_TARGET_STORAGE: "default",
    S3_USE_YC_SESSION_TOKEN: "false",
    S3_RETENTION_PERIOD: "-1",
  });
});

test("says what has no effect where the user may expect one", async () => {
  const found = await find({
    WALE_GPG_KEY_ID: "bogus",
    WALG_DELTA_MAX_STEPS: "6",
    WALG_DELTA_ORIGIN: "LATEST",
    WALG_VERIFY_PAGE_CHECKSUMS: "false",
    WALG_PG_WAL_SIZE: "16",
  });
  makeConfig(found, surroundings);
  assert.deepEqual(settingWarnings(found), [
    "WALE_GPG_KEY_ID from the environment has no effect: " +
      "objects are not encrypted; WAL-G ignores it under this name, too",
  ]);
});

test("says all that is wrong at once", async () => {
  await assert.rejects(
    load({ WALG_S3_PREFX: "x", YC_CSE_KMS_KEY_ID: "k", WALG_UPLOAD_QUEUE: "x" }),
    {
      code: "config",
      message:
        "3 settings are wrong: unknown setting WALG_S3_PREFX from the environment; " +
        'WALG_UPLOAD_QUEUE = "x" from the environment is not a whole number; ' +
        "YC_CSE_KMS_KEY_ID from the environment is not supported: " +
        "walnut does not encrypt by Yandex KMS, and must not store in plain text instead",
    },
  );
});

test("a config file of WAL-G works unchanged", async () => {
  using directory = scratchDirectory();
  const path = join(directory.path, "wal-g.json");
  // Glued together from two files, as people do: the later prefix counts.
  writeFileSync(
    path,
    `{"WALE_S3_PREFIX": "s3://first",
"AWS_ENDPOINT": "http://s3:9000", "AWS_S3_FORCE_PATH_STYLE": true,
"AWS_ACCESS_KEY_ID": "EXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret",
"WALG_COMPRESSION_METHOD": "brotli", "WALG_DISK_RATE_LIMIT": "41943040",
"WALG_NETWORK_RATE_LIMIT": 10485760, "WALG_UPLOAD_CONCURRENCY": 10,
"WALG_DELTA_MAX_STEPS": "6", "WALG_LOG_LEVEL": "DEVEL", "WALG_PGP_KEY_PATH": "",
"PGHOST": "/var/run/postgresql", "PGDATABASE": "postgres", "GOMAXPROCS": 4,
"PGBACKREST_STANZA": "main", "TOTAL_BG_UPLOADED_LIMIT": 8, "WALG_PREVENT_WAL_OVERWRITE": "true",
"WALE_S3_PREFIX": "s3://bucket/some/folder/"}`,
  );
  const found = await findSettings({ flags: new Map([["config", path]]), environment: {} });
  const config = makeConfig(found, surroundings);
  assert.deepEqual(config.storage, {
    kind: "s3",
    bucket: "bucket",
    prefix: "some/folder",
    endpoint: "http://s3:9000",
    accessKeyId: "EXAMPLE",
    secretAccessKey: "secret",
    isPathStyle: true,
    isDualStack: false,
    maxPartBytes: 20_971_520,
    useListObjectsV1: false,
    deleteBatchSize: 1000,
  });
  assert.equal(config.compressionMethod, "brotli");
  assert.equal(config.networkRateLimitBytesPerSecond, 10_485_760);
  assert.equal(config.postgres.host, "/var/run/postgresql");
});

for (const slot of ["Walg", "a-b", "", "x".repeat(64)]) {
  test(`no slot is named ${JSON.stringify(slot)}`, async () => {
    const found = load({ WALG_SLOTNAME: slot });
    // An empty variable counts as unset.
    if (slot === "") assert.equal((await found).receive.slot, "walg");
    else await assert.rejects(found, { name: "ConfigError", message: /WALG_SLOTNAME/ });
  });
}
