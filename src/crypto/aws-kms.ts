import { randomBytes } from "node:crypto";
import type { KMSClient, KMSClientConfig } from "@aws-sdk/client-kms";
import {
  ConfigError,
  FormatError,
  OperationError,
  StorageAccessError,
  StorageError,
  TruncatedError,
  WrongKeyError,
} from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import { type ByteStream, CHUNK_BYTES } from "../io/bytes.ts";
import { type Clock, systemClock } from "../io/clock.ts";
import { Watchdog } from "../io/watchdog.ts";
import type { CryptOptions, Crypter } from "./crypter.ts";
import { dareBytes, plainBytesOfDare, openDare, type OpenPackage, sealDare } from "./dare.ts";
import type { AwsKmsMethod } from "./open.ts";

/** What KMS makes of a data key of 32 bytes; WAL-G reads exactly so many. */
const SEALED_KEY_BYTES = 184;
const DATA_KEY_BYTES = 32;
/** Data keys that are kept: one for each process that wrote. */
const OPENED_KEYS_MAX = 64;
const DARE_VERSION = 0x20;
const REQUEST_TIMEOUT_MS = 30_000;

export interface AwsKmsOptions {
  readonly signal: AbortSignal;
  /** How long one question to KMS may take; 30 seconds unless given. */
  readonly requestTimeoutMs?: number;
  readonly clock?: Clock;
  /** Sends the requests, where the SDK's own way is not to be taken. */
  readonly requestHandler?: KMSClientConfig["requestHandler"];
  /** Where KMS itself answers with another length, as its emulators do. */
  readonly sealedKeyBytes?: number;
}

/** Loads the SDK. KMS is asked when the first object is written or read. */
export async function openAwsKms(method: AwsKmsMethod, options: AwsKmsOptions): Promise<Crypter> {
  const { KMSClient } = await import("@aws-sdk/client-kms");
  const { region, accessKeyId, secretAccessKey, sessionToken, profile } = method;
  const { requestHandler } = options;
  const client = new KMSClient({
    ...(region === undefined ? {} : { region }),
    ...(profile === undefined ? {} : { profile }),
    ...(requestHandler === undefined ? {} : { requestHandler }),
    ...(accessKeyId === undefined || secretAccessKey === undefined
      ? {}
      : {
          credentials: {
            accessKeyId,
            secretAccessKey,
            ...(sessionToken === undefined ? {} : { sessionToken }),
          },
        }),
  });
  return new AwsKmsCrypter(client, method.keyId, options);
}

interface DataKey {
  readonly plain: Uint8Array;
  readonly sealed: Uint8Array;
}

/** A data key, encrypted by KMS, and a DARE 2.0 stream; WAL-G's WALG_CSE_KMS_ID. */
class AwsKmsCrypter implements Crypter {
  readonly kind = "aws-kms";
  readonly canDecrypt = true;
  readonly keyIds: readonly string[];
  readonly ownKeyIds: readonly string[];
  readonly #client: KMSClient;
  readonly #keyId: string;
  readonly #sealedKeyBytes: number;
  readonly #limit: { readonly timeoutMs: number; readonly clock: Clock };
  readonly #opened = new Map<string, Promise<Uint8Array>>();
  #dataKey: Promise<DataKey> | undefined;

  constructor(client: KMSClient, keyId: string, options: AwsKmsOptions) {
    const { sealedKeyBytes, requestTimeoutMs: timeoutMs = REQUEST_TIMEOUT_MS } = options;
    this.#limit = { timeoutMs, clock: options.clock ?? systemClock };
    this.#client = client;
    this.#keyId = keyId;
    this.#sealedKeyBytes = sealedKeyBytes ?? SEALED_KEY_BYTES;
    this.keyIds = [keyId];
    this.ownKeyIds = [keyId];
  }

