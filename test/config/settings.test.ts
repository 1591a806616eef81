import assert from "node:assert/strict";
import { test } from "node:test";
import { settingFlagNames, settingNames } from "../../src/config/setting.ts";
import { SettingIndex, allSettings } from "../../src/config/settings.ts";

const known = new Set(allSettings.flatMap(settingNames));
const knownFlags = new Set(allSettings.flatMap(settingFlagNames));

/** Every setting of WAL-G's general, PostgreSQL and encryption part, as its users write it. */
const walgKeys = `
  WALG_DOWNLOAD_CONCURRENCY WALG_UPLOAD_CONCURRENCY WALG_UPLOAD_DISK_CONCURRENCY WALG_UPLOAD_QUEUE
  WALG_DOWNLOAD_FILE_RETRIES TOTAL_BG_UPLOADED_LIMIT WALG_PREVENT_WAL_OVERWRITE
  WALG_UPLOAD_WAL_METADATA WALG_DELTA_MAX_STEPS WALG_DELTA_ORIGIN WALG_DELTA_FROM_NAME
  WALG_DELTA_FROM_USER_DATA WALG_USE_WAL_DELTA WALG_FORCE_WAL_DELTA WALG_COMPRESSION_METHOD
  WALG_ZSTD_LEVEL WALG_TAR_SIZE_THRESHOLD WALG_TAR_DISABLE_FSYNC WALG_DISK_RATE_LIMIT
  WALG_NETWORK_RATE_LIMIT WALG_USE_REVERSE_UNPACK WALG_SKIP_REDUNDANT_TARS
  WALG_VERIFY_PAGE_CHECKSUMS WALG_STORE_ALL_CORRUPT_BLOCKS WALG_USE_RATING_COMPOSER
  WALG_USE_COPY_COMPOSER WALG_USE_DATABASE_COMPOSER WALG_WITHOUT_FILES_METADATA
  WALG_SENTINEL_USER_DATA WALG_FETCH_TARGET_USER_DATA WALG_INTEGRITY_MAX_DELAYED_WALS
  WALG_STORAGE_PREFIX WALG_LOG_LEVEL WALG_LOG_DESTINATION WALG_DIRECT_IO WALG_DIRECT_IO_BLOCK_COUNT
  WALG_STATSD_ADDRESS WALG_STATSD_EXTRA_TAGS HTTP_LISTEN HTTP_EXPOSE_PPROF HTTP_EXPOSE_EXPVAR
  PROFILE_SAMPLING_RATIO PROFILE_MODE PROFILE_PATH GOMAXPROCS GODEBUG WALG_SERIALIZER_TYPE
  WALG_STREAM_CREATE_COMMAND WALG_STREAM_RESTORE_COMMAND WALG_CONFIG_PATH

  PGHOST PGPORT PGUSER PGPASSWORD PGPASSFILE PGDATABASE PGSSLMODE PGSSLKEY PGSSLCERT PGSSLROOTCERT
  PGAPPNAME PGDATA WALG_SLOTNAME WALG_PG_WAL_SIZE WALG_PG_WAL_PAGE_SIZE WALG_PG_BLOCK_SIZE
  WALG_PREFETCH_DIR PG_READY_RENAME PGBACKREST_STANZA WALG_ALIVE_CHECK_INTERVAL
  WALG_STOP_BACKUP_TIMEOUT WALG_DAEMON_WAL_UPLOAD_TIMEOUT WALG_DISABLE_PARTIAL_RESTORE
  WALG_TARGET_STORAGE NOTIFY_SOCKET

  WALG_FAILOVER_STORAGES WALG_FAILOVER_STORAGES_CHECK WALG_FAILOVER_STORAGES_CHECK_TIMEOUT
  WALG_FAILOVER_STORAGES_CHECK_SIZE WALG_FAILOVER_STORAGES_CACHE_LIFETIME
  WALG_FAILOVER_STORAGES_CACHE_EMA_ALIVE_LIMIT WALG_FAILOVER_STORAGES_CACHE_EMA_DEAD_LIMIT
  WALG_FAILOVER_STORAGES_CACHE_EMA_ALPHA_ALIVE_MAX WALG_FAILOVER_STORAGES_CACHE_EMA_ALPHA_ALIVE_MIN
  WALG_FAILOVER_STORAGES_CACHE_EMA_ALPHA_DEAD_MAX WALG_FAILOVER_STORAGES_CACHE_EMA_ALPHA_DEAD_MIN

  WALG_PGP_KEY WALG_PGP_KEY_PATH WALG_PGP_KEY_PASSPHRASE GPG_KEY_ID WALG_GPG_KEY_ID WALE_GPG_KEY_ID
  WALG_ENVELOPE_PGP_KEY WALG_ENVELOPE_PGP_KEY_PATH WALG_ENVELOPE_PGP_YC_CSE_KMS_KEY_ID
  WALG_ENVELOPE_PGP_YC_SERVICE_ACCOUNT_KEY_FILE WALG_ENVELOPE_PGP_YC_ENDPOINT
  WALG_ENVELOPE_CACHE_EXPIRATION WALG_CSE_KMS_ID WALG_CSE_KMS_REGION YC_CSE_KMS_KEY_ID
  YC_SERVICE_ACCOUNT_KEY_FILE WALG_LIBSODIUM_KEY WALG_LIBSODIUM_KEY_PATH
  WALG_LIBSODIUM_KEY_TRANSFORM

  WALG_FILE_PREFIX WALE_FILE_PREFIX WALG_S3_PREFIX WALE_S3_PREFIX WALG_GS_PREFIX WALE_GS_PREFIX
  WALG_AZ_PREFIX WALE_AZ_PREFIX WALG_OSS_PREFIX WALE_OSS_PREFIX WALG_SWIFT_PREFIX WALE_SWIFT_PREFIX
  WALG_SSH_PREFIX WALE_SSH_PREFIX
`;

