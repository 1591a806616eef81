import { FormatError, TruncatedError, WrongKeyError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { CryptOptions, Crypter } from "./crypter.ts";
import {
  HEADER_BYTES,
  type HeaderForm,
  headerKeyId,
  isHeaderOfName,
  makeHeader,
} from "./libsodium-header.ts";
import { libsodiumKeyId } from "./libsodium-key.ts";
import { OVERHEAD_BYTES, type Sodium, TAG_FINAL, TAG_MESSAGE } from "./libsodium-module.ts";
import type { SecretStream } from "./libsodium-module.ts";

/** Content of every message but the last, as WAL-G cuts it. */
const MESSAGE_BYTES = 8192;
const SEALED_BYTES = MESSAGE_BYTES + OVERHEAD_BYTES;
/** Output is given in chunks of so many messages, about 1 MiB. */
const MESSAGES_PER_CHUNK = 128;

export interface LibsodiumKeys {
  /** What is written with; 32 bytes. */
  readonly current: Uint8Array;
  /** What else may open an object. */
  readonly previous: readonly Uint8Array[];
  readonly header: HeaderForm;
}

/**
 * crypto_secretstream_xchacha20poly1305 as WAL-G cuts it: the header, messages of 8192 bytes with
 * the tag MESSAGE, and one shorter one, which may be empty, with the tag FINAL.
 *
 * What is written may be cut off, or messages of it changed, left out or put elsewhere: each is
 * found when it is read. WAL-G itself does not miss a FINAL message.
 */
export class LibsodiumCrypter implements Crypter {
  readonly kind = "libsodium";
  readonly canDecrypt = true;
  readonly keyIds: readonly string[];
  readonly ownKeyIds: readonly string[];
  readonly #sodium: Sodium;
  readonly #keys: LibsodiumKeys;

  constructor(sodium: Sodium, keys: LibsodiumKeys) {
    this.#sodium = sodium;
    this.#keys = keys;
    this.ownKeyIds = [libsodiumKeyId(keys.current)];
    this.keyIds = [keys.current, ...keys.previous].map(libsodiumKeyId);
  }

  /** Any bytes may be a header. */
  recognises(): boolean {
    return true;
  }

  neededKeyIds(head: Uint8Array): readonly string[] {
    const id = headerKeyId(head);
    return id === undefined ? [] : [id];
  }

  encryptedBytes(plainBytes: number): number {
    const messages = Math.floor(plainBytes / MESSAGE_BYTES);
    return HEADER_BYTES + plainBytes + (messages + 1) * OVERHEAD_BYTES;
  }

  isCurrent(head: Uint8Array): boolean {
    const id = headerKeyId(head);
    if (id !== undefined) return this.ownKeyIds.includes(id);
    const sealed = Buffer.from(head.subarray(HEADER_BYTES, HEADER_BYTES + SEALED_BYTES));
    if (sealed.length < OVERHEAD_BYTES) return false;
    using stream = this.#sodium.stream(
      head.subarray(0, HEADER_BYTES),
      this.#keys.current,
      MESSAGE_BYTES,
    );
    return stream.pull(sealed, Buffer.alloc(MESSAGE_BYTES)) !== undefined;
  }

  plainBytes(storedBytes: number): number | undefined {
    const sealed = storedBytes - HEADER_BYTES;
    const messages = Math.floor(sealed / SEALED_BYTES);
    const plain = messages * MESSAGE_BYTES + (sealed % SEALED_BYTES) - OVERHEAD_BYTES;
    return plain >= 0 && this.encryptedBytes(plain) === storedBytes ? plain : undefined;
  }

  async *encrypt(plain: ByteStream, { name, signal }: CryptOptions): ByteStream {
    const { current, header: form } = this.#keys;
    const header = makeHeader(form, current, name);
    using stream = this.#sodium.stream(header, current, MESSAGE_BYTES);
    const input = new ByteCursor(plain, "content");
    const message = Buffer.allocUnsafeSlow(MESSAGE_BYTES);
    const chunk = Buffer.allocUnsafeSlow(HEADER_BYTES + MESSAGES_PER_CHUNK * SEALED_BYTES);
    header.copy(chunk);
    let filled = HEADER_BYTES;
    try {
      for (;;) {
        signal.throwIfAborted();
        const size = await input.readInto(message);
        const tag = size < MESSAGE_BYTES ? TAG_FINAL : TAG_MESSAGE;
        stream.push(message.subarray(0, size), tag, chunk.subarray(filled));
        filled += size + OVERHEAD_BYTES;
        if (tag === TAG_FINAL) break;
        if (filled + SEALED_BYTES <= chunk.length) continue;
        yield chunk.subarray(0, filled);
        filled = 0;
      }
      yield chunk.subarray(0, filled);
    } finally {
      await input.close();
    }
  }

  async *decrypt(stored: ByteStream, { name, signal }: CryptOptions): ByteStream {
    const input = new ByteCursor(stored, "encrypted data");
    try {
      const header = await readHeader(input);
      const first = Buffer.allocUnsafe(SEALED_BYTES);
      const firstBytes = await readSealed(input, first);
      const opened = this.#open(header, first.subarray(0, firstBytes));
      using stream = opened.stream;
      if (this.#keys.header === "named" && !isHeaderOfName(header, opened.key, name)) {
        throw swapped(name);
      }

      const chunk = Buffer.allocUnsafeSlow(MESSAGES_PER_CHUNK * MESSAGE_BYTES);
      let filled = opened.message.copy(chunk);
      for (let isEnd = opened.isFinal; !isEnd;) {
        signal.throwIfAborted();
        if (filled + MESSAGE_BYTES > chunk.length) {
          yield chunk.subarray(0, filled);
          filled = 0;
        }
        const size = await readSealed(input, first);
        isEnd = pull(stream, { sealed: first.subarray(0, size), input }, chunk.subarray(filled));
        filled += size - OVERHEAD_BYTES;
      }
      if (filled > 0) yield chunk.subarray(0, filled);
      if (await input.hasMore()) {
        throw new FormatError(
          `encrypted data ends at byte ${input.position}, but more bytes follow`,
        );
      }
    } finally {
      await input.close();
    }
  }

  /** Finds the key by the first message. */
  #open(
    header: Buffer,
    sealed: Buffer,
  ): { key: Uint8Array; stream: SecretStream; message: Buffer; isFinal: boolean } {
    const message = Buffer.alloc(sealed.length - OVERHEAD_BYTES);
    for (const key of [this.#keys.current, ...this.#keys.previous]) {
      const stream = this.#sodium.stream(header, key, MESSAGE_BYTES);
      const tag = stream.pull(sealed, message);
      if (tag !== undefined) return { key, stream, message, isFinal: checkTag(tag, sealed.length) };
      stream[Symbol.dispose]();
    }
    throw this.#unopened(header, sealed.length);
  }

  #unopened(header: Buffer, sealedBytes: number): Error {
    const id = headerKeyId(header);
    const have = this.keyIds.join(", ");
    if (id !== undefined && this.keyIds.includes(id)) {
      const storedBytes = HEADER_BYTES + sealedBytes;
      return sealedBytes < SEALED_BYTES
        ? notAuthenticEnd(storedBytes)
        : new FormatError(`encrypted data is not authentic between bytes 0 and ${storedBytes}`);
    }
    const needed = id === undefined ? "the object does not name its key" : `id ${id}`;
    return new WrongKeyError(`wrong key (${needed}, have ${have}), or its beginning is damaged`, {
      hint:
        "Nothing was changed. Configure the key that the object was written with: the one in use as " +
        "WALG_LIBSODIUM_KEY or _KEY_PATH, older ones as WALNUT_LIBSODIUM_OLD_KEY_PATHS; mind " +
        "WALG_LIBSODIUM_KEY_TRANSFORM.",
    });
  }
}

