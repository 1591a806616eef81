import { randomBytes } from "node:crypto";
import type * as OpenPgp from "openpgp";
import type { PrivateKey, PublicKey } from "openpgp";
import {
  FormatError,
  OperationError,
  systemErrorCode,
  TruncatedError,
  WrongKeyError,
} from "../errors.ts";
import { abortable, untilAborted } from "../io/abort.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import { type ByteStream, CHUNK_BYTES } from "../io/bytes.ts";
import { type CryptOptions, type Crypter, type EncryptOptions, HEAD_BYTES } from "./crypter.ts";
import { withHead } from "./head.ts";
import { cipherName, decryptData, encryptData, type SessionKey } from "./openpgp-data.ts";
import {
  type PacketHeader,
  readBody,
  readPacketHeader,
  readSmallBody,
  TAG,
} from "./openpgp-packets.ts";
import { formatNote, parseNote } from "./openpgp-note.ts";
import { ANY_KEY_ID, recipientKeyIds } from "./openpgp-recipients.ts";

/** A message may be for so many keys. */
const SESSION_KEYS_MAX = 100;
const AES256_BYTES = 32;

/** What WAL-G's library takes, too; the strength of a key is its owner's choice. */
const TOLERANT = {
  minRSABits: 1023,
  rejectPublicKeyAlgorithms: new Set<number>(),
};

/** The library; loading it takes some 80 ms, so only what needs it may. */
export type OpenPgpModule = typeof OpenPgp;

export interface OpenPgpKeys {
  /** All of them can open what is written. Empty where nothing is written. */
  readonly recipients: readonly PublicKey[];
  /** When they were valid: a key that has expired is still better than no archive. */
  readonly date: Date;
  /** Unlocked; empty where only the public keys are at hand. */
  readonly privateKeys: readonly PrivateKey[];
}

/**
 * OpenPGP messages as WAL-G writes them: a session key for every recipient, encrypted data with a
 * modification detection code, literal data in them. Read is also what gpg makes: compressed, OCB.
 *
 * The code stands at the end: what a stream gave before it failed may be forged. And it proves only
 * that the message is as it was made; who has the public key can make another one.
 */
export class OpenPgpCrypter implements Crypter {
  readonly kind = "openpgp";
  readonly keyIds: readonly string[];
  readonly ownKeyIds: readonly string[];
  readonly #openpgp: OpenPgpModule;
  readonly #keys: OpenPgpKeys;

  constructor(openpgp: OpenPgpModule, keys: OpenPgpKeys) {
    this.#openpgp = openpgp;
    this.#keys = keys;
    this.keyIds = keys.privateKeys.flatMap(idsOf);
    this.ownKeyIds = keys.recipients.flatMap(idsOf);
  }

  get canDecrypt(): boolean {
    return this.keyIds.some((id) => this.ownKeyIds.includes(id));
  }

  recognises(head: Uint8Array): boolean {
    return recipientKeyIds(head).length > 0;
  }

  neededKeyIds(head: Uint8Array): readonly string[] {
    return recipientKeyIds(head).filter((id) => id !== ANY_KEY_ID);
  }

  encryptedBytes(): undefined {
    return undefined;
  }

  isCurrent(head: Uint8Array): boolean {
    const needed = recipientKeyIds(head);
    const own = this.#keys.recipients.map(idsOf);
    const isForAll = own.every((ids) => ids.some((id) => needed.includes(id)));
    return isForAll && needed.length === own.length;
  }

  plainBytes(): undefined {
    return undefined;
  }