/** Settings of its stores, which WAL-G takes bare and with either prefix. */
const storeKeys = `
  AWS_ACCESS_KEY_ID AWS_ACCESS_KEY AWS_SECRET_ACCESS_KEY AWS_SECRET_KEY AWS_SESSION_TOKEN
  AWS_ROLE_ARN AWS_ROLE_SESSION_NAME AWS_PROFILE AWS_ENDPOINT AWS_REGION AWS_S3_FORCE_PATH_STYLE
  AWS_DUAL_STACK S3_CA_CERT_FILE S3_SKIP_VALIDATION S3_USE_YC_SESSION_TOKEN S3_SSE S3_SSE_C
  S3_SSE_KMS_ID S3_STORAGE_CLASS UPLOAD_CONCURRENCY S3_MAX_PART_SIZE S3_ENDPOINT_SOURCE
  S3_ENDPOINT_PORT S3_ENDPOINT_PROTOCOL S3_LOG_LEVEL S3_USE_LIST_OBJECTS_V1 S3_RANGE_BATCH_ENABLED
  S3_RANGE_MAX_RETRIES S3_MAX_RETRIES S3_REQUEST_ADDITIONAL_HEADERS S3_RETENTION_PERIOD
  S3_RETENTION_MODE S3_MIN_THROTTLING_RETRY_DELAY S3_MAX_THROTTLING_RETRY_DELAY
  S3_DISABLE_100_CONTINUE S3_ENABLE_VERSIONING S3_DELETE_BATCH_SIZE

  GOOGLE_APPLICATION_CREDENTIALS GCS_CONTEXT_TIMEOUT GCS_NORMALIZE_PREFIX GCS_ENCRYPTION_KEY
  GCS_MAX_CHUNK_SIZE GCS_MAX_RETRIES

  AZURE_STORAGE_ACCOUNT AZURE_STORAGE_ACCESS_KEY AZURE_STORAGE_SAS_TOKEN AZURE_ENVIRONMENT_NAME
  AZURE_ENDPOINT_SUFFIX AZURE_BUFFER_SIZE AZURE_MAX_BUFFERS AZURE_TRY_TIMEOUT

  OSS_ACCESS_KEY_ID OSS_ACCESS_KEY_SECRET OSS_SESSION_TOKEN OSS_REGION OSS_ENDPOINT OSS_ROLE_ARN
  OSS_ROLE_SESSION_NAME OSS_MAX_RETRIES OSS_CONNECT_TIMEOUT OSS_UPLOAD_PART_SIZE OSS_COPY_PART_SIZE
  OSS_SKIP_VALIDATION

  OS_AUTH_URL OS_USERNAME OS_PASSWORD OS_TENANT_NAME OS_REGION_NAME
  SSH_USERNAME SSH_PASSWORD SSH_PORT SSH_PRIVATE_KEY_PATH
`;

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}

