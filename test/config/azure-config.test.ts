import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readAzureConfig } from "../../src/config/azure-config.ts";
import { findSettings } from "../../src/config/find-settings.ts";

type Environment = Readonly<Record<string, string>>;

async function read(environment: Environment) {
  return readAzureConfig(await findSettings({ flags: new Map(), environment }));
}

const plain = {
  kind: "azure",
  container: "c",
  prefix: "a/b",
  account: "acct",
  endpoint: "https://acct.blob.core.windows.net",
  bufferBytes: 8_388_608,
};
const prefix = { WALG_AZ_PREFIX: "azure://c/a//b/" };
const account = { ...prefix, AZURE_STORAGE_ACCOUNT: "acct" };

const good: readonly (readonly [Environment, object])[] = [
  [account, plain],
  [
    { ...account, WALG_AZURE_STORAGE_ACCESS_KEY: "a2V5", AZURE_MAX_BUFFERS: "3" },
    { ...plain, accessKey: "a2V5", maxBuffers: 3 },
  ],
  [
    { ...account, AZURE_STORAGE_SAS_TOKEN: "?sv=1" },
    { ...plain, sasToken: "?sv=1" },
  ],
  [
    { ...account, AZURE_ENVIRONMENT_NAME: "AzureChinaCloud" },
    {
      ...plain,
      endpoint: "https://acct.blob.core.chinacloudapi.cn",
      authorityHost: "https://login.chinacloudapi.cn",
    },
  ],
  [
    { ...account, AZURE_ENDPOINT_SUFFIX: "local.azurestack.external" },
    { ...plain, endpoint: "https://acct.blob.local.azurestack.external" },
  ],
  [
    {
      ...prefix,
      AZURE_STORAGE_CONNECTION_STRING:
        "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=a2V5PT0=;EndpointSuffix=core.windows.net",
    },
    { ...plain, accessKey: "a2V5PT0=" },
  ],
  [
    {
      ...prefix,
      AZURE_STORAGE_CONNECTION_STRING:
        "BlobEndpoint=https://x.privatelink.example/acct/;SharedAccessSignature=sv=1&sig=a%3D",
    },
    {
      ...plain,
      account: "",
      endpoint: "https://x.privatelink.example/acct",
      sasToken: "sv=1&sig=a%3D",
    },
  ],
];

for (const [environment, expected] of good) {
  test(`Azure: ${JSON.stringify(environment)}`, async () => {
    assert.deepEqual(await read(environment), expected);
  });
}

test("UseDevelopmentStorage is Azurite", async () => {
  const connection = { AZURE_STORAGE_CONNECTION_STRING: "UseDevelopmentStorage=true" };
  const config = await read({ ...prefix, ...connection });
  assert.equal(config.endpoint, "http://127.0.0.1:10000/devstoreaccount1");
  assert.equal(config.account, "devstoreaccount1");
  assert.ok(config.accessKey !== undefined);
});

const bad: readonly (readonly [Environment, RegExp])[] = [
  [prefix, /^WALG_AZ_PREFIX from the environment needs a storage account$/],
  [{ ...account, WALG_AZ_PREFIX: "azure:c" }, /is no URL of a store/],
  [{ ...account, AZURE_STORAGE_ACCOUNT: "a.b/c" }, /make no host name/],
  [{ ...account, AZURE_ENVIRONMENT_NAME: "Moon" }, /^AZURE_ENVIRONMENT_NAME .* is no cloud: Moon$/],
  [{ ...account, AZURE_STORAGE_ACCESS_KEY: "no key!" }, /account key that is not base64$/],
  [{ ...prefix, AZURE_STORAGE_CONNECTION_STRING: "nonsense" }, /is no connection string$/],
  [
    { ...prefix, AZURE_STORAGE_CONNECTION_STRING: "BlobEndpoint=x" },
    /BlobEndpoint that is no URL: /,
  ],
];

for (const [environment, message] of bad) {
  test(`Azure refused: ${message}`, async () => {
    await assert.rejects(read(environment), { name: "ConfigError", message });
  });
}

test("a SAS is read again from the file that holds it", async () => {
  const directory = await mkdtemp(join(tmpdir(), "walnut-sas-"));
  try {
    const tokenFile = join(directory, "sas");
    await writeFile(tokenFile, "first\n");
    const byFile = await read({ ...account, AZURE_STORAGE_SAS_TOKEN_FILE: tokenFile });
    assert.equal(await byFile.rereadSasToken?.(), "first");
    await writeFile(tokenFile, "second\n");
    assert.equal(await byFile.rereadSasToken?.(), "second");

    const configFile = join(directory, "walg.json");
    await writeFile(configFile, `{"WALG_AZURE_STORAGE_SAS_TOKEN": "one"}`);
    const byConfig = await read({ ...account, WALG_CONFIG_PATH: configFile });
    assert.equal(byConfig.sasToken, "one");
    await writeFile(configFile, `{"AZURE_STORAGE_SAS_TOKEN": "two"}`);
    assert.equal(await byConfig.rereadSasToken?.(), "two");
    assert.equal(
      (await read({ ...account, AZURE_STORAGE_SAS_TOKEN: "x" })).rereadSasToken,
      undefined,
    );
  } finally {
    await rm(directory, { recursive: true });
  }
});
