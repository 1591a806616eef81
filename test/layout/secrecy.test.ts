import assert from "node:assert/strict";
import { test } from "node:test";
import {
  changeMapKey,
  controlKey,
  filesMetadataKey,
  gapKey,
  identityKey,
  labelKey,
  manifestKey,
  metadataKey,
  partKey,
  quarantineKey,
  sentinelKey,
  serverManifestKey,
  walKey,
  writerKey,
} from "../../src/layout/keys.ts";
import { ENCRYPTION_MARK_KEY, isSecretKey } from "../../src/layout/secrecy.ts";

const SEGMENT = "000000010000000000000001";
const BACKUP = `base_${SEGMENT}`;

test("what WAL-G encrypts is encrypted, and what of ours holds content", () => {
  for (const extension of ["", "zst", "br"]) {
    for (const key of [
      walKey(SEGMENT, extension),
      walKey("00000002.history", extension),
      walKey(`${SEGMENT}.partial`, extension),
      walKey(`${SEGMENT}.00000028.backup`, extension),
      walKey(`${SEGMENT}_delta`, extension),
      walKey("any name", extension),
      partKey(BACKUP, 1, extension),
      controlKey(BACKUP, extension),
      labelKey(BACKUP, extension),
      serverManifestKey(BACKUP),
      changeMapKey(SEGMENT, extension),
      partKey(BACKUP, 1, extension).replace("basebackups", "catchup"),
    ]) {
      assert.ok(isSecretKey(key), key);
    }
  }
  assert.ok(isSecretKey(manifestKey(BACKUP)));
  assert.ok(isSecretKey(quarantineKey(SEGMENT, "0".repeat(64))));
});

test("documents stay plain", () => {
  for (const key of [
    sentinelKey(BACKUP),
    metadataKey(BACKUP),
    filesMetadataKey(BACKUP),
    sentinelKey(BACKUP).replace("basebackups", "catchup"),
    walKey(`${SEGMENT}.json`, ""),
    identityKey,
    gapKey(SEGMENT),
    writerKey(1),
    ENCRYPTION_MARK_KEY,
    "wal-g_storage_check",
    "somebody's own/file.tar.zst",
  ]) {
    assert.ok(!isSecretKey(key), key);
  }
});
