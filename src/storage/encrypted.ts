import { describeEncryption, looksPlain } from "../crypto/appearance.ts";
import {
  type Crypter,
  type Decrypter,
  type EncryptOptions,
  HEAD_BYTES,
} from "../crypto/crypter.ts";
import { withHead } from "../crypto/head.ts";
import { FormatError, TruncatedError, WrongKeyError } from "../errors.ts";
import { type ByteSource, type ByteStream, counted } from "../io/bytes.ts";
import { requireValidRange } from "./key.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  Upkeep,
} from "./storage.ts";

export interface EncryptionRules {
  /** What new objects are made with; absent where nothing is encrypted. */
  readonly crypter?: Crypter;
  /** What else may open an object; asked in this order. */
  readonly decrypters: readonly Decrypter[];
  /** Whether objects under this key are encrypted, in a repository where anything is. */
  readonly isSecret: (key: ObjectKey) => boolean;
  /** Objects that are not encrypted are read although there is a key. */
  readonly isPlainRead: boolean;
  /** Asked before each put of such an object; rejects where it must not be. */
  readonly guard?: EncryptionGuard;
}

/** Keeps a repository from being half encrypted by mistake. */
export interface EncryptionGuard {
  /** Rejects with ConfigError. */
  beforePut(storage: Storage, options: CallOptions): Promise<void>;
}

/**
 * Encrypts and decrypts what passes. The sizes that `stat` and `list` tell are of the objects as
 * they are stored.
 *
 * Without a key it only sees to it that an encrypted object is called so. `get` rejects with
 * WrongKeyError for an object that no key of ours opens and for one that is not encrypted although
 * we have a key: who can write to the store could have put it there.
 */
export class EncryptedStorage implements Storage {
  readonly name: string;
  readonly #inner: Storage;
  readonly #rules: EncryptionRules;

  constructor(inner: Storage, rules: EncryptionRules) {
    this.name = inner.name;
    this.#inner = inner;
    this.#rules = rules;
  }

