import type { ByteStream } from "../io/bytes.ts";

/** How objects are encrypted; WAL-G's kinds that we read and write. */
export type CrypterKind = "libsodium" | "openpgp" | "aws-kms";

export interface CryptOptions {
  /** The object's key in its store. */
  readonly name: string;
  readonly signal: AbortSignal;
}

export interface EncryptOptions extends CryptOptions {
  /** Even-sized hex, at most NOTE_DIGITS_MAX, told in plain text where the kind has room for it. */
  readonly note?: string | undefined;
}

export const NOTE_DIGITS_MAX = 96;

/** What is known of one kind of encryption, and of all keys for it. */
export interface Decrypter {
  readonly kind: CrypterKind;
  /** Of the keys that we have, for messages and for comparing; in the kind's own notation. */
  readonly keyIds: readonly string[];
  /** False when the first bytes of an object can't be what this kind writes. */
  recognises(head: Uint8Array): boolean;
  /** The ids of the keys of which one is needed, as far as the object names them. */
  neededKeyIds(head: Uint8Array): readonly string[];
  /**
   * Rejects with WrongKeyError when none of our keys fits, before the first byte is given;
   * TruncatedError for what ends too early; FormatError for every other damage. A stream that ends
   * has been proved authentic to its end; what it gave before may be forged where the kind proves
   * all of it at once (OpenPGP).
   */
  decrypt(stored: ByteStream, options: CryptOptions): ByteStream;
}

/**
 * Also makes encrypted objects, in bounded memory; chunks are owned as everywhere (io/bytes.ts).
 */
export interface Crypter extends Decrypter {
  /** False when we have no private key: then what we write can't be read here. */
  readonly canDecrypt: boolean;
  /** Of the keys that open what we write. */
  readonly ownKeyIds: readonly string[];
  /**
   * Whether an object was made with the keys in use and no others, by its first bytes, of which
   * there must be CURRENT_HEAD_BYTES or all. Undefined where they do not tell.
   */
  isCurrent(head: Uint8Array): boolean | undefined;
  /** Length of what `plainBytes` become; undefined where it is not known before. */
  encryptedBytes(plainBytes: number): number | undefined;
  /** The way back; undefined also for a length that no object has. */
  plainBytes(storedBytes: number): number | undefined;
  encrypt(plain: ByteStream, options: EncryptOptions): ByteStream;
}

/** So much of an object tells with which key it was made. */
export const CURRENT_HEAD_BYTES = 16 * 1024;

/** So much of an object is looked at to find out what it is. */
export const HEAD_BYTES = 512;
