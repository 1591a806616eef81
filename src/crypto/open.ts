import { readFile } from "node:fs/promises";
import { ConfigError, FormatError, systemErrorCode } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { AwsKmsOptions } from "./aws-kms.ts";
import type { Crypter, Decrypter } from "./crypter.ts";
import type { HeaderForm } from "./libsodium-header.ts";
import { type KeyTransform, parseLibsodiumKey } from "./libsodium-key.ts";

/** Where the text of a key is; one of `text` and `path`. */
export interface KeySource {
  readonly text?: string;
  readonly path?: string;
  /** For messages: "WALG_PGP_KEY_PATH from the environment". */
  readonly origin: string;
}

/** Envelope encryption with a key of AWS KMS; what is absent is left to the SDK's own sources. */
export interface AwsKmsMethod {
  readonly kind: "aws-kms";
  readonly keyId: string;
  readonly region?: string;
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  readonly profile?: string;
}

/** What new objects are made with. */
export type EncryptionMethod =
  | { readonly kind: "libsodium"; readonly key: KeySource }
  | { readonly kind: "openpgp"; readonly key: KeySource }
  /** In gpg's own key ring. */
  | { readonly kind: "gpg"; readonly keyId: string }
  | AwsKmsMethod;

export interface EncryptionConfig {
  /** Absent where keys are there only to read with. */
  readonly method?: EncryptionMethod;
  readonly libsodium: {
    readonly transform: KeyTransform;
    readonly header: HeaderForm;
    readonly oldKeys: readonly KeySource[];
  };
  readonly openPgp: { readonly passphrase?: string; readonly oldKeys: readonly KeySource[] };
  readonly isPlainRead: boolean;
}

export interface OpenedKeys {
  readonly crypter?: Crypter;
  readonly decrypters: readonly Decrypter[];
}

export interface OpenKeysOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** For KMS; the SDK's own unless given. */
  readonly requestHandler?: AwsKmsOptions["requestHandler"];
}

/**
 * Reads the keys and loads what works with them. Throws ConfigError for a key that can't be used,
 * before anything else is done.
 */
export async function openKeys(
  config: EncryptionConfig,
  options: OpenKeysOptions,
): Promise<OpenedKeys> {
  const { method } = config;
  const decrypters: Decrypter[] = [];
  const oldOpenPgp = config.openPgp.oldKeys;
  // OpenPGP knows its own objects, libsodium takes any: it is asked last.
  if (oldOpenPgp.length > 0) {
    decrypters.push(await openOldOpenPgp(config, options));
  }
  const isLibsodium = method?.kind === "libsodium";
  if (!isLibsodium && config.libsodium.oldKeys.length > 0) {
    decrypters.push(await openLibsodium(config, config.libsodium.oldKeys));
  }
  if (method === undefined) return { decrypters };
  return { crypter: await openMethod(config, method, options), decrypters };
}

async function openMethod(
  config: EncryptionConfig,
  method: EncryptionMethod,
  options: OpenKeysOptions,
): Promise<Crypter> {
  if (method.kind === "libsodium") {
    return await openLibsodium(config, [method.key, ...config.libsodium.oldKeys]);
  }
  if (method.kind === "openpgp") {
    const { openOpenPgp } = await import("./openpgp-keys.ts");
    const key = { text: await readKeyText(method.key), origin: method.key.origin };
    return await openOpenPgp(key, { ...options, ...config.openPgp });
  }
  if (method.kind === "gpg") {
    const { openGpg } = await import("./gpg-program.ts");
    return await openGpg(method.keyId, { ...options, ...config.openPgp });
  }
  const { openAwsKms } = await import("./aws-kms.ts");
  return await openAwsKms(method, options);
}

async function openLibsodium(
  { libsodium: { transform, header } }: EncryptionConfig,
  sources: readonly KeySource[],
): Promise<Crypter> {
  const [current, ...previous] = await Promise.all(
    sources.map(async (source) => await readLibsodiumKey(source, transform)),
  );
  if (current === undefined) throw new Error("there is no key");
  const [{ loadSodium }, { LibsodiumCrypter }] = await Promise.all([
    import("./libsodium-module.ts"),
    import("./libsodium.ts"),
  ]);
  return new LibsodiumCrypter(await loadSodium(), { current, previous, header });
}

async function openOldOpenPgp(
  { openPgp }: EncryptionConfig,
  options: OpenKeysOptions,
): Promise<Decrypter> {
  const { openPrivateOpenPgp } = await import("./openpgp-keys.ts");
  const keys = await Promise.all(
    openPgp.oldKeys.map(async (source) => ({
      text: await readKeyText(source),
      origin: describe(source),
    })),
  );
  return await openPrivateOpenPgp(keys, { ...options, ...openPgp });
}

async function readLibsodiumKey(source: KeySource, transform: KeyTransform): Promise<Buffer> {
  try {
    return parseLibsodiumKey(await readKeyText(source), transform);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new ConfigError(`${describe(source)} ${error.message}`, {
      cause: error,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
  }
}

/** Throws ConfigError when a file can't be read. */
async function readKeyText(source: KeySource): Promise<string> {
  if (source.path === undefined) return source.text ?? "";
  try {
    return await readFile(source.path, "utf8");
  } catch (error) {
    throw new ConfigError(
      `${describe(source)} can't be read: ${systemErrorCode(error) ?? String(error)}`,
      {
        cause: error,
        hint: "Nothing was read or written: without its key nothing may be stored or restored.",
      },
    );
  }
}

function describe({ path, origin }: KeySource): string {
  return path === undefined ? origin : `${origin}, file ${path},`;
}
