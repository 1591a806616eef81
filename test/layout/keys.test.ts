import assert from "node:assert/strict";
import { test } from "node:test";
import {
  backupFolder,
  controlKey,
  filesMetadataKey,
  identityKey,
  labelKey,
  manifestKey,
  metadataKey,
  parsePartKey,
  parseSentinelKey,
  parseWalKey,
  partKey,
  sentinelKey,
  tarFolder,
  walKey,
} from "../../src/layout/keys.ts";

const segment = "000000010000000000000003";
const backup = `base_${segment}`;

test("keys are WAL-G's", () => {
  assert.equal(walKey(segment, "lz4"), `wal_005/${segment}.lz4`);
  assert.equal(walKey("00000002.history", ""), "wal_005/00000002.history");
  assert.equal(sentinelKey(backup), `basebackups_005/${backup}_backup_stop_sentinel.json`);
  assert.equal(backupFolder(backup), `basebackups_005/${backup}/`);
  assert.equal(metadataKey(backup), `basebackups_005/${backup}/metadata.json`);
  assert.equal(filesMetadataKey(backup), `basebackups_005/${backup}/files_metadata.json`);
  assert.equal(tarFolder(backup), `basebackups_005/${backup}/tar_partitions/`);
  assert.equal(partKey(backup, 1, "zst"), `${tarFolder(backup)}part_001.tar.zst`);
  assert.equal(partKey(backup, 1000, ""), `${tarFolder(backup)}part_1000.tar`);
  assert.equal(controlKey(backup, "br"), `${tarFolder(backup)}pg_control.tar.br`);
  assert.equal(labelKey(backup, ""), `${tarFolder(backup)}backup_label.tar`);
});

test("our own keys are outside WAL-G's names", () => {
  assert.equal(identityKey, "walnut_005/cluster.json");
  assert.equal(manifestKey(backup), `basebackups_005/${backup}/walnut_manifest.jsonl.zst`);
  assert.equal(parsePartKey(manifestKey(backup)), undefined);
  assert.equal(parseSentinelKey(manifestKey(backup)), undefined);
});

const walNames = [
  [`${segment}.lz4`, segment, "lz4"],
  [`${segment}.zst`, segment, "zst"],
  [segment, segment, ""],
  [`${segment}.`, segment, ""],
  [`${segment}.partial`, `${segment}.partial`, ""],
  [`${segment}.partial.br`, `${segment}.partial`, "br"],
  [`${segment}.00000028.backup.gz`, `${segment}.00000028.backup`, "gz"],
  ["00000002.history.lzma", "00000002.history", "lzma"],
  [`${segment}.json`, `${segment}.json`, ""],
  [`${segment}_delta.lzo`, `${segment}_delta`, "lzo"],
  [".lz4", ".lz4", ""],
] as const;

for (const [text, name, extension] of walNames) {
  test(`WAL object ${text}`, () => {
    assert.deepEqual(parseWalKey(`wal_005/${text}`), { name, extension });
  });
}

for (const key of ["wal_005/", "wal_005/a/b", "basebackups_005/x", segment, `wal_006/${segment}`]) {
  test(`${key} is no WAL object`, () => assert.equal(parseWalKey(key), undefined));
}

test("a sentinel's backup ends before the first _backup", () => {
  for (const name of [backup, `${backup}_D_${segment}`, `${backup}_00000040`]) {
    assert.equal(parseSentinelKey(sentinelKey(name)), name);
  }
  const odd = `basebackups_005/x_backup_y_backup_stop_sentinel.json`;
  assert.equal(parseSentinelKey(odd), "x");
});

for (const key of [
  "basebackups_005/_backup_stop_sentinel.json",
  `basebackups_005/${backup}/x_backup_stop_sentinel.json`,
  `wal_005/${backup}_backup_stop_sentinel.json`,
  `basebackups_005/${backup}_backup_stop_sentinel.json.tmp`,
  metadataKey(backup),
]) {
  test(`${key} is no sentinel`, () => assert.equal(parseSentinelKey(key), undefined));
}

const parts = [
  ["part_001.tar.lz4", "part", "lz4"],
  ["part_1000.tar", "part", ""],
  ["part_001.tar.", "part", ""],
  ["part_00000000.tar.lzo", "part", "lzo"],
  ["part_001.tar.xyz", "part", "xyz"],
  ["pg_control.tar.zst", "control", "zst"],
  ["pg_control.tar", "control", ""],
  ["pg_control.tar.", "control", ""],
  ["backup_label.tar.br", "label", "br"],
  ["backup_label.tar.", "label", ""],
  ["copy_0.tar.lz4", "copy", "lz4"],
  ["copy_12.tar.tar", "copy", ""],
] as const;

for (const [name, kind, extension] of parts) {
  test(`tar object ${name}`, () => {
    assert.deepEqual(parsePartKey(`${tarFolder(backup)}${name}`), {
      backup,
      name,
      kind,
      extension,
    });
  });
}

for (const key of [
  `${tarFolder(backup)}readme.txt`,
  `${tarFolder(backup)}deeper/part_001.tar`,
  `basebackups_005/${backup}/part_001.tar`,
  "basebackups_005//tar_partitions/part_001.tar",
  `wal_005/${backup}/tar_partitions/part_001.tar`,
]) {
  test(`${key} is no tar object`, () => assert.equal(parsePartKey(key), undefined));
}
