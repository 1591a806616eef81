import { HEADER_FORMS } from "../crypto/libsodium-header.ts";
import { KEY_TRANSFORMS } from "../crypto/libsodium-key.ts";
import {
  defaulted,
  type Effect,
  type NameForm,
  type Setting,
  type SettingType,
  setting,
} from "./setting.ts";
import { boolean, choice, path, secret, text } from "./value-types.ts";

/** Whoever sets one of these counts on encrypted objects: nothing may be stored or read without. */
const REFUSED: Effect = {
  kind: "refused",
  reason: "walnut does not encrypt by Yandex KMS, and must not store in plain text instead",
};

function refused<T>(
  name: string,
  type: SettingType<T>,
  about: string,
  form: NameForm = "prefixed",
): Setting<T> {
  return setting(name, type, about, { form, effect: REFUSED });
}

/** Client-side encryption. */
export const encryption = {
  libsodiumKey: setting(
    "LIBSODIUM_KEY",
    secret,
    "Key of 32 bytes: new objects are encrypted with libsodium.",
  ),
  libsodiumKeyPath: setting("LIBSODIUM_KEY_PATH", path, "File with that key, instead of it."),
  libsodiumKeyTransform: defaulted(
    "LIBSODIUM_KEY_TRANSFORM",
    choice(KEY_TRANSFORMS),
    "How the text of the key, and of the old ones, becomes its bytes.",
    { default: "none" },
  ),
  libsodiumOldKeyPaths: setting(
    "LIBSODIUM_OLD_KEY_PATHS",
    text,
    "Files with keys that older objects were encrypted with, with commas between; only read with.",
    { form: "own" },
  ),
  libsodiumHeader: defaulted(
    "LIBSODIUM_HEADER",
    choice(HEADER_FORMS),
    "What the first 24 bytes of an object tell walnut, and WAL-G ignores: the id of the key and, " +
      "with named, a keyed digest of the object's name, by which a swapped object is found.",
    { form: "own", default: "named" },
  ),
  pgpKey: setting(
    "PGP_KEY",
    secret,
    "Armored OpenPGP keys: new objects are encrypted for all of them. Public keys are enough to " +
      "store; reading takes a private one.",
  ),
  pgpKeyPath: setting("PGP_KEY_PATH", path, "File with those keys, instead of them."),
  pgpKeyPassphrase: setting("PGP_KEY_PASSPHRASE", secret, "Passphrase of the private keys."),
  pgpOldKeyPaths: setting(
    "PGP_OLD_KEY_PATHS",
    text,
    "Files with private OpenPGP keys of older objects, with commas between; only read with.",
    { form: "own" },
  ),
  gpgKeyId: setting(
    "GPG_KEY_ID",
    text,
    "Key in the key ring of gpg, which is asked for it: OpenPGP without a file.",
    { form: "plain" },
  ),
  cseKmsId: setting(
    "CSE_KMS_ID",
    text,
    "Key of AWS KMS: new objects are encrypted with a data key that it guards.",
  ),
  cseKmsRegion: setting("CSE_KMS_REGION", text, "Region of that key."),
  readUnencrypted: defaulted(
    "READ_UNENCRYPTED",
    boolean,
    "Also read objects that are not encrypted although a key is configured: those from before " +
      "encryption was turned on.",
    { form: "own", default: "false" },
  ),
  writeUnencrypted: defaulted(
    "WRITE_UNENCRYPTED",
    boolean,
    "Without a key, store in a repository that holds encrypted objects all the same.",
    { form: "own", default: "false" },
  ),
} as const;

/** Client-side encryption: what works, and what every command refuses that would touch a store. */
export const encryptionSettings: readonly Setting[] = [
  ...Object.values(encryption),
  setting("WALE_GPG_KEY_ID", text, "Key in the key ring of gpg, by the name that WAL-E read.", {
    form: "foreign",
    aliases: ["WALG_GPG_KEY_ID"],
    effect: {
      kind: "warning",
      reason: "objects are not encrypted; WAL-G ignores it under this name, too",
    },
  }),
  refused("ENVELOPE_PGP_KEY", secret, "OpenPGP key, encrypted by Yandex KMS, as base64."),
  refused("ENVELOPE_PGP_KEY_PATH", path, "File with that key."),
  refused("ENVELOPE_PGP_YC_CSE_KMS_KEY_ID", text, "Key of Yandex KMS for that key."),
  refused("ENVELOPE_PGP_YC_SERVICE_ACCOUNT_KEY_FILE", path, "Account for Yandex KMS."),
  refused("ENVELOPE_PGP_YC_ENDPOINT", text, "Endpoint of Yandex KMS."),
  refused("ENVELOPE_CACHE_EXPIRATION", text, "How long that key may be kept in memory."),
  refused("YC_CSE_KMS_KEY_ID", text, "Key of Yandex KMS.", "plain"),
  setting("YC_SERVICE_ACCOUNT_KEY_FILE", path, "Account for Yandex KMS.", {
    form: "plain",
    effect: { kind: "none", reason: "it says nothing without YC_CSE_KMS_KEY_ID" },
  }),
];
