import { parseLibsodiumKey } from "../crypto/libsodium-key.ts";
import type { EncryptionConfig, EncryptionMethod, KeySource } from "../crypto/open.ts";
import { ConfigError, FormatError } from "../errors.ts";
import { encryption } from "./encryption-settings.ts";
import type { FoundSettings } from "./found-settings.ts";
import type { Setting } from "./setting.ts";
import { defined } from "./store-url.ts";
import { storage } from "./storage-settings.ts";

/** Settings that say nothing without one of those that name a key, and these. */
const NEEDS: readonly { readonly setting: Setting; readonly one: readonly Setting[] }[] = [
  {
    setting: encryption.libsodiumKeyTransform,
    one: [encryption.libsodiumKey, encryption.libsodiumKeyPath, encryption.libsodiumOldKeyPaths],
  },
  {
    setting: encryption.pgpKeyPassphrase,
    one: [encryption.pgpKey, encryption.pgpKeyPath, encryption.pgpOldKeyPaths, encryption.gpgKeyId],
  },
  { setting: encryption.cseKmsRegion, one: [encryption.cseKmsId] },
];

/**
 * How objects are encrypted, or undefined where no key is configured. Throws ConfigError for what
 * can't be used: somebody counts on it.
 */
export function readEncryptionConfig(found: FoundSettings): EncryptionConfig | undefined {
  const has = (setting: Setting) => found.origin(setting) !== undefined;
  for (const { setting, one } of NEEDS) {
    if (!has(setting) || one.some(has)) continue;
    throw new ConfigError(`${found.describe(setting)} is set, but no key that it is for`, {
      hint: "Nothing was read or written. Set the key as well, or remove the setting.",
    });
  }
  const transform = found.get(encryption.libsodiumKeyTransform);
  const oldLibsodium = pathList(found, encryption.libsodiumOldKeyPaths);
  const oldOpenPgp = pathList(found, encryption.pgpOldKeyPaths);
  const method = readMethod(found);
  const passphrase = found.get(encryption.pgpKeyPassphrase);
  if (method === undefined && oldLibsodium.length + oldOpenPgp.length === 0) return undefined;
  return {
    ...defined("method", method),
    libsodium: { transform, header: found.get(encryption.libsodiumHeader), oldKeys: oldLibsodium },
    openPgp: { ...defined("passphrase", passphrase), oldKeys: oldOpenPgp },
    isPlainRead: found.get(encryption.readUnencrypted),
  };
}

function readMethod(found: FoundSettings): EncryptionMethod | undefined {
  const chosen = [
    encryption.libsodiumKey,
    encryption.libsodiumKeyPath,
    encryption.pgpKey,
    encryption.pgpKeyPath,
    encryption.gpgKeyId,
    encryption.cseKmsId,
  ].filter((setting) => found.origin(setting) !== undefined);
  const [first, second] = chosen;
  if (first !== undefined && second !== undefined) {
    throw new ConfigError(
      `two keys are configured to encrypt with: ${found.describe(first)}, and ` +
        found.describe(second),
      {
        hint:
          "Nothing was read or written. Keep one; keys of older objects belong into " +
          "WALNUT_LIBSODIUM_OLD_KEY_PATHS or WALNUT_PGP_OLD_KEY_PATHS.",
      },
    );
  }
  if (first === undefined) return undefined;
  if (first === encryption.cseKmsId) return readKms(found);
  const value = found.get(encryption.gpgKeyId);
  if (first === encryption.gpgKeyId && value !== undefined) return { kind: "gpg", keyId: value };
  const isLibsodium = first === encryption.libsodiumKey || first === encryption.libsodiumKeyPath;
  if (!isLibsodium) {
    return { kind: "openpgp", key: keySource(found, encryption.pgpKey, encryption.pgpKeyPath) };
  }
  const key = keySource(found, encryption.libsodiumKey, encryption.libsodiumKeyPath);
  requireUsable(found, key);
  return { kind: "libsodium", key };
}

/** A key in a setting is checked at once; a file is read when the store is opened. */
function requireUsable(found: FoundSettings, { text, origin }: KeySource): void {
  if (text === undefined) return;
  try {
    parseLibsodiumKey(text, found.get(encryption.libsodiumKeyTransform));
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new ConfigError(`${origin} ${error.message}`, {
      cause: error,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
  }
}

function readKms(found: FoundSettings): EncryptionMethod {
  return {
    kind: "aws-kms",
    keyId: found.get(encryption.cseKmsId) ?? "",
    ...defined("region", found.get(encryption.cseKmsRegion) ?? found.get(storage.region)),
    ...defined("accessKeyId", found.get(storage.accessKeyId)),
    ...defined("secretAccessKey", found.get(storage.secretAccessKey)),
    ...defined("sessionToken", found.get(storage.sessionToken)),
    ...defined("profile", found.get(storage.profile)),
  };
}

function keySource(found: FoundSettings, text: Setting<string>, path: Setting<string>): KeySource {
  const isText = found.origin(text) !== undefined;
  return {
    origin: found.describe(isText ? text : path),
    ...(isText ? defined("text", found.get(text)) : defined("path", found.get(path))),
  };
}

function pathList(found: FoundSettings, setting: Setting<string>): readonly KeySource[] {
  const paths = (found.get(setting) ?? "").split(",").map((one) => one.trim());
  const origin = found.describe(setting);
  return paths.filter((path) => path !== "").map((path) => ({ path, origin }));
}
