import { ConfigError } from "../errors.ts";
import type { GcsConfig } from "../storage/gcs-config.ts";
import type { FoundSettings } from "./found-settings.ts";
import { gcs } from "./gcs-settings.ts";
import { ENDPOINT_FORM, defined, isHttpUrl, parseStoreUrl } from "./store-url.ts";

const KEY_BYTES = 32;

/** The store that GS_PREFIX names. Throws ConfigError. */
export function readGcsConfig(found: FoundSettings): GcsConfig {
  const { bucket, folder } = parseStoreUrl(found, gcs.prefix);
  const emulator = found.get(gcs.emulatorHost);
  const endpoint =
    emulator === undefined
      ? found.get(gcs.endpoint)
      : emulator.replace(/^(?!https?:\/\/)/, "http://");
  if (endpoint !== undefined && !isOrigin(endpoint)) {
    const setting = emulator === undefined ? gcs.endpoint : gcs.emulatorHost;
    throw new ConfigError(`${found.describe(setting)} is no endpoint: ${endpoint}`, {
      hint: ENDPOINT_FORM,
    });
  }
  const encryptionKey = found.get(gcs.encryptionKey);
  const isKey =
    encryptionKey === undefined ||
    (/^[A-Za-z0-9+/]+={0,2}$/.test(encryptionKey) &&
      Buffer.from(encryptionKey, "base64").length === KEY_BYTES);
  if (!isKey) {
    throw new ConfigError(
      `${found.describe(gcs.encryptionKey)} is not ${KEY_BYTES} bytes in base64`,
    );
  }
  return {
    kind: "gcs",
    bucket,
    prefix: folder,
    ...defined("endpoint", endpoint?.replace(/\/$/, "")),
    isAnonymous: emulator !== undefined,
    ...defined("credentialsFile", found.get(gcs.credentialsFile)),
    ...defined("metadataHost", found.get(gcs.metadataHost)),
    ...defined("encryptionKey", encryptionKey),
    chunkBytes: found.get(gcs.maxChunkSize),
  };
}

function isOrigin(endpoint: string): boolean {
  return /^https?:\/\/[^/]+\/?$/.test(endpoint) && isHttpUrl(endpoint);
}
