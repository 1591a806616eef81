import assert from "node:assert/strict";
import { test } from "node:test";
import { findSettings } from "../../src/config/find-settings.ts";
import { readStorageConfig } from "../../src/config/storage-config.ts";

type Environment = Readonly<Record<string, string>>;

async function read(environment: Environment) {
  return readStorageConfig(await findSettings({ flags: new Map(), environment }));
}

const WALG_SWIFT_PREFIX = "swift://c//a/b/";
const plain = {
  kind: "swift",
  container: "c",
  prefix: "a/b",
  endpointType: "public",
  maxPartBytes: 20_971_520,
};
const user = { OS_USERNAME: "u", OS_PASSWORD: "p" };
const identity = (user_: object) => ({ methods: ["password"], password: { user: user_ } });
const byName = { name: "u", domain: { id: "default" }, password: "p" };

const logins: readonly (readonly [Environment, object])[] = [
  [
    { ...user, OS_AUTH_URL: "http://k/auth/v1.0/" },
    { kind: "v1", url: "http://k/auth/v1.0", user: "u", key: "p" },
  ],
  [
    { ...user, OS_AUTH_URL: "http://k", OS_IDENTITY_API_VERSION: "1.0" },
    { kind: "v1", url: "http://k", user: "u", key: "p" },
  ],
  [
    { ...user, OS_AUTH_URL: "https://k:5000/v3" },
    { kind: "v3", url: "https://k:5000/v3", body: { auth: { identity: identity(byName) } } },
  ],
  [
    { ...user, OS_AUTH_URL: "https://k/identity/", OS_TENANT_NAME: "t" },
    {
      kind: "v3",
      url: "https://k/identity/v3",
      body: {
        auth: {
          identity: identity(byName),
          scope: { project: { name: "t", domain: { id: "default" } } },
        },
      },
    },
  ],
  [
    {
      OS_AUTH_URL: "https://k/v3",
      OS_USER_ID: "i",
      WALG_OS_PASSWORD: "p",
      OS_PROJECT_ID: "x",
      OS_PROJECT_NAME: "passed over",
    },
    {
      kind: "v3",
      url: "https://k/v3",
      body: {
        auth: { identity: identity({ id: "i", password: "p" }), scope: { project: { id: "x" } } },
      },
    },
  ],
  [
    {
      ...user,
      OS_AUTH_URL: "https://k/v3",
      OS_USER_DOMAIN_NAME: "ud",
      OS_PROJECT_NAME: "x",
      OS_PROJECT_DOMAIN_ID: "pd",
    },
    {
      kind: "v3",
      url: "https://k/v3",
      body: {
        auth: {
          identity: identity({ ...byName, domain: { name: "ud" } }),
          scope: { project: { name: "x", domain: { id: "pd" } } },
        },
      },
    },
  ],
  [
    { ...user, OS_AUTH_URL: "https://k/v3", OS_TRUST_ID: "t", OS_PROJECT_NAME: "x" },
    {
      kind: "v3",
      url: "https://k/v3",
      body: { auth: { identity: identity(byName), scope: { "OS-TRUST:trust": { id: "t" } } } },
    },
  ],
  [
    {
      OS_AUTH_URL: "https://k/v3",
      OS_APPLICATION_CREDENTIAL_ID: "i",
      OS_APPLICATION_CREDENTIAL_SECRET: "s",
      OS_PROJECT_NAME: "passed over",
    },
    {
      kind: "v3",
      url: "https://k/v3",
      body: {
        auth: {
          identity: {
            methods: ["application_credential"],
            application_credential: { id: "i", secret: "s" },
          },
        },
      },
    },
  ],
  [
    { OS_AUTH_TOKEN: "t", OS_STORAGE_URL: "https://s/v1/x" },
    { kind: "token", token: "t" },
  ],
];

for (const [environment, login] of logins) {
  test(`logs in with ${JSON.stringify(environment)}`, async () => {
    const url = environment["OS_STORAGE_URL"];
    const expected = { ...plain, login, ...(url === undefined ? {} : { storageUrl: url }) };
    assert.deepEqual(await read({ WALG_SWIFT_PREFIX, ...environment }), expected);
  });
}

test("reads where the store is", async () => {
  const config = await read({
    WALE_SWIFT_PREFIX: "swift://c",
    ...user,
    OS_AUTH_URL: "https://k/v3",
    OS_REGION_NAME: "r",
    OS_INTERFACE: "internalURL",
    OS_CACERT: "/ca.pem",
    WALNUT_SWIFT_MAX_PART_SIZE: "64MiB",
  });
  assert.equal(config?.kind, "swift");
  const { prefix, region, endpointType, caFile, maxPartBytes } = config;
  assert.deepEqual(
    { prefix, region, endpointType, caFile, maxPartBytes },
    {
      prefix: "",
      region: "r",
      endpointType: "internal",
      caFile: "/ca.pem",
      maxPartBytes: 67_108_864,
    },
  );
});

const bad: readonly (readonly [Environment, RegExp])[] = [
  [{ WALG_SWIFT_PREFIX }, /^WALG_SWIFT_PREFIX from the environment needs OS_AUTH_URL$/],
  [{ WALG_SWIFT_PREFIX, OS_AUTH_URL: "http://k/v3" }, /needs OS_PASSWORD$/],
  [{ WALG_SWIFT_PREFIX, OS_AUTH_URL: "http://k/v3", OS_PASSWORD: "p" }, /needs OS_USERNAME$/],
  [{ WALG_SWIFT_PREFIX, OS_AUTH_URL: "http://k/v1.0", OS_USERNAME: "u" }, /needs OS_PASSWORD$/],
  [
    { WALG_SWIFT_PREFIX, OS_AUTH_URL: "http://k/v3", OS_APPLICATION_CREDENTIAL_ID: "i" },
    /needs OS_APPLICATION_CREDENTIAL_SECRET$/,
  ],
  [
    { WALG_SWIFT_PREFIX, ...user, OS_AUTH_URL: "http://k/v2.0" },
    /^OS_AUTH_URL .* asks for version 2 /,
  ],
  [
    { WALG_SWIFT_PREFIX, ...user, OS_AUTH_URL: "http://k", OS_IDENTITY_API_VERSION: "x" },
    /^OS_IDENTITY_API_VERSION .* asks for version x /,
  ],
  [{ WALG_SWIFT_PREFIX, ...user, OS_AUTH_URL: "k:5000" }, /^OS_AUTH_URL .* is no URL: k:5000$/],
  [{ WALG_SWIFT_PREFIX: "/c", ...user, OS_AUTH_URL: "http://k" }, /is no URL of a store/],
];

for (const [environment, message] of bad) {
  test(`refuses ${JSON.stringify(environment)}`, async () => {
    await assert.rejects(read(environment), { name: "ConfigError", message });
  });
}
