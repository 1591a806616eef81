import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readFailoverConfig, readTargetStorage } from "../../src/config/failover-config.ts";
import { findSettings } from "../../src/config/find-settings.ts";
import { readStorageConfig } from "../../src/config/storage-config.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

type Environment = Readonly<Record<string, string>>;

async function read(environment: Environment) {
  const found = await findSettings({ flags: new Map(), environment });
  assert.deepEqual(found.beside.problems, []);
  const config = readFailoverConfig(found, readStorageConfig(found));
  return { found, config, target: readTargetStorage(found, config?.stores ?? []) };
}

const PRIMARY = {
  WALG_S3_PREFIX: "s3://main/a",
  AWS_ENDPOINT: "http://s3:9000",
  AWS_REGION: "r",
  AWS_S3_FORCE_PATH_STYLE: "true",
  WALG_S3_STORAGE_CLASS: "STANDARD_IA",
};

test("a storage has its own settings and those of the top level without prefix", async () => {
  const { config, target } = await read({
    ...PRIMARY,
    WALG_FAILOVER_STORAGES: JSON.stringify({
      zoo: { WALG_FILE_PREFIX: "/backups/zoo" },
      // Two keys of one name, numbers and booleans: as in the file itself.
      Alpha: {
        WALG_S3_PREFIX: "s3://other/b",
        AWS_REGION: "own",
        aws_access_key_id: "id",
        AWS_SECRET_ACCESS_KEY: "secret",
        S3_MAX_PART_SIZE: 8_388_608,
        AWS_DUAL_STACK: true,
        SOMETHING: "of another program",
      },
    }),
    WALG_FAILOVER_STORAGES_CHECK_TIMEOUT: "5s",
    WALG_FAILOVER_STORAGES_CACHE_EMA_ALPHA_DEAD_MIN: "0.2",
  });
  assert.equal(target, undefined);
  assert.deepEqual(
    config?.stores.map(({ name }) => name),
    ["Alpha", "zoo"],
  );
  const [alpha, zoo] = config?.stores ?? [];
  assert.deepEqual(zoo?.config, { kind: "directory", path: "/backups/zoo" });
  assert.deepEqual(alpha?.config, {
    kind: "s3",
    bucket: "other",
    prefix: "b",
    endpoint: "http://s3:9000",
    region: "own",
    accessKeyId: "id",
    secretAccessKey: "secret",
    isPathStyle: true,
    isDualStack: true,
    maxPartBytes: 8_388_608,
    useListObjectsV1: false,
    deleteBatchSize: 1000,
  });
  assert.deepEqual(config?.health, {
    isChecked: true,
    checkTimeoutMs: 5000,
    checkBytes: 1_000_000,
    lifetimeMs: 900_000,
    aliveLimit: 0.99,
    deadLimit: 0.88,
    alphaAlive: { min: 0.01, max: 0.05 },
    alphaDead: { min: 0.2, max: 0.5 },
  });
});

test("secrets of each storage are known as such", async () => {
  const { found } = await read({
    ...PRIMARY,
    WALG_FAILOVER_STORAGES:
      '{"b": {"WALG_S3_PREFIX": "s3://b", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hush"}}',
  });
  assert.ok(found.beside.secrets.includes("hush"));
});

const refused: readonly (readonly [Environment, RegExp])[] = [
  [{ WALG_FAILOVER_STORAGES: "[]" }, /line 1, column 1: expected {/],
  [{ WALG_FAILOVER_STORAGES: '{"b": "x"}' }, /storage "b" in .* is no object of settings/],
  [{ WALG_FAILOVER_STORAGES: '{"b": {}}' }, /storage "b" in .* names no place/],
  [{ WALG_FAILOVER_STORAGES: '{"default": {"WALG_FILE_PREFIX": "/b"}}' }, /can't be called that/],
  [{ WALG_FAILOVER_STORAGES: '{"all": {"WALG_FILE_PREFIX": "/b"}}' }, /can't be called that/],
  [{ WALG_FAILOVER_STORAGES: '{"a b": {"WALG_FILE_PREFIX": "/b"}}' }, /can't be called that/],
  [
    { WALG_FAILOVER_STORAGES: '{"b": {"WALG_FILE_PREFIX": "/b", "WALG_S3_PREFIX": "s3://b"}}' },
    /two stores are configured/,
  ],
  [
    { WALG_FAILOVER_STORAGES: '{"b": {"WALG_FILE_PREFIX": "/b", "WALG_PREFIX_S3": "x"}}' },
    /WALG_PREFIX_S3 of storage "b" in .* is no setting of a store/,
  ],
  [
    {
      WALG_FAILOVER_STORAGES: '{"b": {"WALG_FILE_PREFIX": "/b", "WALG_COMPRESSION_METHOD": "br"}}',
    },
    /WALG_COMPRESSION_METHOD of .* is no setting of a store/,
  ],
  [{ WALG_FAILOVER_STORAGES: '{"b": {"WALG_FILE_PREFIX": "b"}}' }, /not an absolute path/],
  [
    { WALG_FAILOVER_STORAGES: '{"b": {"WALG_S3_PREFIX": "s3://main/a"}}' },
    /default and b are the same/,
  ],
  [
    {
      WALG_FAILOVER_STORAGES: '{"b": {"WALG_FILE_PREFIX": "/b"}, "c": {"WALG_FILE_PREFIX": "/b/"}}',
    },
    /b and c are the same place/,
  ],
  [{ WALG_TARGET_STORAGE: "c" }, /there is no storage c/],
];

for (const [environment, message] of refused) {
  test(`refuses ${JSON.stringify(environment)}`, async () => {
    await assert.rejects(read({ ...PRIMARY, ...environment }), { code: "config", message });
  });
}

test("one storage can be made the only one", async () => {
  const storages = { WALG_FAILOVER_STORAGES: '{"b": {"WALG_FILE_PREFIX": "/b"}}' };
  const targetOf = async (target: string) =>
    (await read({ ...PRIMARY, ...storages, WALG_TARGET_STORAGE: target })).target;
  assert.equal(await targetOf("b"), "b");
  assert.equal(await targetOf("default"), "default");
  assert.equal(await targetOf("all"), undefined);
});

const FILES: readonly (readonly [string, string])[] = [
  [
    "json",
    '{"WALG_FILE_PREFIX": "/a", "WALG_FAILOVER_STORAGES": {"b": {"WALG_FILE_PREFIX": "/b"}}}',
  ],
  ["yaml", "WALG_FILE_PREFIX: /a\nWALG_FAILOVER_STORAGES:\n  b:\n    WALG_FILE_PREFIX: /b\n"],
  ["toml", 'WALG_FILE_PREFIX = "/a"\n[WALG_FAILOVER_STORAGES.b]\nWALG_FILE_PREFIX = "/b"\n'],
];

for (const [extension, content] of FILES) {
  test(`storages stand as a map in a ${extension} file`, async () => {
    using scratch = scratchDirectory();
    const path = join(scratch.path, `config.${extension}`);
    writeFileSync(path, content);
    const flags = new Map([["config", path]]);
    const found = await findSettings({ flags, environment: {} });
    const config = readFailoverConfig(found, readStorageConfig(found));
    assert.deepEqual(config?.stores, [{ name: "b", config: { kind: "directory", path: "/b" } }]);
  });
}
