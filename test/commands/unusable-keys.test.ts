import assert from "node:assert/strict";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { runWalnut } from "../support/walnut.ts";

const HEX_KEY = "0123456789abcdef".repeat(4);

/** Keys that can't be used, and what is said about each. */
const unusableKeys: Readonly<Record<string, readonly [Readonly<Record<string, string>>, RegExp]>> =
  {
    "64 hex digits taken as text": [
      { WALG_LIBSODIUM_KEY: HEX_KEY },
      /holds 64 bytes, and a key has 32/,
    ],
    "24 bytes": [{ WALG_LIBSODIUM_KEY: "x".repeat(24) }, /holds 24 bytes/],
    "63 hex digits": [
      { WALG_LIBSODIUM_KEY: HEX_KEY.slice(1), WALG_LIBSODIUM_KEY_TRANSFORM: "hex" },
      /64 hex digits are needed, it has 63 characters/,
    ],
    "hex that is base64": [
      { WALG_LIBSODIUM_KEY: HEX_KEY, WALG_LIBSODIUM_KEY_TRANSFORM: "base64" },
      /not the base64, with padding, of 32 bytes/,
    ],
    "a transform that nobody knows": [
      { WALG_LIBSODIUM_KEY: HEX_KEY, WALG_LIBSODIUM_KEY_TRANSFORM: "Hex" },
      /is not one of none, base64, hex/,
    ],
    "a transform without a key": [
      { WALG_LIBSODIUM_KEY_TRANSFORM: "hex" },
      /but no key that it is for/,
    ],
    "a file that is not there": [
      { WALG_LIBSODIUM_KEY_PATH: "/no/such/key" },
      /can't be read: ENOENT/,
    ],
    "a directory": [{ WALG_LIBSODIUM_KEY_PATH: "/tmp" }, /can't be read: EISDIR/],
    "an empty file": [{ WALG_LIBSODIUM_KEY_PATH: "/dev/null" }, /holds 0 bytes/],
    "two at once": [
      { WALG_LIBSODIUM_KEY_PATH: "/no/such/key", WALG_PGP_KEY_PATH: "/no/such/key" },
      /two keys are configured to encrypt with: WALG_LIBSODIUM_KEY_PATH .*WALG_PGP_KEY_PATH/,
    ],
    "a key and its file": [
      { WALG_LIBSODIUM_KEY: "x".repeat(32), WALG_LIBSODIUM_KEY_PATH: "/no/such/key" },
      /two keys are configured/,
    ],
    "OpenPGP from no file": [{ WALG_PGP_KEY_PATH: "/no/such/key" }, /can't be read: ENOENT/],
    "OpenPGP that is none": [{ WALG_PGP_KEY: "x".repeat(40) }, /holds no armored OpenPGP key/],
    "an old key from no file": [
      { WALNUT_LIBSODIUM_OLD_KEY_PATHS: "/no/such/key" },
      /WALNUT_LIBSODIUM_OLD_KEY_PATHS .*, file \/no\/such\/key, can't be read/,
    ],
  };

for (const [name, [env, message]] of Object.entries(unusableKeys)) {
  test(`a key that can't be used (${name}) refuses every command, and nothing is stored`, async () => {
    using directory = scratchDirectory();
    const store = join(directory.path, "store");
    mkdirSync(store);
    writeFileSync(join(directory.path, "file"), "content");
    const isFirst = name === Object.keys(unusableKeys)[0];
    const others = isFirst ? [["wal-fetch", "file", "to"], ["backup-list"]] : [];
    for (const words of [["wal-push", "file"], ...others]) {
      const { code, stderr } = await runWalnut(words, {
        cwd: directory.path,
        env: { WALG_FILE_PREFIX: store, WALNUT_CACHE_DIR: directory.path, ...env },
      });
      assert.equal(code, words[0] === "wal-fetch" ? 200 : 3, stderr);
      assert.match(stderr, message);
      assert.match(stderr, /HINT: /);
      assert.ok(!/x{24}|0123456789abcde/.test(stderr), stderr);
    }
    assert.deepEqual(readdirSync(store), []);
  });
}
