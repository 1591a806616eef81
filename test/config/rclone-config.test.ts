import assert from "node:assert/strict";
import { test } from "node:test";
import { findSettings } from "../../src/config/find-settings.ts";
import { readStorageConfig } from "../../src/config/storage-config.ts";

type Environment = Readonly<Record<string, string>>;

async function read(environment: Environment) {
  return readStorageConfig(await findSettings({ flags: new Map(), environment }));
}

const plain = { kind: "rclone", program: "rclone" };
const content = "[r]\ntype = local\n";

const good: readonly (readonly [Environment, unknown])[] = [
  [{ WALG_RCLONE_PREFIX: "rclone:r:a/b/" }, { ...plain, remote: "r:a/b" }],
  [{ WALNUT_RCLONE_PREFIX: "r:a" }, { ...plain, remote: "r:a" }],
  [{ WALNUT_RCLONE_PREFIX: "rclone:r:" }, { ...plain, remote: "r:" }],
  [{ WALNUT_RCLONE_PREFIX: "rclone:r:/" }, { ...plain, remote: "r:/" }],
  [{ WALNUT_RCLONE_PREFIX: "rclone::local:/a" }, { ...plain, remote: ":local:/a" }],
  [
    { WALNUT_RCLONE_PREFIX: "rclone:r,opt=1:a", RCLONE_CONFIG: "/c" },
    { ...plain, remote: "r,opt=1:a", configFile: "/c" },
  ],
  [
    {
      WALNUT_RCLONE_PREFIX: "rclone:r:a",
      RCLONE_CONF_BASE64: `${Buffer.from(content).toString("base64")}\n`,
      WALNUT_RCLONE_PROGRAM: "/opt/rclone",
    },
    { kind: "rclone", remote: "r:a", configText: content, program: "/opt/rclone" },
  ],
];

for (const [environment, expected] of good) {
  test(`reads ${JSON.stringify(environment)}`, async () => {
    assert.deepEqual(await read(environment), expected);
  });
}

const bad: readonly (readonly [Environment, RegExp])[] = [
  [{ WALNUT_RCLONE_PREFIX: "/a" }, /^WALNUT_RCLONE_PREFIX .* names no remote of rclone: \/a$/],
  [{ WALNUT_RCLONE_PREFIX: "rclone:a" }, /names no remote/],
  [{ WALNUT_RCLONE_PREFIX: "rclone:r:a]b" }, /names no remote/],
  [
    { WALNUT_RCLONE_PREFIX: "r:a", RCLONE_CONFIG: "/c", RCLONE_CONF_BASE64: "W3Jd" },
    /contradict each other$/,
  ],
  [
    { WALNUT_RCLONE_PREFIX: "r:a", RCLONE_CONF_BASE64: "geheim!" },
    /^RCLONE_CONF_BASE64 .* not base64$/,
  ],
  [{ WALNUT_RCLONE_PREFIX: "r:a", WALG_FILE_PREFIX: "/x" }, /^two stores are configured/],
];

for (const [environment, message] of bad) {
  test(`refuses ${JSON.stringify(environment)}`, async () => {
    await assert.rejects(read(environment), { name: "ConfigError", message });
  });
}
