import { createHash } from "node:crypto";
import * as openpgp from "openpgp";
import type { Crypter, Decrypter } from "../../src/crypto/crypter.ts";
import { type LibsodiumKeys, LibsodiumCrypter } from "../../src/crypto/libsodium.ts";
import { loadSodium } from "../../src/crypto/libsodium-module.ts";
import { OpenPgpCrypter } from "../../src/crypto/openpgp.ts";
import { readAll } from "../../src/io/bytes.ts";
import { inChunks } from "../support/content.ts";

export const signal = new AbortController().signal;

/** A key made of a number. */
export function keyOf(number: number): Buffer {
  return createHash("sha256").update(`key ${number}`).digest();
}

export async function sodiumCrypter(keys: Partial<LibsodiumKeys> = {}): Promise<LibsodiumCrypter> {
  return new LibsodiumCrypter(await loadSodium(), {
    current: keyOf(1),
    previous: [],
    header: "named",
    ...keys,
  });
}

/** For a new key on an elliptic curve; without the private one it can only encrypt. */
export async function pgpCrypters(): Promise<{
  readonly both: Crypter;
  readonly publicOnly: Crypter;
}> {
  const { privateKey, publicKey } = await openpgp.generateKey({
    type: "ecc",
    userIDs: [{ name: "test" }],
    format: "object",
  });
  const keys = { recipients: [publicKey], date: new Date() };
  return {
    both: new OpenPgpCrypter(openpgp, { ...keys, privateKeys: [privateKey] }),
    publicOnly: new OpenPgpCrypter(openpgp, { ...keys, privateKeys: [] }),
  };
}

export async function encrypt(
  crypter: Crypter,
  plain: Uint8Array,
  { name = "object", chunkBytes = 70_001 } = {},
): Promise<Buffer> {
  return await readAll(crypter.encrypt(inChunks(plain, chunkBytes), { name, signal }));
}

export async function decrypt(
  crypter: Decrypter,
  stored: Uint8Array,
  { name = "object", chunkBytes = 70_001 } = {},
): Promise<Buffer> {
  return await readAll(crypter.decrypt(inChunks(stored, chunkBytes), { name, signal }));
}

/** `bytes` with one bit changed. */
export function flipped(bytes: Uint8Array, bit: number): Buffer {
  const changed = Buffer.from(bytes);
  changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  return changed;
}
