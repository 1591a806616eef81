import assert from "node:assert/strict";
import { test } from "node:test";
import { findSettings } from "../../src/config/find-settings.ts";
import { readGcsConfig } from "../../src/config/gcs-config.ts";

type Environment = Readonly<Record<string, string>>;

async function read(environment: Environment) {
  return readGcsConfig(await findSettings({ flags: new Map(), environment }));
}

const prefix = { WALG_GS_PREFIX: "gs://b/a//c/" };
const plain = {
  kind: "gcs",
  bucket: "b",
  prefix: "a/c",
  isAnonymous: false,
  chunkBytes: 16_777_216,
};
const key = Buffer.alloc(32, 7).toString("base64");

const good: readonly (readonly [Environment, object])[] = [
  [prefix, plain],
  [
    {
      ...prefix,
      GOOGLE_APPLICATION_CREDENTIALS: "/etc/sa.json",
      GCS_ENCRYPTION_KEY: key,
      WALG_GCS_MAX_CHUNK_SIZE: "52428800",
      GCE_METADATA_HOST: "127.0.0.1:80",
    },
    {
      ...plain,
      credentialsFile: "/etc/sa.json",
      encryptionKey: key,
      chunkBytes: 52_428_800,
      metadataHost: "127.0.0.1:80",
    },
  ],
  [
    { ...prefix, STORAGE_EMULATOR_HOST: "127.0.0.1:9000" },
    { ...plain, endpoint: "http://127.0.0.1:9000", isAnonymous: true },
  ],
  [
    { ...prefix, STORAGE_EMULATOR_HOST: "http://gcs:4443/" },
    { ...plain, endpoint: "http://gcs:4443", isAnonymous: true },
  ],
  [
    { ...prefix, WALNUT_GCS_ENDPOINT: "https://storage-x.p.googleapis.com" },
    { ...plain, endpoint: "https://storage-x.p.googleapis.com" },
  ],
];

for (const [environment, expected] of good) {
  test(`GCS: ${JSON.stringify(environment)}`, async () => {
    assert.deepEqual(await read(environment), expected);
  });
}

const bad: readonly (readonly [Environment, RegExp])[] = [
  [{ WALG_GS_PREFIX: "gs:b" }, /is no URL of a store/],
  [{ ...prefix, STORAGE_EMULATOR_HOST: "http://x/y/z" }, /^STORAGE_EMULATOR_HOST .* no endpoint/],
  [{ ...prefix, STORAGE_EMULATOR_HOST: "http://[::1" }, /^STORAGE_EMULATOR_HOST .* no endpoint/],
  [
    { ...prefix, WALNUT_GCS_ENDPOINT: "storage" },
    /^WALNUT_GCS_ENDPOINT .* is no endpoint: storage$/,
  ],
  [{ ...prefix, GCS_ENCRYPTION_KEY: "c2hvcnQ=" }, /is not 32 bytes in base64$/],
  [{ ...prefix, GCS_MAX_CHUNK_SIZE: "1000" }, /is less than 262144 bytes/],
];

for (const [environment, message] of bad) {
  test(`GCS refused: ${message}`, async () => {
    await assert.rejects(read(environment), { name: "ConfigError", message });
  });
}