  get(key: ObjectKey, options: GetOptions): ByteStream {
    if (!this.#rules.isSecret(key)) return this.#inner.get(key, options);
    const { range, ...rest } = options;
    if (range !== undefined) requireValidRange(range);
    const content = withHead(this.#inner.get(key, rest), HEAD_BYTES, (head, stored) =>
      this.#read(key, { head, stored, signal: options.signal }),
    );
    return range === undefined ? content : slice(content, range.start, range.end ?? Infinity);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    const { crypter } = this.#rules;
    const isSecret = this.#rules.isSecret(key);
    if (isSecret) await this.#rules.guard?.beforePut(this.#inner, options);
    const isEncrypted = crypter !== undefined && isSecret;
    const stored = isEncrypted ? encrypted(body, crypter, { name: key, ...options }) : body;
    await this.#inner.put(key, stored, options);
  }

  get isWriteOnly(): boolean {
    return this.#rules.crypter?.canDecrypt === false;
  }

  get encryption(): string | undefined {
    const { crypter } = this.#rules;
    return crypter === undefined ? undefined : `${crypter.kind} ${crypter.ownKeyIds.join(" ")}`;
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    return await this.#inner.stat(key, options);
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    return this.#inner.list(prefix, options);
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    await this.#inner.delete(keys, options);
  }

  readableBytes(key: ObjectKey, storedBytes: number): number | undefined {
    const { crypter, decrypters, isSecret, isPlainRead } = this.#rules;
    if (!isSecret(key) || (crypter === undefined && decrypters.length === 0)) return storedBytes;
    const isOfOneKind = decrypters.length === 0 && !isPlainRead;
    return isOfOneKind ? crypter?.plainBytes(storedBytes) : undefined;
  }

  get copies(): readonly Storage[] | undefined {
    return this.#inner.copies?.map((copy) => new EncryptedStorage(copy, this.#rules));
  }

  get primary(): Storage | undefined {
    const { primary } = this.#inner;
    return primary === undefined ? undefined : new EncryptedStorage(primary, this.#rules);
  }

  get first(): Storage | undefined {
    const { first } = this.#inner;
    return first === undefined ? undefined : new EncryptedStorage(first, this.#rules);
  }

  get unseen(): readonly string[] | undefined {
    return this.#inner.unseen;
  }

  /** The storage with the objects as they are, and what encrypts them. */
  get sealed(): { readonly storage: Storage; readonly rules: EncryptionRules } {
    return { storage: this.#inner, rules: this.#rules };
  }

  get upkeep(): Upkeep | undefined {
    return this.#inner.upkeep;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  #read(
    key: ObjectKey,
    { head, stored, signal }: { head: Buffer; stored: ByteStream; signal: AbortSignal },
  ): ByteStream {
    const { crypter, decrypters, isPlainRead } = this.#rules;
    const all = crypter === undefined ? decrypters : [crypter, ...decrypters];
    if (all.length === 0) return this.#readWithoutKey(key, head, stored);
    const isPlain = looksPlain(key, head);
    if (isPlain === true && isPlainRead) return stored;
    const chosen = choose(all, head);
    const content = decrypted(chosen ?? failing(all), stored, { name: key, signal });
    return isPlain === true ? this.#suspected(key, content) : this.#named(key, content);
  }

  #readWithoutKey(key: ObjectKey, head: Buffer, stored: ByteStream): ByteStream {
    const isPlain = looksPlain(key, head);
    if (isPlain === true || head.length === 0) return stored;
    const how = describeEncryption(head);
    if (how !== undefined) {
      throw new WrongKeyError(
        `object ${key} in ${this.name} is encrypted ${how}, and no key is configured`,
        { hint: NO_KEY_HINT },
      );
    }
    if (isPlain === undefined) return stored;
    throw new FormatError("it is damaged, or it is encrypted and no key is configured", {
      hint: NO_KEY_HINT,
    });
  }

  /** An object that begins like one that is not encrypted, and could not be decrypted, is none. */
  async *#suspected(key: ObjectKey, content: ByteStream): ByteStream {
    let isBegun = false;
    try {
      for await (const chunk of content) {
        isBegun = true;
        yield chunk;
      }
    } catch (error) {
      const isOfCrypter = error instanceof WrongKeyError || error instanceof FormatError;
      if (isBegun || !isOfCrypter) throw error;
      throw new WrongKeyError(
        `object ${key} in ${this.name} is not encrypted, although a key is configured`,
        {
          cause: error,
          hint:
            "Whoever can write to the store could have put it there. If it is from before encryption " +
            "was turned on, set WALNUT_READ_UNENCRYPTED=true; `walnut rekey` encrypts what is there.",
        },
      );
    }
  }

  async *#named(key: ObjectKey, content: ByteStream): ByteStream {
    try {
      for await (const chunk of content) yield chunk;
    } catch (error) {
      if (!(error instanceof WrongKeyError)) throw error;
      throw new WrongKeyError(`object ${key} in ${this.name}: ${error.message}`, {
        cause: error,
        ...(error.note === undefined ? {} : { note: error.note }),
        ...(error.hint === undefined ? {} : { hint: error.hint }),
      });
    }
  }
}

/** Any bytes may be libsodium's: it comes last, unless the object names a key of ours. */
function choose(all: readonly Decrypter[], head: Buffer): Decrypter | undefined {
  if (head.length < RECOGNISABLE_BYTES) return all[0];
  const candidates = all.filter((one) => one.recognises(head));
  const named = candidates.find((one) =>
    one.neededKeyIds(head).some((id) => one.keyIds.includes(id)),
  );
  return named ?? candidates.find(({ kind }) => kind !== "libsodium") ?? candidates[0];
}

/** An object that is shorter was cut off, however it was encrypted. */
const RECOGNISABLE_BYTES = 12;

const NO_KEY_HINT =
  "Set WALG_LIBSODIUM_KEY_PATH, WALG_PGP_KEY_PATH or WALG_CSE_KMS_ID as it was set where the " +
  "repository was written. Nothing was changed.";

function encrypted(body: ByteSource, crypter: Crypter, options: EncryptOptions): ByteSource {
  const sizeBytes =
    body.sizeBytes === undefined ? undefined : crypter.encryptedBytes(body.sizeBytes);
  return {
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    isReopenable: body.isReopenable,
    open: () => crypter.encrypt(body.open(), options),
  };
}

/** Tells with a TruncatedError how much of the object there is. */
async function* decrypted(
  decrypter: Pick<Decrypter, "decrypt">,
  stored: ByteStream,
  options: { readonly name: string; readonly signal: AbortSignal },
): ByteStream {
  let storedBytes = 0;
  const watched = counted(stored, (count) => {
    storedBytes += count;
  });
  try {
    for await (const chunk of decrypter.decrypt(watched, options)) yield chunk;
  } catch (error) {
    if (!(error instanceof TruncatedError)) throw error;
    throw new TruncatedError(error.message, { cause: error, storedBytes });
  }
}

/** For an object that none of ours recognises. */
function failing(all: readonly Decrypter[]): Pick<Decrypter, "decrypt"> {
  const have = all.map(({ kind, keyIds }) => `${kind} ${keyIds.join(", ")}`).join("; ");
  return {
    decrypt() {
      throw new WrongKeyError(`wrong key (the object is encrypted in another way; have ${have})`, {
        hint: NO_KEY_HINT,
      });
    },
  };
}

async function* slice(content: ByteStream, start: number, end: number): ByteStream {
  let position = 0;
  for await (const chunk of content) {
    const piece = chunk.subarray(Math.max(0, start - position), Math.max(0, end - position));
    position += chunk.length;
    if (piece.length > 0) yield piece;
    if (position >= end) return;
  }
}
