import assert from "node:assert/strict";
import { test } from "node:test";
import { libsodiumKeyId, parseLibsodiumKey } from "../../src/crypto/libsodium-key.ts";
import { ConfigError, FormatError } from "../../src/errors.ts";
import { FoundSettings } from "../../src/config/found-settings.ts";
import { readEncryptionConfig } from "../../src/config/encryption-config.ts";
import { encryption } from "../../src/config/encryption-settings.ts";
import type { Setting } from "../../src/config/setting.ts";

type Values = Partial<Record<keyof typeof encryption, string>>;

function read(values: Values) {
  const all: ReadonlyMap<string, Setting> = new Map(Object.entries(encryption));
  const found = Object.entries(values).flatMap(([name, text]) => {
    const setting = all.get(name);
    return setting === undefined
      ? []
      : [[setting, { name: setting.name, source: "the test", text }] as const];
  });
  return readEncryptionConfig(new FoundSettings(new Map(found)));
}

test("without a key there is no encryption", () => {
  assert.equal(read({}), undefined);
  assert.equal(read({ readUnencrypted: "true", libsodiumHeader: "id" }), undefined);
});

test("each kind of key chooses its method", () => {
  const key = "k".repeat(32);
  const rows: readonly (readonly [Values, unknown])[] = [
    [
      { libsodiumKey: key },
      { kind: "libsodium", key: { origin: "LIBSODIUM_KEY from the test", text: key } },
    ],
    [
      { libsodiumKeyPath: "/k", libsodiumKeyTransform: "hex" },
      { kind: "libsodium", key: { origin: "LIBSODIUM_KEY_PATH from the test", path: "/k" } },
    ],
    [{ pgpKey: "a" }, { kind: "openpgp", key: { origin: "PGP_KEY from the test", text: "a" } }],
    [
      { pgpKeyPath: "/k", pgpKeyPassphrase: "p" },
      { kind: "openpgp", key: { origin: "PGP_KEY_PATH from the test", path: "/k" } },
    ],
    [{ gpgKeyId: "ABCD" }, { kind: "gpg", keyId: "ABCD" }],
    [
      { cseKmsId: "arn", cseKmsRegion: "r" },
      { kind: "aws-kms", keyId: "arn", region: "r" },
    ],
  ];
  for (const [values, method] of rows) assert.deepEqual(read(values)?.method, method);
});

test("older keys alone are for reading only", () => {
  const config = read({ libsodiumOldKeyPaths: "/a, /b,", pgpOldKeyPaths: "/c" });
  assert.equal(config?.method, undefined);
  assert.deepEqual(
    config?.libsodium.oldKeys.map(({ path }) => path),
    ["/a", "/b"],
  );
  assert.deepEqual(
    config?.openPgp.oldKeys.map(({ path }) => path),
    ["/c"],
  );
});

test("every pair of kinds is refused, with both names", () => {
  const kinds: readonly Values[] = [
    { libsodiumKey: "k".repeat(32) },
    { libsodiumKeyPath: "/k" },
    { pgpKey: "a" },
    { pgpKeyPath: "/k" },
    { gpgKeyId: "ABCD" },
    { cseKmsId: "arn" },
  ];
  for (const [index, one] of kinds.entries()) {
    for (const other of kinds.slice(index + 1)) {
      assert.throws(() => read({ ...one, ...other }), {
        code: "config",
        message: /^two keys .*, and/,
      });
    }
  }
});

test("what says nothing alone is refused alone", () => {
  for (const values of [
    { libsodiumKeyTransform: "none" },
    { pgpKeyPassphrase: "p" },
    { cseKmsRegion: "r" },
  ]) {
    assert.throws(() => read(values), ConfigError);
  }
});

const BYTES = Buffer.from("00112233445566778899aabbccddeeff".repeat(2), "hex");

test("a key is taken exactly as it is meant (E23)", () => {
  const rows = [
    [BYTES.toString("hex"), "hex", BYTES],
    [`${BYTES.toString("hex").toUpperCase()}\r\n`, "hex", BYTES],
    [BYTES.toString("base64"), "base64", BYTES],
    [` ${BYTES.toString("base64")}\n`, "base64", BYTES],
    ["k".repeat(32), "none", Buffer.from("k".repeat(32))],
    [`${"k".repeat(32)}\n`, "none", Buffer.from("k".repeat(32))],
    ["k".repeat(31), "none", Buffer.from(`${"k".repeat(31)}\0`)],
    ["ü".repeat(16), "none", Buffer.from("ü".repeat(16))],
  ] as const;
  for (const [text, transform, bytes] of rows) {
    assert.deepEqual(parseLibsodiumKey(text, transform), bytes);
  }
});

test("a key is never cut, never taken for something else, never told (E23)", () => {
  const hex = BYTES.toString("hex");
  const rows = [
    [hex, "none"],
    ["k".repeat(33), "none"],
    ["k".repeat(24), "none"],
    ["ü".repeat(17), "none"],
    ["", "none"],
    [hex.slice(1), "hex"],
    [`${hex}00`, "hex"],
    [`0x${hex.slice(2)}`, "hex"],
    [`${hex.slice(0, 63)}g`, "hex"],
    [BYTES.toString("base64"), "hex"],
    [BYTES.toString("base64").slice(0, -1), "base64"],
    [BYTES.toString("base64url"), "base64"],
    [BYTES.subarray(1).toString("base64"), "base64"],
    [hex, "base64"],
    [`${hex.slice(0, 20)}\n${hex.slice(20)}`, "hex"],
  ] as const;
  for (const [text, transform] of rows) {
    assert.throws(
      () => parseLibsodiumKey(text, transform),
      (error: unknown) =>
        error instanceof FormatError &&
        error.hint !== undefined &&
        (text === "" || !`${error.message}${error.hint}`.includes(text.slice(0, 12))),
      `${transform}: ${text}`,
    );
  }
});

test("keys are told apart by their ids", () => {
  const ids = [0, 1, 2].map((byte) => libsodiumKeyId(Buffer.alloc(32, byte)));
  assert.equal(new Set(ids).size, 3);
  for (const id of ids) assert.match(id, /^[0-9a-f]{8}$/);
});
