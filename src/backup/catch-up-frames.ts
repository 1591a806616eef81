import { createCipheriv, createDecipheriv, scryptSync } from "node:crypto";
import { FormatError, WrongKeyError } from "../errors.ts";
import type { ByteCursor } from "../io/byte-cursor.ts";
import { CHUNK_BYTES } from "../io/bytes.ts";

/** What a frame is about, by the number in its first byte; see CATCHUP.md. */
const FRAME_TYPES = [
  [1, "alive"],
  [2, "error"],
  [10, "position"],
  [11, "files"],
  [12, "files-end"],
  [13, "done"],
  [20, "start"],
  [21, "entry"],
  [22, "data"],
  [23, "end"],
] as const;

export type FrameType = (typeof FRAME_TYPES)[number][1];

export interface Frame {
  readonly type: FrameType;
  /** Its own memory. */
  readonly payload: Buffer;
}

/** The end that connects and has the pages, and the one that listens. */
export type LinkRole = "sender" | "receiver";

/** Begins what both ends say first, in clear; it names the version of the protocol. */
const GREETING = Buffer.from("walnut catch-up 1\n");
export const NONCE_BYTES = 32;

const METHOD = "aes-256-gcm";
const KEY_BYTES = 32;
const TAG_BYTES = 16;
const LENGTH_BYTES = 4;
/** Largest payload of a frame. */
export const MAX_PAYLOAD_BYTES = CHUNK_BYTES;
/** Makes guessing a weak secret slow: about 0.1 s and 32 MiB for each guess. */
const SCRYPT = { N: 32_768, r: 8, p: 1, maxmem: 64 * 1024 * 1024 };

/** What an end says before its first frame. */
export function formatGreeting(nonce: Uint8Array): Buffer {
  return Buffer.concat([GREETING, nonce]);
}

/** The other end's nonce. Throws FormatError for anything that is not this version of walnut. */
export async function readGreeting(bytes: ByteCursor): Promise<Buffer> {
  const greeting = await bytes.readExactly(GREETING.length);
  if (!greeting.equals(GREETING)) {
    throw new FormatError("the other end does not speak walnut's catch-up protocol, version 1");
  }
  return await bytes.readExactly(NONCE_BYTES);
}

/** Keys of one connection, by the end that seals with them. */
export type LinkKeys = Readonly<Record<LinkRole, Buffer>>;

/** Both ends have to know the secret, and each nonce is used once: nothing can be replayed. */
export function deriveKeys(secret: string, nonces: Readonly<Record<LinkRole, Buffer>>): LinkKeys {
  const salt = Buffer.concat([GREETING, nonces.sender, nonces.receiver]);
  const keys = scryptSync(secret, salt, 2 * KEY_BYTES, SCRYPT);
  return { sender: keys.subarray(0, KEY_BYTES), receiver: keys.subarray(KEY_BYTES) };
}

/** Counts the frames of one direction: one that is missing, repeated or moved does not open. */
class FrameNonce {
  readonly #bytes = Buffer.alloc(12);
  #count = 0n;

  next(): Buffer {
    this.#bytes.writeBigUInt64BE(this.#count, 4);
    this.#count += 1n;
    return this.#bytes;
  }
}

/** Makes the frames of one direction. */
export class FrameSealer {
  readonly #key: Buffer;
  readonly #nonce = new FrameNonce();

  constructor(key: Buffer) {
    this.#key = key;
  }

  /** The frame as it goes over the wire, in order. Throws RangeError for a payload too large. */
  seal(type: FrameType, payload: Uint8Array): Buffer {
    if (payload.length > MAX_PAYLOAD_BYTES) {
      throw new RangeError(`a frame of ${payload.length} bytes is too large`);
    }
    const number = FRAME_TYPES.find(([, name]) => name === type)?.[0] ?? 0;
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(1 + payload.length);
    const cipher = createCipheriv(METHOD, this.#key, this.#nonce.next());
    cipher.setAAD(length);
    const parts = [length, cipher.update(Buffer.of(number)), cipher.update(payload)];
    cipher.final();
    return Buffer.concat([...parts, cipher.getAuthTag()]);
  }
}

/** Reads the frames of one direction. */
export class FrameOpener {
  readonly #bytes: ByteCursor;
  readonly #key: Buffer;
  readonly #nonce = new FrameNonce();
  #isFirst = true;

  constructor(bytes: ByteCursor, key: Buffer) {
    this.#bytes = bytes;
    this.#key = key;
  }

  /**
   * The next frame. Throws TruncatedError when the stream ends, WrongKeyError when the first frame
   * does not open, and FormatError for one that was changed, lost or repeated on the way.
   */
  async read(): Promise<Frame> {
    const length = await this.#bytes.readExactly(LENGTH_BYTES);
    const sizeBytes = length.readUInt32BE(0);
    if (sizeBytes === 0 || sizeBytes > 1 + MAX_PAYLOAD_BYTES) {
      throw new FormatError(`a frame announces ${sizeBytes} bytes`);
    }
    const sealed = await this.#bytes.readExactly(sizeBytes);
    const tag = await this.#bytes.readExactly(TAG_BYTES);
    const plain = this.#open(length, sealed, tag);
    this.#isFirst = false;
    const type = FRAME_TYPES.find(([number]) => number === plain[0])?.[1];
    if (type === undefined) throw new FormatError(`a frame has the unknown type ${plain[0]}`);
    return { type, payload: plain.subarray(1) };
  }

  #open(length: Buffer, sealed: Buffer, tag: Buffer): Buffer {
    const decipher = createDecipheriv(METHOD, this.#key, this.#nonce.next());
    decipher.setAAD(length);
    decipher.setAuthTag(tag);
    const plain = decipher.update(sealed);
    try {
      decipher.final();
    } catch (error) {
      if (this.#isFirst) {
        throw new WrongKeyError("the other end has another secret", {
          hint: "Set WALNUT_CATCHUP_SECRET to the same value on both hosts.",
          cause: error,
        });
      }
      throw new FormatError("a frame was changed on its way, or one is missing", { cause: error });
    }
    return plain;
  }
}
