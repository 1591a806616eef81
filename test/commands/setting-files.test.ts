import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, renameSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { settingsFingerprint, settingsWatch } from "../../src/commands/setting-files.ts";
import { findSettings } from "../../src/config/find-settings.ts";
import { makeConfig } from "../../src/config/load.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

type Environment = Readonly<Record<string, string>>;

async function places(workingDirectory: string, environment: Environment) {
  const found = await findSettings({ flags: new Map(), environment });
  const config = makeConfig(found, { cpuCount: 2, homeDirectory: "/home/x" });
  return { config, found, environment, workingDirectory };
}

async function fingerprint(workingDirectory: string, environment: Environment): Promise<string> {
  return settingsFingerprint("1", await places(workingDirectory, environment));
}

test("a config file that is written to or replaced, even by an older one, is seen", async () => {
  using directory = scratchDirectory();
  const file = join(directory.path, "c.json");
  writeFileSync(file, '{"WALG_FILE_PREFIX": "/one"}');
  const at = await places(directory.path, { WALNUT_CONFIG: file });
  assert.equal(settingsWatch(at)(), true);
  copyFileSync(file, `${file}.old`);
  utimesSync(`${file}.old`, 1, 1);
  renameSync(`${file}.old`, file);
  // Also when that was before anybody began to watch.
  assert.equal(settingsWatch(at)(), false);
});

test("a key in a file is one of the settings", async () => {
  using directory = scratchDirectory();
  const key = join(directory.path, "key");
  writeFileSync(key, "one");
  const environment = { WALG_FILE_PREFIX: "/one", WALG_LIBSODIUM_KEY_PATH: "key" };
  const isCurrent = settingsWatch(await places(directory.path, environment));
  const before = await fingerprint(directory.path, environment);
  assert.equal(await fingerprint(directory.path, environment), before);
  assert.equal(isCurrent(), true);
  writeFileSync(key, "two");
  assert.equal(isCurrent(), false);
  assert.notEqual(await fingerprint(directory.path, environment), before);
});

test("what changes in a directory that is named changes nothing", async () => {
  using directory = scratchDirectory();
  const environment = { WALG_FILE_PREFIX: join(directory.path, "store"), HOME: "/a" };
  const before = await fingerprint(directory.path, environment);
  mkdirSync(join(directory.path, "store"));
  assert.equal(await fingerprint(directory.path, { ...environment, HOME: "/b" }), before);
});

test("libraries' variables count, wherever they stand", async () => {
  using directory = scratchDirectory();
  const file = join(directory.path, "c.json");
  const base = { WALNUT_CONFIG: file };
  writeFileSync(file, '{"WALG_FILE_PREFIX": "/one", "AWS_ENDPOINT_URL_S3": "http://a"}');
  const inFile = await fingerprint(directory.path, base);
  // As for a process that was started with what the file has given to its parent.
  const inherited = { ...base, AWS_ENDPOINT_URL_S3: "http://a" };
  assert.equal(await fingerprint(directory.path, inherited), inFile);
  const other = { ...base, AWS_ENDPOINT_URL_S3: "http://b" };
  assert.notEqual(await fingerprint(directory.path, other), inFile);
});

const stores: readonly Environment[] = [
  {
    WALG_S3_PREFIX: "s3://b/p",
    AWS_ENDPOINT: "http://e:1",
    S3_REQUEST_ADDITIONAL_HEADERS: '{"x": "y"}',
    WALG_CSE_KMS_ID: "id",
    HTTPS_PROXY: "http://p:1",
    WALG_FAILOVER_STORAGES: '{"second": {"WALG_S3_PREFIX": "s3://c/p"}}',
  },
  { WALG_S3_PREFIX: "s3://b/p", WALNUT_MIRROR: '{"m": {"WALG_FILE_PREFIX": "/m"}}' },
  { WALG_AZ_PREFIX: "azure://c/p", AZURE_STORAGE_ACCOUNT: "a", AZURE_STORAGE_ACCESS_KEY: "aw==" },
  { WALG_GS_PREFIX: "gs://b/p" },
  { WALG_SSH_PREFIX: "ssh://h/p", SSH_USERNAME: "u", SSH_PASSWORD: "p" },
  { WALNUT_RCLONE_PREFIX: "rclone:remote:p" },
  { WALG_FILE_PREFIX: "/p", WALG_LIBSODIUM_KEY: "0".repeat(32) },
];
for (const environment of stores) {
  const [prefix = ""] = Object.values(environment);
  test(`nothing in the configuration of ${prefix} escapes its text`, async () => {
    const { config } = await places("/", environment);
    const again: unknown = JSON.parse(JSON.stringify(config));
    assert.deepEqual(again, config);
  });
}
