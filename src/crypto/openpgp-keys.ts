import type { PrivateKey, PublicKey } from "openpgp";
import { ConfigError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { Crypter, Decrypter } from "./crypter.ts";
import { idsOf, OpenPgpCrypter, type OpenPgpModule } from "./openpgp.ts";

/** The text of a key ring, and where it came from, for messages. */
export interface OpenPgpKeyText {
  readonly text: string;
  readonly origin: string;
}

export interface OpenPgpOptions {
  readonly passphrase?: string;
  readonly clock: Clock;
  readonly log: Log;
}

type AnyKey = PrivateKey | PublicKey;

/**
 * Encrypts for every key of the ring; the private ones among them read, too. Throws ConfigError
 * when nothing can be encrypted for one of them, or the passphrase is wrong.
 */
export async function openOpenPgp(ring: OpenPgpKeyText, options: OpenPgpOptions): Promise<Crypter> {
  const openpgp = await import("openpgp");
  const keys = await readRing(openpgp, ring);
  const privateKeys = await unlocked(openpgp, { keys, origin: ring.origin }, options);
  const recipients = keys.map((key) => key.toPublic());
  const date = await usableDate(recipients, ring.origin, options);
  return new OpenPgpCrypter(openpgp, { recipients, date, privateKeys });
}

/** Only reads. Throws ConfigError when a ring holds no private key that can be used. */
export async function openPrivateOpenPgp(
  rings: readonly OpenPgpKeyText[],
  options: OpenPgpOptions,
): Promise<Decrypter> {
  const openpgp = await import("openpgp");
  const privateKeys: PrivateKey[] = [];
  for (const ring of rings) {
    const keys = await readRing(openpgp, ring);
    const found = await unlocked(openpgp, { keys, origin: ring.origin }, options);
    if (found.length === 0) throw unusable(ring.origin, "holds no private key, and is read with");
    privateKeys.push(...found);
  }
  return new OpenPgpCrypter(openpgp, { recipients: [], date: new Date(0), privateKeys });
}

async function readRing(
  openpgp: OpenPgpModule,
  { text, origin }: OpenPgpKeyText,
): Promise<readonly AnyKey[]> {
  // In a variable a line's end is often written as backslash and n. Files may hold several blocks,
  // of which the library reads the first.
  const blocks = text.replaceAll("\\n", "\n").match(ARMORED_BLOCK) ?? [];
  const keys: AnyKey[] = [];
  for (const armoredKeys of blocks) {
    try {
      keys.push(...(await openpgp.readKeys({ armoredKeys })));
    } catch (error) {
      throw unusable(origin, `holds no armored OpenPGP key: ${reasonOf(error)}`);
    }
  }
  if (keys.length > 0) return keys;
  throw unusable(origin, "holds no armored OpenPGP key");
}

const ARMORED_BLOCK = /-----BEGIN PGP [^-]*-----[\s\S]*?(-----END PGP [^-]*-----|$(?![\s\S]))/g;

async function unlocked(
  openpgp: OpenPgpModule,
  { keys, origin }: { readonly keys: readonly AnyKey[]; readonly origin: string },
  { passphrase }: OpenPgpOptions,
): Promise<PrivateKey[]> {
  const found: PrivateKey[] = [];
  for (const privateKey of keys) {
    if (!privateKey.isPrivate()) continue;
    if (privateKey.isDecrypted()) {
      found.push(privateKey);
    } else if (passphrase === undefined) {
      throw unusable(origin, "holds a private key with a passphrase, and none is configured");
    } else {
      try {
        found.push(await openpgp.decryptKey({ privateKey, passphrase }));
      } catch (error) {
        throw unusable(origin, `can't be opened with the passphrase: ${reasonOf(error)}`);
      }
    }
  }
  return found;
}

/**
 * When all keys were valid: now, or just before the first of them expired. To stop archiving on
 * that day would be worse than what an old key can do. Throws ConfigError for one that is revoked
 * or was never good for this.
 */
async function usableDate(
  recipients: readonly PublicKey[],
  origin: string,
  { clock, log }: OpenPgpOptions,
): Promise<Date> {
  const now = new Date(clock.now());
  const ends = await Promise.all(recipients.map(async (key) => await endOf(key)));
  const first = ends.reduce((one, other) => (other < one ? other : one), now);
  const date = first < now ? new Date(first.getTime() - 1000) : now;
  for (const key of recipients) {
    const id = idsOf(key)[0] ?? "";
    try {
      await key.getEncryptionKey(undefined, date);
    } catch (error) {
      throw unusable(origin, `holds key ${id}, which can't be encrypted for: ${reasonOf(error)}`);
    }
    const end = await endOf(key);
    if (end < now) {
      log.warning("an OpenPGP key has expired and is used all the same", {
        key: id,
        expired: end.toISOString(),
      });
    }
  }
  return date;
}

/** When it expires; far away if never. */
async function endOf(key: PublicKey): Promise<Date> {
  const end = await key.getExpirationTime();
  return end instanceof Date ? end : new Date(8.64e15);
}

function unusable(origin: string, reason: string): ConfigError {
  return new ConfigError(`${origin} ${reason}`, {
    hint:
      "Nothing was read or written. `gpg --export --armor KEY` makes such a text of a public key, " +
      "`gpg --export-secret-keys --armor KEY` of a private one.",
  });
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
