import { type Effect, type NameForm, type Setting, type SettingType, setting } from "./setting.ts";
import { path, secret, text } from "./value-types.ts";

/** Whoever sets one of these counts on encrypted objects: nothing may be stored or read without. */
const REFUSED: Effect = {
  kind: "refused",
  reason: "this version does not encrypt yet, and must not store in plain text instead",
};

function refused<T>(
  name: string,
  type: SettingType<T>,
  about: string,
  form: NameForm = "prefixed",
): Setting<T> {
  return setting(name, type, about, { form, effect: REFUSED });
}

/** Client-side encryption: known, and refused by every command that would touch a store. */
export const encryptionSettings: readonly Setting[] = [
  refused("LIBSODIUM_KEY", secret, "Key of 32 bytes for libsodium."),
  refused("LIBSODIUM_KEY_PATH", path, "File with that key."),
  refused(
    "LIBSODIUM_KEY_TRANSFORM",
    text,
    "How the text of the key becomes its bytes: none, base64 or hex.",
  ),
  refused("PGP_KEY", secret, "Armored OpenPGP key."),
  refused("PGP_KEY_PATH", path, "File with that key."),
  refused("PGP_KEY_PASSPHRASE", secret, "Passphrase of that key."),
  refused("GPG_KEY_ID", text, "Key in the key ring of gpg.", "plain"),
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
  refused("CSE_KMS_ID", text, "Key of AWS KMS."),
  refused("CSE_KMS_REGION", text, "Region of that key."),
  refused("YC_CSE_KMS_KEY_ID", text, "Key of Yandex KMS.", "plain"),
  setting("YC_SERVICE_ACCOUNT_KEY_FILE", path, "Account for Yandex KMS.", {
    form: "plain",
    effect: { kind: "none", reason: "it says nothing without YC_CSE_KMS_KEY_ID" },
  }),
];
