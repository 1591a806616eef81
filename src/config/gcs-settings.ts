import { defaulted, setting } from "./setting.ts";
import { boolean, bytes, duration, integer, path, secret, text } from "./value-types.ts";

const ANY = { form: "any" } as const;

/** A bucket of Google Cloud Storage. */
export const gcs = {
  prefix: setting("GS_PREFIX", text, "Store in Google Cloud Storage: gs://bucket/folder."),
  credentialsFile: setting(
    "GOOGLE_APPLICATION_CREDENTIALS",
    path,
    "Credentials: a service account's key, or of a workload identity federation. " +
      "Without it, gcloud's own or the machine's service account.",
    ANY,
  ),
  emulatorHost: setting(
    "STORAGE_EMULATOR_HOST",
    text,
    "Emulator to use instead, without credentials: host:port or a URL.",
    { form: "plain" },
  ),
  metadataHost: setting(
    "GCE_METADATA_HOST",
    text,
    "Host of the machine's metadata service, where it is not 169.254.169.254.",
    { form: "foreign" },
  ),
  endpoint: setting("GCS_ENDPOINT", text, "URL of a private endpoint.", { form: "own" }),
  encryptionKey: setting(
    "GCS_ENCRYPTION_KEY",
    secret,
    "Key of 32 bytes as base64, for encryption by the store.",
    ANY,
  ),
  maxChunkSize: defaulted(
    "GCS_MAX_CHUNK_SIZE",
    bytes(256 * 1024),
    "Size of the pieces that large objects are sent in, rounded to 256 KiB. WAL-G's default is three times as much.",
    { ...ANY, default: "16777216", unit: "bytes" },
  ),
  normalizePrefix: setting("GCS_NORMALIZE_PREFIX", boolean, "Join slashes in the prefix.", {
    ...ANY,
    effect: {
      kind: "warning",
      reason: "walnut joins them always",
      harmlessText: /^(1|t|T|true|TRUE|True)$/,
    },
  }),
  contextTimeout: setting(
    "GCS_CONTEXT_TIMEOUT",
    duration({ minMs: 0, plainUnit: "s" }),
    "Time limit of a call.",
    {
      ...ANY,
      effect: { kind: "none", reason: "a request ends when nothing is heard for a while" },
    },
  ),
  maxRetries: setting("GCS_MAX_RETRIES", integer(0), "How often a request is repeated.", {
    ...ANY,
    effect: {
      kind: "none",
      reason: "walnut repeats requests until their time limit, however often that is",
    },
  }),
} as const;
