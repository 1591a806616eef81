import assert from "node:assert/strict";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as openpgp from "openpgp";
import { openOpenPgp, openPrivateOpenPgp } from "../../src/crypto/openpgp-keys.ts";
import { openGpg } from "../../src/crypto/gpg-program.ts";
import { recipientKeyIds } from "../../src/crypto/openpgp-recipients.ts";
import { FormatError, TruncatedError, WrongKeyError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { sampleContent } from "../support/content.ts";
import { collectingLog } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { needsTool, runTool } from "../support/tools.ts";
import { decrypt, encrypt, flipped, pgpCrypters, signal } from "./crypters.ts";

const options = { clock: systemClock, log: silentLog, signal };

test("gives back what was encrypted, of any length and in any chunks", async () => {
  const { both } = await pgpCrypters();
  for (const sizeBytes of [0, 1, 100, 8383, 65_529, 65_530, 65_531, 65_536, 300_000]) {
    const plain = sampleContent(sizeBytes);
    for (const chunkBytes of [sizeBytes + 1, 4099]) {
      const stored = await encrypt(both, plain, { chunkBytes });
      assert.deepEqual(await decrypt(both, stored, { chunkBytes: 1009 }), plain);
    }
  }
});

test("each changed bit is found", async () => {
  const { both } = await pgpCrypters();
  const stored = await encrypt(both, Buffer.from("content"));
  for (let bit = 0; bit < stored.length * 8; bit++) {
    await assert.rejects(
      decrypt(both, flipped(stored, bit)),
      (error) => error instanceof FormatError || error instanceof WrongKeyError,
      `bit ${bit}`,
    );
  }
});

test("what is cut off is found, wherever it is", async () => {
  const { both } = await pgpCrypters();
  const stored = await encrypt(both, Buffer.from("content"));
  for (let length = 0; length < stored.length; length++) {
    await assert.rejects(
      decrypt(both, stored.subarray(0, length)),
      (error) => error instanceof TruncatedError && error.storedBytes === length,
      `${length} of ${stored.length}`,
    );
  }
  const long = await encrypt(both, sampleContent(200_000));
  for (const length of [65_000, 65_536, 131_072, 200_000]) {
    await assert.rejects(decrypt(both, long.subarray(0, length)), TruncatedError);
  }
  await assert.rejects(decrypt(both, Buffer.concat([stored, Buffer.of(0)])), FormatError);
  await assert.rejects(decrypt(both, Buffer.concat([stored, stored])), FormatError);
});

test("without the private key nothing is read, and the key is named", async () => {
  const { both, publicOnly } = await pgpCrypters();
  const other = (await pgpCrypters()).both;
  const stored = await encrypt(publicOnly, Buffer.from("content"));
  assert.equal(publicOnly.canDecrypt, false);
  assert.equal(both.canDecrypt, true);
  assert.deepEqual(await decrypt(both, stored), Buffer.from("content"));
  const [id = ""] = recipientKeyIds(stored);
  assert.ok(publicOnly.ownKeyIds.includes(id), id);
  await assert.rejects(decrypt(publicOnly, stored), {
    code: "wrong-key",
    message: `wrong key (id ${id}, have only public keys)`,
  });
  await assert.rejects(decrypt(other, stored), {
    code: "wrong-key",
    message: `wrong key (id ${id}, have ${other.keyIds.join(", ")})`,
  });
});

test("a ring of several keys: each opens what is written", async () => {
  const keys = await Promise.all(
    ["one", "two"].map((name) => openpgp.generateKey({ type: "ecc", userIDs: [{ name }] })),
  );
  const ring = keys.map(({ publicKey }) => publicKey).join("\n");
  const writer = await openOpenPgp({ text: ring.replaceAll("\n", "\\n"), origin: "test" }, options);
  const stored = await encrypt(writer, Buffer.from("content"));
  assert.equal(recipientKeyIds(stored).length, 2);
  for (const { privateKey } of keys) {
    const text = { text: privateKey, origin: "test" };
    assert.deepEqual(
      await decrypt(await openPrivateOpenPgp([text], options), stored),
      Buffer.from("content"),
    );
  }
});

test("a passphrase is needed, and must be the right one", async () => {
  const { privateKey: text, publicKey } = await openpgp.generateKey({
    type: "ecc",
    userIDs: [{ name: "locked" }],
    passphrase: "open sesame",
  });
  const ring = { text, origin: "PGP_KEY from the test" };
  const crypter = await openOpenPgp(ring, { ...options, passphrase: "open sesame" });
  assert.deepEqual(await decrypt(crypter, await encrypt(crypter, Buffer.of(1))), Buffer.of(1));
  const wrong = { code: "config", message: /^PGP_KEY from the test can't be opened/ };
  await assert.rejects(openOpenPgp(ring, { ...options, passphrase: "open" }), wrong);
  await assert.rejects(openOpenPgp(ring, options), { code: "config", message: /passphrase/ });
  await assert.rejects(openPrivateOpenPgp([{ text: publicKey, origin: "test" }], options), {
    code: "config",
    message: /holds no private key/,
  });
});

test("a key that has expired is used, with a warning; a revoked one is refused", async () => {
  const { publicKey, privateKey, revocationCertificate } = await openpgp.generateKey({
    type: "ecc",
    userIDs: [{ name: "old" }],
    date: new Date("2020-01-01T00:00:00Z"),
    keyExpirationTime: 3600,
  });
  const log = collectingLog();
  const writer = await openOpenPgp({ text: publicKey, origin: "test" }, { ...options, log });
  assert.match(log.lines.join("\n"), /has expired and is used all the same/);
  const reader = await openPrivateOpenPgp([{ text: privateKey, origin: "test" }], options);
  const stored = await encrypt(writer, Buffer.from("content"));
  assert.deepEqual(await decrypt(reader, stored), Buffer.from("content"));

  const key = await openpgp.readKey({ armoredKey: publicKey });
  const revoked = await openpgp.revokeKey({ key, revocationCertificate });
  await assert.rejects(openOpenPgp({ text: revoked.publicKey, origin: "test" }, options), {
    code: "config",
    message: /can't be encrypted for: .*revoked/,
  });
});

if (needsTool("OpenPGP with gpg", "gpg") && needsTool("OpenPGP with gpg", "gpgconf")) {
  test("gpg reads what we write, and we what gpg writes in each of its ways", async () => {
    using directory = scratchDirectory();
    const home = join(directory.path, "gnupg");
    mkdirSync(home);
    chmodSync(home, 0o700);
    const gpg = async (words: readonly string[], input: Uint8Array = Buffer.alloc(0)) =>
      await runTool("gpg", ["--homedir", home, "--batch", "--quiet", ...words], input);
    try {
      await gpg(
        ["--generate-key"],
        keyParameters("rsa test", ["RSA", "Key-Length: 2048", "Subkey-Length: 2048"]),
      );
      const curve = ["Key-Curve: ed25519", "Subkey-Curve: cv25519", "Subkey-Usage: encrypt"];
      await gpg(["--generate-key"], keyParameters("curve test", ["EDDSA", ...curve]));
      for (const user of ["rsa test", "curve test"]) {
        const publicText = (await gpg(["--armor", "--export", user])).toString();
        const secretText = (await gpg(["--armor", "--export-secret-keys", user])).toString();
        const writer = await openOpenPgp({ text: publicText, origin: "test" }, options);
        const reader = await openOpenPgp({ text: secretText, origin: "test" }, options);
        const plain = Buffer.concat([Buffer.from("line\r\nline\n"), sampleContent(200_000)]);
        assert.deepEqual(await gpg(["--decrypt"], await encrypt(writer, plain)), plain, user);
        for (const how of [
          [],
          ["--compress-algo", "none"],
          ["--compress-algo", "zip"],
          ["--compress-algo", "zlib", "--cipher-algo", "AES128"],
          ["--throw-keyids"],
        ]) {
          const words = [...how, "--trust-model", "always", "--recipient", user, "--encrypt"];
          assert.deepEqual(await decrypt(reader, await gpg(words, plain)), plain, how.join(" "));
        }
        for (const bad of [Buffer.alloc(0), await gpg(["--store"], plain)]) {
          await assert.rejects(decrypt(reader, bad), FormatError);
        }
      }
      await checkKeyRing(directory.path, home);
    } finally {
      await runTool("gpgconf", ["--homedir", home, "--kill", "all"], Buffer.alloc(0));
    }
  });
}

/** What gpg makes a key from, unattended. */
function keyParameters(name: string, [type = "", ...more]: readonly string[]): Buffer {
  const subkey = type === "EDDSA" ? ["Subkey-Type: ECDH"] : ["Subkey-Type: RSA"];
  const lines = ["%no-protection", `Key-Type: ${type}`, ...more.slice(0, 1), ...subkey];
  return Buffer.from([...lines, ...more.slice(1), `Name-Real: ${name}`, "%commit", ""].join("\n"));
}

/** GPG_KEY_ID: gpg gives the key; here it looks for it in a directory of the test's own. */
async function checkKeyRing(directory: string, home: string): Promise<void> {
  const bin = join(directory, "bin");
  mkdirSync(bin);
  writeFileSync(join(bin, "gpg"), `#!/bin/sh\nexec /usr/bin/gpg --homedir '${home}' "$@"\n`, {
    mode: 0o755,
  });
  const path = process.env["PATH"];
  process.env["PATH"] = `${bin}:${path}`;
  try {
    const crypter = await openGpg("rsa test", options);
    assert.ok(crypter.canDecrypt);
    assert.deepEqual(await decrypt(crypter, await encrypt(crypter, Buffer.of(1))), Buffer.of(1));
    await assert.rejects(openGpg("nobody at all", options), {
      code: "config",
      message: "gpg has no key nobody at all",
    });
  } finally {
    process.env["PATH"] = path;
  }
}