  recognises(head: Uint8Array): boolean {
    const [version, cipher = 0] = head.subarray(this.#sealedKeyBytes);
    return head.length <= this.#sealedKeyBytes || (version === DARE_VERSION && cipher <= 1);
  }

  neededKeyIds(): readonly string[] {
    return [];
  }

  encryptedBytes(plainBytes: number): number {
    return this.#sealedKeyBytes + dareBytes(plainBytes);
  }

  isCurrent(): undefined {
    return undefined;
  }

  plainBytes(storedBytes: number): number | undefined {
    return plainBytesOfDare(storedBytes - this.#sealedKeyBytes);
  }

  async *encrypt(plain: ByteStream, { signal }: CryptOptions): ByteStream {
    const { plain: key, sealed } = await (this.#dataKey ??= this.#makeDataKey(signal));
    yield sealed;
    yield* sealDare(plain, { key, signal });
  }

  async *decrypt(stored: ByteStream, { signal }: CryptOptions): ByteStream {
    const cursor = new ByteCursor(stored, "encrypted data");
    try {
      const sealed = await cursor.readExactly(this.#sealedKeyBytes);
      const key = await this.#openDataKey(sealed, signal);
      yield* openDare(rest(cursor), { key, signal, openChaCha: loadChaCha });
    } catch (error) {
      if (!(error instanceof TruncatedError)) throw error;
      throw new TruncatedError(error.message, { cause: error, storedBytes: cursor.position });
    } finally {
      await cursor.close();
    }
  }

  async #makeDataKey(signal: AbortSignal): Promise<DataKey> {
    const plain = randomBytes(DATA_KEY_BYTES);
    const { EncryptCommand } = await import("@aws-sdk/client-kms");
    const command = new EncryptCommand({ KeyId: this.#keyId, Plaintext: plain });
    const sealed = await this.#ask("encrypt", signal, async (abortSignal) => {
      const answer = await this.#client.send(command, { abortSignal });
      return answer.CiphertextBlob;
    }).catch((error: unknown) => {
      // The next object asks again.
      this.#dataKey = undefined;
      signal.throwIfAborted();
      throw error;
    });
    if (sealed?.length !== this.#sealedKeyBytes) {
      throw new ConfigError(
        `AWS KMS key ${this.#keyId} encrypts a data key to ${sealed?.length ?? 0} bytes, and the ` +
          `format has ${this.#sealedKeyBytes}`,
        { hint: "Nothing was stored. Use a symmetric key of AWS KMS itself." },
      );
    }
    return { plain, sealed };
  }

  async #openDataKey(sealed: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const name = Buffer.from(sealed).toString("base64");
    const known = this.#opened.get(name);
    if (known !== undefined) return await known;
    const opening = this.#decryptDataKey(sealed, signal).catch((error: unknown) => {
      this.#opened.delete(name);
      signal.throwIfAborted();
      throw error;
    });
    this.#opened.set(name, opening);
    const [oldest] = this.#opened.keys();
    if (this.#opened.size > OPENED_KEYS_MAX && oldest !== undefined) this.#opened.delete(oldest);
    return await opening;
  }

  async #decryptDataKey(sealed: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const { DecryptCommand } = await import("@aws-sdk/client-kms");
    const command = new DecryptCommand({ CiphertextBlob: sealed });
    const plain = await this.#ask("decrypt", signal, async (abortSignal) => {
      const answer = await this.#client.send(command, { abortSignal });
      return answer.Plaintext;
    });
    if (plain?.length === DATA_KEY_BYTES) return plain;
    throw new FormatError(`its data key has ${plain?.length ?? 0} bytes, not ${DATA_KEY_BYTES}`);
  }

  /** The SDK would wait for ever, also where it looks for credentials. */
  async #ask<T>(
    what: "encrypt" | "decrypt",
    signal: AbortSignal,
    ask: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { timeoutMs } = this.#limit;
    const onTimeout = () =>
      new StorageError(
        `AWS KMS can't ${what} a data key with ${this.#keyId}: ` +
          `no answer within ${timeoutMs / 1000} s`,
        { isRetryable: true },
      );
    using watchdog = new Watchdog({ ...this.#limit, signal, onTimeout });
    try {
      return await untilAborted(ask(watchdog.signal), watchdog.signal);
    } catch (error) {
      if (error instanceof OperationError) throw error;
      const [name, reason] = error instanceof Error ? [error.name, error.message] : ["", ""];
      const message = `AWS KMS can't ${what} a data key with ${this.#keyId}: ${reason}`;
      if (what === "decrypt" && WRONG_KEY_ERRORS.has(name)) {
        throw new WrongKeyError(`wrong key, or it is damaged: ${message}`, { cause: error });
      }
      if (ACCESS_ERRORS.test(name)) throw new StorageAccessError(message, { cause: error });
      if (SETUP_ERRORS.has(name)) throw new ConfigError(message, { cause: error });
      throw new StorageError(message, { isRetryable: true, cause: error });
    }
  }
}

const WRONG_KEY_ERRORS: ReadonlySet<string> = new Set([
  "IncorrectKeyException",
  "InvalidCiphertextException",
]);
const ACCESS_ERRORS = /AccessDenied|Credentials|UnrecognizedClient|Signature|ExpiredToken/;
const SETUP_ERRORS: ReadonlySet<string> = new Set([
  "NotFoundException",
  "DisabledException",
  "InvalidKeyUsageException",
  "KMSInvalidStateException",
  "ValidationException",
]);

async function* rest(cursor: ByteCursor): ByteStream {
  while (await cursor.hasMore()) yield cursor.takeSome(CHUNK_BYTES);
}

/** What sio writes where the processor has no AES: node:crypto of Bun does not know it. */
export async function loadChaCha(): Promise<OpenPackage> {
  const { default: sodium } = await import("libsodium-wrappers");
  await sodium.ready;
  return (sealed, nonce, header, key) => {
    try {
      return sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, sealed, header, nonce, key);
    } catch {
      return undefined;
    }
  };
}
