/** E23: each form of a libsodium key that is accepted is the whole key, and nothing is stored plain. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { runWalnut } from "../support/walnut.ts";

const HEX = "0123456789abcdef".repeat(4);
const BASE64 = Buffer.from(HEX, "hex").toString("base64");
const TEXT = "correct horse battery staple, 32";
const TEXT_31 = TEXT.slice(0, 31);

/** A key as it is stored with, the same key in another form, and a key that shares its beginning. */
const rows = [
  ["64 hex digits", { KEY: HEX, KEY_TRANSFORM: "hex" }, { KEY: BASE64, KEY_TRANSFORM: "base64" }],
  [
    "a file of 64 hex digits and a newline",
    { KEY_PATH: `${HEX.toUpperCase()}\r\n`, KEY_TRANSFORM: "hex" },
    { KEY: HEX, KEY_TRANSFORM: "hex" },
  ],
  [
    "a file of base64 and a newline",
    { KEY_PATH: `${BASE64}\n`, KEY_TRANSFORM: "base64" },
    { KEY: HEX, KEY_TRANSFORM: "hex" },
  ],
  ["32 bytes", { KEY: TEXT }, { KEY_PATH: `${TEXT}\n` }],
  ["a file of 31 bytes and a newline", { KEY_PATH: `${TEXT_31}\n` }, { KEY: TEXT_31 }],
] as const;

/** What shares its first 31 bytes with some key above, so that a key that was cut would fit. */
const others = [
  { KEY: `${HEX.slice(0, 62)}00`, KEY_TRANSFORM: "hex" },
  { KEY: `${TEXT_31}X` },
] as const;

const CONTENT = "what nobody else may read ".repeat(40);

for (const [name, stored, read] of rows) {
  test(`${name}: stored encrypted with the whole key (E23)`, async () => {
    using directory = scratchDirectory();
    const store = join(directory.path, "store");
    mkdirSync(store);
    writeFileSync(join(directory.path, "file"), CONTENT);
    const run = async (words: readonly string[], key: Readonly<Record<string, string>>) => {
      const env: Record<string, string> = {
        WALG_FILE_PREFIX: store,
        WALG_COMPRESSION_METHOD: "none",
        WALNUT_CACHE_DIR: directory.path,
      };
      for (const [setting, text] of Object.entries(key)) {
        const isFile = setting === "KEY_PATH";
        if (isFile) writeFileSync(join(directory.path, "key"), text);
        env[`WALG_LIBSODIUM_${setting}`] = isFile ? join(directory.path, "key") : text;
      }
      return await runWalnut(words, { cwd: directory.path, env });
    };

    const pushed = await run(["wal-push", "file"], stored);
    assert.equal(pushed.code, 0, pushed.stderr);
    const [object = ""] = readdirSync(join(store, "wal_005"));
    const bytes = readFileSync(join(store, "wal_005", object));
    assert.ok(bytes.length > CONTENT.length && !bytes.includes(CONTENT.slice(0, 16)));

    const fetched = await run(["wal-fetch", "file", "back"], read);
    assert.equal(fetched.code, 0, fetched.stderr);
    assert.equal(readFileSync(join(directory.path, "back"), "utf8"), CONTENT);
    for (const other of others) {
      const { code, stderr } = await run(["wal-fetch", "file", "wrong"], other);
      assert.equal(code, 200, stderr);
      assert.match(stderr, /wrong key/);
    }
  });
}