async function readHeader(input: ByteCursor): Promise<Buffer> {
  const header = Buffer.alloc(HEADER_BYTES);
  const size = await input.readInto(header);
  if (size < HEADER_BYTES) throw cutOff(input.position);
  return header;
}

/** A message as it is stored, as far as it is there; throws where there can be none. */
async function readSealed(input: ByteCursor, target: Buffer): Promise<number> {
  const size = await input.readInto(target);
  if (size < OVERHEAD_BYTES) throw cutOff(input.position);
  return size;
}

/** Whether it was the last one. */
function pull(
  stream: SecretStream,
  { sealed, input }: { readonly sealed: Buffer; readonly input: ByteCursor },
  target: Uint8Array,
): boolean {
  const tag = stream.pull(sealed, target);
  if (tag !== undefined) return checkTag(tag, sealed.length);
  if (sealed.length < SEALED_BYTES) throw notAuthenticEnd(input.position);
  throw new FormatError(
    `encrypted data is not authentic between bytes ${input.position - sealed.length} and ` +
      `${input.position}`,
  );
}

/** WAL-G's reader takes neither a full message that says to be the last nor a short one more. */
function checkTag(tag: number, sealedBytes: number): boolean {
  const isShort = sealedBytes < SEALED_BYTES;
  if (tag === (isShort ? TAG_FINAL : TAG_MESSAGE)) return isShort;
  throw new FormatError(`encrypted data has a message of ${sealedBytes} bytes with the tag ${tag}`);
}

function cutOff(storedBytes: number): TruncatedError {
  return new TruncatedError(`encrypted data ends at byte ${storedBytes} before it is complete`, {
    storedBytes,
  });
}

function notAuthenticEnd(storedBytes: number): TruncatedError {
  return new TruncatedError(
    `encrypted data ends at byte ${storedBytes} before it is complete, or its end is not authentic`,
    { storedBytes },
  );
}

function swapped(name: string): FormatError {
  return new FormatError(
    `it was encrypted under another name than ${name}: it was moved or swapped in the store`,
    {
      hint:
        "If you renamed it yourself, give it back its name, or set WALNUT_LIBSODIUM_HEADER=id to " +
        "read it as it is.",
    },
  );
}