  async *encrypt(plain: ByteStream, { note = "", signal }: EncryptOptions): ByteStream {
    const { encryptSessionKey, generateSessionKey } = this.#openpgp;
    const encryptionKeys = [...this.#keys.recipients];
    const { date } = this.#keys;
    const config = { ...TOLERANT, aeadProtect: false };
    const chosen = await generateSessionKey({ encryptionKeys, date, config });
    // The preferences of the recipients may name what the runtime does not have.
    const session =
      cipherName(chosen.algorithm) === undefined
        ? { data: randomBytes(AES256_BYTES), algorithm: "aes256" as const }
        : { data: chosen.data, algorithm: chosen.algorithm };
    const packets: unknown = await encryptSessionKey({
      ...session,
      encryptionKeys,
      date,
      format: "binary",
      config,
    });
    if (!(packets instanceof Uint8Array)) throw new Error("OpenPGP.js gave no session key");
    if (note !== "") yield formatNote(note);
    yield packets;
    yield* encryptData(abortable(plain, signal), session, note);
  }

  decrypt(stored: ByteStream, options: CryptOptions): ByteStream {
    return withHead(stored, HEAD_BYTES, (head, whole) => this.#decrypt(head, whole, options));
  }

  async *#decrypt(head: Buffer, whole: ByteStream, { signal }: CryptOptions): ByteStream {
    this.#requireKey(head);
    const cursor = new ByteCursor(abortable(whole, signal), "the message");
    try {
      const { sessionKeys, data } = await uncut(cursor, () => readUpToData(cursor));
      const version = await uncut(cursor, () => cursor.readExactly(1));
      if (data.tag !== TAG.integrityProtected || version[0] !== 1) {
        const start = Buffer.concat([sessionKeys, data.bytes, version]);
        yield* this.#decryptByLibrary(followed(start, cursor), signal);
        return;
      }
      const key = await this.#openSession(sessionKeys);
      const note = parseNote(head) ?? "";
      yield* decryptData(bodyBehindVersion(cursor, data), key, { note, signal });
      if (await cursor.hasMore()) throw new FormatError("bytes follow the encrypted message");
    } catch (error) {
      signal.throwIfAborted();
      throw explained(error);
    } finally {
      await cursor.close();
    }
  }

  async #openSession(sessionKeys: Uint8Array): Promise<SessionKey> {
    const { decryptSessionKeys, readMessage } = this.#openpgp;
    const message = await readMessage({ binaryMessage: sessionKeys, config: TOLERANT });
    const decryptionKeys = [...this.#keys.privateKeys];
    const [key] = await decryptSessionKeys({ message, decryptionKeys, config: TOLERANT });
    if (key?.algorithm === undefined || key.algorithm === null) {
      throw new FormatError("the message has no session key for an old kind of data");
    }
    return { data: key.data, algorithm: key.algorithm };
  }

  /** Kinds of data that WAL-G does not write: AEAD. */
  async *#decryptByLibrary(stored: ByteStream, signal: AbortSignal): ByteStream {
    const { readMessage, decrypt } = this.#openpgp;
    const source = stored[Symbol.asyncIterator]();
    const config = { ...TOLERANT, allowUnauthenticatedStream: true };
    const message = await readMessage({ binaryMessage: webStream(source), config });
    const decryptionKeys = [...this.#keys.privateKeys];
    const { data } = await decrypt({ message, decryptionKeys, format: "binary", config });
    yield* chunksOf(data, signal);
  }

  #requireKey(head: Uint8Array): void {
    const needed = recipientKeyIds(head);
    if (needed.length === 0) {
      if (head.length < 12) throw cutOff(head.length);
      throw new FormatError("it begins with no OpenPGP message");
    }
    const has = needed.some((id) => id === ANY_KEY_ID || this.keyIds.includes(id));
    if (has && this.keyIds.length > 0) return;
    const note = parseNote(head);
    const have = this.keyIds.length === 0 ? "only public keys" : this.keyIds.join(", ");
    throw new WrongKeyError(`wrong key (id ${needed.join(", ")}, have ${have})`, {
      ...(note === undefined ? {} : { note }),
      hint:
        "Nothing was changed. Reading takes the private key: set WALG_PGP_KEY_PATH to a file that " +
        "holds it, or WALNUT_PGP_OLD_KEY_PATHS for the keys of older objects.",
    });
  }
}

/** Of a key and its subkeys, 16 upper case hex digits each. */
export function idsOf(key: PublicKey | PrivateKey): readonly string[] {
  return key.getKeyIDs().map((id) => id.toHex().toUpperCase());
}