test("every setting of WAL-G is known, as a variable and as a flag", () => {
  const keys = [
    ...words(walgKeys),
    ...words(storeKeys).flatMap((key) => [key, `WALG_${key}`, `WALE_${key}`]),
  ];
  for (const key of keys) {
    assert.ok(known.has(key), `${key} is not known`);
    const flag = key.toLowerCase().replaceAll("_", "-");
    assert.ok(knownFlags.has(flag), `--${flag} is not known`);
  }
});

test("the index finds every setting by each of its names and flags, and nothing else", () => {
  const index = new SettingIndex();
  for (const setting of allSettings) {
    for (const name of settingNames(setting)) assert.equal(index.byName(name), setting, name);
    for (const flag of settingFlagNames(setting)) assert.equal(index.byFlag(flag), setting, flag);
  }
  const strangers = ["S3_PREFIX", "WALG_PGHOST", "WALNUT_PGHOST", "CACHE_DIR", "WALG_CACHE_DIR"];
  for (const name of [...strangers, "WALG_WALG_S3_PREFIX", "WALG_", "", "constructor"]) {
    assert.equal(index.byName(name), undefined, name);
  }
  const flags = ["S3-PREFIX", "s3_prefix", "walg-pghost", "walg-cache-dir", "", "help", "walg-"];
  for (const flag of flags) assert.equal(index.byFlag(flag), undefined, flag);
});

test("no name and no flag stands for two settings", () => {
  const names = allSettings.flatMap(settingNames);
  assert.deepEqual(repeated(names), []);
  assert.deepEqual(repeated(allSettings.flatMap(settingFlagNames)), []);
});

function repeated(names: readonly string[]): readonly string[] {
  return names.filter((name, index) => names.indexOf(name) !== index);
}

test("every default is a text that its type takes", () => {
  for (const setting of allSettings) {
    if (setting.default !== undefined) {
      assert.doesNotThrow(() => setting.type.parse(setting.default ?? ""), setting.name);
    }
  }
});

test("every harmless value is one that its type takes", () => {
  const examples = ["0", "-1", "false", "true", "{}", "default"];
  for (const { name, effect, type } of allSettings) {
    if (effect.kind === "used" || effect.harmlessText === undefined) continue;
    const { harmlessText } = effect;
    const harmless = examples.filter((text) => harmlessText.test(text));
    assert.notEqual(harmless.length, 0, name);
    for (const text of harmless) assert.doesNotThrow(() => type.parse(text), name);
  }
});

test("whatever holds a key, a password or a token is secret", () => {
  const isSecretName = /PASSWORD$|PASSPHRASE$|SECRET|TOKEN$|_KEY$|SSE_C$/;
  const publicNames = /SECRET_KEY_PATH$|USE_YC_SESSION_TOKEN$/;
  for (const { name, type } of allSettings) {
    if (isSecretName.test(name) && !publicNames.test(name)) assert.ok(type.isSecret, name);
  }
});

test("texts are sentences, reasons are clauses", () => {
  for (const { name, text, effect } of allSettings) {
    assert.match(text, /^\S.*\.$/, name);
    if (effect.kind !== "used") assert.match(effect.reason, /^[^.]*[^.\s]$|~|WALNUT_/, name);
  }
});
