import { posix } from "node:path";
import { ConfigError } from "../errors.ts";
import type { ProxyConfig } from "../storage/http-proxy.ts";
import type { DirectoryConfig, S3Config, StorageConfig } from "../storage/open.ts";
import { readAzureConfig } from "./azure-config.ts";
import { azure } from "./azure-settings.ts";
import type { FoundSettings } from "./found-settings.ts";
import { readGcsConfig } from "./gcs-config.ts";
import { gcs } from "./gcs-settings.ts";
import { general } from "./general-settings.ts";
import { otherStorePrefixes } from "./other-store-settings.ts";
import { readRcloneConfig } from "./rclone-config.ts";
import { rclone } from "./rclone-settings.ts";
import type { Setting } from "./setting.ts";
import { readSftpConfig } from "./sftp-config.ts";
import { sftp } from "./sftp-settings.ts";
import { readRequestHeaders } from "./request-headers.ts";
import { storage } from "./storage-settings.ts";
import { readSwiftConfig } from "./swift-config.ts";
import { swift } from "./swift-settings.ts";
import { cleanFolder, defined, parseStoreUrl, readEndpoint } from "./store-url.ts";

/** The configured store, or undefined if there is none. Throws ConfigError. */
export function readStorageConfig(found: FoundSettings): StorageConfig | undefined {
  const [first, second] = [...READERS.keys(), ...otherStorePrefixes].filter(
    (setting) => found.origin(setting) !== undefined,
  );
  if (first !== undefined && second !== undefined) {
    throw new ConfigError(
      `two stores are configured: ${found.describe(first)}, and ${found.describe(second)}`,
      { hint: "Keep one of them. An empty flag, such as --s3-prefix=, takes a setting away." },
    );
  }
  return first === undefined ? undefined : READERS.get(first)?.(found);
}

/** Whether it says what a store is, or how to reach it. */
export function isStoreSetting(setting: Setting): boolean {
  return isStorePrefix(setting) || STORE_SETTINGS.has(setting);
}

/** Whether it chooses the store. */
export function isStorePrefix(setting: Setting): boolean {
  return READERS.has(setting) || otherStorePrefixes.includes(setting);
}

const STORE_SETTINGS: ReadonlySet<Setting> = new Set<Setting>(
  [storage, gcs, azure, sftp, swift, rclone].flatMap((group) => Object.values(group)),
);

/** The prefix of each store that there is, and what reads its settings. */
const READERS = new Map<Setting, (found: FoundSettings) => StorageConfig>([
  [storage.filePrefix, readDirectory],
  [storage.s3Prefix, readS3],
  [sftp.prefix, readSftpConfig],
  [swift.prefix, readSwiftConfig],
  [rclone.prefix, readRcloneConfig],
  [azure.prefix, readAzureConfig],
  [gcs.prefix, readGcsConfig],
]);

/** The proxies, if any is configured. */
export function readProxies(found: FoundSettings): ProxyConfig | undefined {
  const https = found.get(general.httpsProxy);
  const http = found.get(general.httpProxy);
  if (https === undefined && http === undefined) return undefined;
  return {
    ...defined("https", https),
    ...defined("http", http),
    ...defined("noProxy", found.get(general.noProxy)),
  };
}

/** The folder below the prefix, if one is configured. Throws ConfigError. */
export function readStorageFolder(found: FoundSettings): string | undefined {
  const folder = cleanFolder(found.get(general.storagePrefix) ?? "");
  if (folder.split("/").some((part) => part === "." || part === "..")) {
    throw new ConfigError(
      `${found.describe(general.storagePrefix)} leaves the prefix of the store: ${folder}`,
    );
  }
  return folder === "" ? undefined : folder;
}

function readDirectory(found: FoundSettings): DirectoryConfig {
  const value = found.get(storage.filePrefix) ?? "";
  const path = value.replace(/^file:\/\/(localhost)?(?=\/)/, "");
  if (!path.startsWith("/")) {
    throw new ConfigError(
      `${found.describe(storage.filePrefix)} is not an absolute path: ${JSON.stringify(value)}`,
      { hint: "A relative path would be another directory for each program that starts walnut." },
    );
  }
  return { kind: "directory", path: posix.resolve(path) };
}

function readS3(found: FoundSettings): S3Config {
  const { bucket, folder } = parseStoreUrl(found, storage.s3Prefix);
  requireTogether(found);
  const sse = found.get(storage.sse);
  const sseKmsKeyId = found.get(storage.sseKmsKeyId);
  const sseCustomerKey = found.get(storage.sseCustomerKey);
  return {
    kind: "s3",
    bucket,
    prefix: folder,
    ...defined("endpoint", readEndpoint(found, storage.endpoint)),
    ...defined("region", found.get(storage.region)),
    ...defined("accessKeyId", found.get(storage.accessKeyId)),
    ...defined("secretAccessKey", found.get(storage.secretAccessKey)),
    ...defined("sessionToken", found.get(storage.sessionToken)),
    ...defined("profile", found.get(storage.profile)),
    ...defined("roleArn", found.get(storage.roleArn)),
    ...defined("roleSessionName", found.get(storage.roleSessionName)),
    isPathStyle: found.get(storage.forcePathStyle),
    isDualStack: found.get(storage.dualStack),
    ...defined("caFile", found.get(storage.caFile) ?? found.get(storage.caBundle)),
    ...defined("storageClass", found.get(storage.storageClass)),
    ...defined("sse", sse),
    ...defined("sseKmsKeyId", sseKmsKeyId),
    ...defined("sseCustomerKey", sseCustomerKey),
    ...readRequestHeaders(found),
    maxPartBytes: found.get(storage.maxPartSize),
    useListObjectsV1: found.get(storage.useListObjectsV1),
    deleteBatchSize: found.get(storage.deleteBatchSize),
  };
}

/** Settings that say nothing, or something else, without each other. */
function requireTogether(found: FoundSettings): void {
  const has = (setting: Setting) => found.origin(setting) !== undefined;
  const { accessKeyId, secretAccessKey, sessionToken, sse, sseKmsKeyId, sseCustomerKey } = storage;
  const rules: readonly [boolean, Setting, string][] = [
    [has(accessKeyId) && !has(secretAccessKey), accessKeyId, "has no AWS_SECRET_ACCESS_KEY"],
    [has(secretAccessKey) && !has(accessKeyId), secretAccessKey, "has no AWS_ACCESS_KEY_ID"],
    [has(sessionToken) && !has(accessKeyId), sessionToken, "has no AWS_ACCESS_KEY_ID"],
    [
      (found.get(sse)?.startsWith("aws:kms") ?? false) && !has(sseKmsKeyId),
      sse,
      "asks for KMS but there is no S3_SSE_KMS_ID",
    ],
    [
      has(sseKmsKeyId) && !(found.get(sse)?.startsWith("aws:kms") ?? false),
      sseKmsKeyId,
      "needs S3_SSE=aws:kms",
    ],
    [has(sseCustomerKey) && has(sse), sseCustomerKey, "contradicts S3_SSE"],
  ];
  for (const [isBroken, setting, reason] of rules) {
    if (!isBroken) continue;
    throw new ConfigError(`${found.describe(setting)} ${reason}`, {
      hint: "`walnut config` shows what was read from where.",
    });
  }
}