/** The library keeps chunks while it works, so each is a copy. */
function webStream(stream: AsyncIterator<Uint8Array>): ReadableStream {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const next = await stream.next();
        if (next.done === true) controller.close();
        else controller.enqueue(new Uint8Array(next.value));
      },
      async cancel() {
        await stream.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

async function* chunksOf(stream: unknown, signal: AbortSignal): ByteStream {
  if (stream instanceof Uint8Array) {
    yield stream;
    return;
  }
  if (!(stream instanceof ReadableStream)) throw new Error("OpenPGP gave no stream");
  const reader = stream.getReader();
  try {
    for (;;) {
      const next: unknown = await untilAborted(reader.read(), signal);
      if (typeof next !== "object" || next === null || !("value" in next)) return;
      if (!(next.value instanceof Uint8Array)) return;
      yield next.value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The packets before the data, as they are, and the header of its packet. */
async function readUpToData(
  cursor: ByteCursor,
): Promise<{ readonly sessionKeys: Buffer; readonly data: PacketHeader }> {
  const packets: Buffer[] = [];
  while (packets.length < SESSION_KEYS_MAX) {
    const header = await readPacketHeader(cursor);
    if (header === undefined) throw cutOff(cursor.position);
    if (header.tag !== TAG.sessionKey && header.tag !== TAG.passwordSessionKey) {
      return { sessionKeys: Buffer.concat(packets), data: header };
    }
    const body = await readSmallBody(cursor, header);
    if (header.tag === TAG.sessionKey) requireExactBits(body);
    packets.push(Buffer.concat([header.bytes, body]));
  }
  throw new FormatError(`the message has more than ${SESSION_KEYS_MAX} session keys`);
}

/** The algorithms up to this one have a number in front: RSA, Elgamal, ECDH. */
const LAST_ALGORITHM_WITH_NUMBER = 18;
const X25519 = 25;
const NUMBER_AT = 10;
const POINT_BYTES = 32;
/** The length of a point of Curve25519 behind the byte that says so. */
const POINT_BITS = 263;

/**
 * A few bits of a session key's packet could be changed unnoticed, because nothing depends on them:
 * those of the length of its first number, and the highest one of a point of Curve25519. They must
 * be as everybody writes them.
 *
 * @source RFC 4880, 3.2 and 5.1; RFC 7748, 5
 */
function requireExactBits(body: Buffer): void {
  const [version, algorithm = 0] = [body[0], body[9]];
  if (version !== 3 || body.length < NUMBER_AT + 3) return;
  const isNumber = algorithm <= LAST_ALGORITHM_WITH_NUMBER;
  const bits = body.readUInt16BE(NUMBER_AT);
  if (isNumber && !hasExactLength(bits, body[NUMBER_AT + 2] ?? 0)) {
    throw new FormatError(`a session key of the message has not the ${bits} bits that it says`);
  }
  const isPoint = isNumber
    ? algorithm === LAST_ALGORITHM_WITH_NUMBER && bits === POINT_BITS
    : false;
  const pointAt = isPoint ? NUMBER_AT + 3 : NUMBER_AT;
  const highest = body[pointAt + POINT_BYTES - 1] ?? 0;
  if ((isPoint || algorithm === X25519) && (highest & 0x80) !== 0) {
    throw new FormatError("a session key of the message has a point that nobody writes");
  }
}

function hasExactLength(bits: number, leadingByte: number): boolean {
  const topBits = bits === 0 ? 0 : ((bits - 1) % 8) + 1;
  return leadingByte >> topBits === 0 && leadingByte >> Math.max(0, topBits - 1) === 1;
}

async function* bodyBehindVersion(cursor: ByteCursor, data: PacketHeader): ByteStream {
  const { bytes, isPartial } = data.length;
  if (bytes < 1) throw new FormatError("the message has an empty data packet");
  const body = readBody(cursor, { ...data, length: { bytes: bytes - 1, isPartial } });
  const iterator = body[Symbol.asyncIterator]();
  for (;;) {
    const next = await uncut(cursor, () => iterator.next());
    if (next.done === true) return;
    yield next.value;
  }
}

async function* followed(start: Uint8Array, cursor: ByteCursor): ByteStream {
  yield start;
  while (await cursor.hasMore()) yield cursor.takeSome(CHUNK_BYTES);
}

function cutOff(storedBytes: number): TruncatedError {
  const message = `encrypted data ends at byte ${storedBytes} before it is complete`;
  return new TruncatedError(message, { storedBytes });
}

/** Throws TruncatedError with the length of the object for what the object itself lacks. */
async function uncut<T>(cursor: ByteCursor, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof TruncatedError) throw cutOff(cursor.position);
    throw error;
  }
}

/** Inside the object nothing is cut off: what runs out there was changed. */
function explained(error: unknown): unknown {
  const isCutOff = error instanceof TruncatedError && error.storedBytes === undefined;
  const isKnown = error instanceof OperationError || systemErrorCode(error) !== undefined;
  if (isKnown && !isCutOff) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new FormatError(`it can't be decrypted: ${reason}`, { cause: error });
}
