import assert from "node:assert/strict";
import { test } from "node:test";
import { findSettings } from "../../src/config/find-settings.ts";
import { makeConfig } from "../../src/config/load.ts";

async function read(environment: Readonly<Record<string, string>>, homeDirectory?: string) {
  const found = await findSettings({ flags: new Map(), environment });
  const home = homeDirectory === undefined ? {} : { homeDirectory };
  return { found, config: makeConfig(found, { cpuCount: 1, ...home }) };
}

const PRIMARY = { WALG_FILE_PREFIX: "/backups/one" };
const SECOND = { WALG_FILE_PREFIX: "/backups/two" };

test("mirrors are spelled as the fail-over storages are", async () => {
  const MIRROR = JSON.stringify({ b: SECOND, a: { WALG_S3_PREFIX: "s3://bucket/folder" } });
  const { config } = await read({ ...PRIMARY, WALNUT_MIRROR: MIRROR }, "/home/p");
  const { stores, ...rules } = config.mirror ?? { stores: [] };
  assert.deepEqual(
    stores.map(({ name, config }) => [name, config.kind]),
    [
      ["a", "s3"],
      ["b", "directory"],
    ],
  );
  assert.deepEqual(rules, {
    policy: "primary",
    queueDirectory: "/home/p/.local/state/walnut/mirror",
    notesMax: 20_000,
  });
});

test("secrets of mirrors are never shown", async () => {
  const settings = {
    WALG_S3_PREFIX: "s3://b/f",
    AWS_ACCESS_KEY_ID: "id",
    AWS_SECRET_ACCESS_KEY: "hush",
  };
  const { found } = await read({
    ...PRIMARY,
    WALNUT_MIRROR: JSON.stringify({ a: settings }),
    WALNUT_MIRROR_QUEUE_DIRECTORY: "/var/lib/walnut",
    WALNUT_MIRROR_POLICY: "all",
  });
  assert.ok(found.beside.secrets.includes("hush"));
});

const wrong: readonly [environment: Record<string, string>, message: RegExp][] = [
  [{ WALNUT_MIRROR: JSON.stringify({ a: SECOND }) }, /WALNUT_MIRROR .*mirrors no storage/],
  [{ ...PRIMARY, WALNUT_MIRROR: JSON.stringify({ a: PRIMARY }) }, /default and a are the same/],
  [{ ...PRIMARY, WALNUT_MIRROR: JSON.stringify({ default: SECOND }) }, /can't be called that/],
  [{ ...PRIMARY, WALNUT_MIRROR: JSON.stringify({ a: {} }) }, /names no place/],
  [{ ...PRIMARY, WALNUT_MIRROR_POLICY: "some" }, /WALNUT_MIRROR_POLICY/],
  [{ ...PRIMARY, WALNUT_MIRROR: JSON.stringify({ a: SECOND }) }, /no place for the notes/],
];
for (const [environment, message] of wrong) {
  test(`refuses ${JSON.stringify(environment)}`, async () => {
    await assert.rejects(read(environment), { name: "ConfigError", message });
  });
}
