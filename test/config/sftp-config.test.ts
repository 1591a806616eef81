import assert from "node:assert/strict";
import { test } from "node:test";
import { findSettings } from "../../src/config/find-settings.ts";
import { readStorageConfig } from "../../src/config/storage-config.ts";

type Environment = Readonly<Record<string, string>>;

async function read(environment: Environment) {
  return readStorageConfig(await findSettings({ flags: new Map(), environment }));
}

const plain = { kind: "sftp", host: "h", port: 22, username: "u", isHostKeyChecked: true };

const good: readonly (readonly [Environment, unknown])[] = [
  [{ WALG_SSH_PREFIX: "ssh://u@h/a//b/" }, { ...plain, path: "/a/b" }],
  [{ WALE_SSH_PREFIX: "sftp://u@h" }, { ...plain, path: "." }],
  [{ WALG_SSH_PREFIX: "ssh://u@h/~/a/b" }, { ...plain, path: "a/b" }],
  [{ WALG_SSH_PREFIX: "ssh://u@h/~" }, { ...plain, path: "." }],
  [{ WALG_SSH_PREFIX: "ssh://u@h" }, { ...plain, path: "." }],
  [{ WALG_SSH_PREFIX: "ssh://u@h/" }, { ...plain, path: "/" }],
  [{ WALG_SSH_PREFIX: "ssh://u@h:2222/a%20b" }, { ...plain, port: 2222, path: "/a b" }],
  [{ WALG_SSH_PREFIX: "ssh://u@[::1]:2222/a" }, { ...plain, host: "::1", port: 2222, path: "/a" }],
  [
    { WALG_SSH_PREFIX: "ssh://x@h:1/a", SSH_USERNAME: "u", WALG_SSH_PORT: "2200" },
    { ...plain, port: 2200, path: "/a" },
  ],
  [
    {
      WALG_SSH_PREFIX: "ssh://h/a",
      WALG_SSH_USERNAME: "u",
      SSH_PASSWORD: "p",
      SSH_PRIVATE_KEY_PATH: "/k",
      SSH_PRIVATE_KEY_PASSPHRASE: "pp",
      SSH_AUTH_SOCK: "/agent",
      WALNUT_SSH_KNOWN_HOSTS: "/known",
      WALNUT_SSH_HOST_KEY_CHECK: "false",
    },
    {
      ...plain,
      path: "/a",
      password: "p",
      privateKeyPath: "/k",
      passphrase: "pp",
      agentSocket: "/agent",
      knownHostsFile: "/known",
      isHostKeyChecked: false,
    },
  ],
];

for (const [environment, expected] of good) {
  test(`reads ${JSON.stringify(environment)}`, async () => {
    assert.deepEqual(await read(environment), expected);
  });
}

const bad: readonly (readonly [Environment, RegExp])[] = [
  [
    { WALG_SSH_PREFIX: "ssh://h/a" },
    /^WALG_SSH_PREFIX from the environment needs a user to log in$/,
  ],
  [{ WALG_SSH_PREFIX: "/a" }, /is no URL of a store: \/a$/],
  [{ WALG_SSH_PREFIX: "ssh:///a" }, /is no URL of a store/],
  [{ WALG_SSH_PREFIX: "ssh://u@h:x/a" }, /is no URL of a store/],
  [{ WALG_SSH_PREFIX: "ssh://u:p@h/a" }, /^WALG_SSH_PREFIX from the environment holds a password$/],
  [
    { WALG_SSH_PREFIX: "ssh://u@h/a", SSH_PORT: "22/tcp" },
    /^SSH_PORT = "22\/tcp" .* whole number$/,
  ],
  [{ WALG_SSH_PREFIX: "ssh://u@h/a", WALG_FILE_PREFIX: "/x" }, /^two stores are configured/],
];

for (const [environment, message] of bad) {
  test(`refuses ${JSON.stringify(environment)}`, async () => {
    await assert.rejects(read(environment), { name: "ConfigError", message });
  });
}
