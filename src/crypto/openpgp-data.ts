import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { createInflate, createInflateRaw } from "node:zlib";
import { decompressedByZlib, ZLIB_OPTIONS } from "../codec/zlib-stream.ts";
import { FormatError, TruncatedError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import { readBody, readPacketHeader, TAG, writePacket } from "./openpgp-packets.ts";

/** What opens the data of one message. */
export interface SessionKey {
  readonly data: Uint8Array;
  /** As OpenPGP.js calls it: "aes256". */
  readonly algorithm: string;
}

/** Of SEIPD packets of version 1. @source RFC 4880, 5.13 */
const DATA_VERSION = 1;
const BLOCK_BYTES = 16;
const PREFIX_BYTES = BLOCK_BYTES + 2;
const DIGEST_BYTES = 20;
const CODE_HEADER = Buffer.of(0xc0 | TAG.modificationDetection, DIGEST_BYTES);
const CODE_BYTES = CODE_HEADER.length + DIGEST_BYTES;

/** Binary. @source RFC 4880, 5.9 */
const LITERAL_FORMAT = 0x62;
/** Made in 1970, like WAL-G's. */
const LITERAL_TIME = Buffer.alloc(4);
/** The name of a file that is there only to be compared with a note. */
const NOTE_PREFIX = "walnut:";

/** Those that every runtime has; undefined for others, which OpenPGP.js may know. */
export function cipherName(algorithm: string): string | undefined {
  return algorithm === "aes256" || algorithm === "aes128"
    ? `aes-${algorithm.slice(3)}-cfb`
    : undefined;
}

/** The data packet of a message: `plain` as binary literal data, named after `note` if any. */
export function encryptData(plain: ByteStream, key: SessionKey, note = ""): ByteStream {
  const literal = writePacket(TAG.literal, literalBody(plain, note));
  return writePacket(TAG.integrityProtected, protectedBody(literal, key));
}

async function* literalBody(plain: ByteStream, note: string): ByteStream {
  const name = Buffer.from(note === "" ? "" : `${NOTE_PREFIX}${note}`);
  yield Buffer.concat([Buffer.of(LITERAL_FORMAT, name.length), name, LITERAL_TIME]);
  yield* plain;
}

async function* protectedBody(packets: ByteStream, { data, algorithm }: SessionKey): ByteStream {
  // The prefix of random bytes stands for an initialization vector.
  const cipher = createCipheriv(
    cipherName(algorithm) ?? algorithm,
    data,
    Buffer.alloc(BLOCK_BYTES),
  );
  const hash = createHash("sha1");
  const random = randomBytes(BLOCK_BYTES);
  const prefix = Buffer.concat([random, random.subarray(-2)]);
  hash.update(prefix);
  yield Buffer.of(DATA_VERSION);
  yield cipher.update(prefix);
  for await (const chunk of packets) {
    hash.update(chunk);
    yield cipher.update(chunk);
  }
  hash.update(CODE_HEADER);
  yield cipher.update(Buffer.concat([CODE_HEADER, hash.digest()]));
  yield cipher.final();
}

/**
 * What was encrypted, from the body of a data packet of version 1, which is behind that number. The
 * stream ends without error only if all of it was authentic.
 */
export async function* decryptData(
  body: ByteStream,
  key: SessionKey,
  { note, signal }: { readonly note: string; readonly signal: AbortSignal },
): ByteStream {
  const cursor = new ByteCursor(checkedBody(body, key), "the message");
  try {
    yield* readContent(cursor, { mayBeCompressed: true, note, signal });
    // Reads the code that stands at the end.
    if (await cursor.hasMore()) throw new FormatError("the message has more than one content");
  } finally {
    await cursor.close();
  }
}

/** Deciphers, checks the modification detection code and takes it off. */
async function* checkedBody(body: ByteStream, { data, algorithm }: SessionKey): ByteStream {
  const name = cipherName(algorithm) ?? algorithm;
  const decipher = createDecipheriv(name, data, Buffer.alloc(BLOCK_BYTES));
  const hash = createHash("sha1");
  let prefixLeft = PREFIX_BYTES;
  let held = Buffer.alloc(0);
  for await (const chunk of body) {
    const joined = Buffer.concat([held, decipher.update(chunk)]);
    const end = Math.max(0, joined.length - CODE_BYTES);
    held = joined.subarray(end);
    const ready = joined.subarray(0, end);
    hash.update(ready);
    const skipped = Math.min(prefixLeft, ready.length);
    prefixLeft -= skipped;
    if (ready.length > skipped) yield ready.subarray(skipped);
  }
  if (prefixLeft > 0 || held.length < CODE_BYTES) {
    throw new TruncatedError("the encrypted data ends before it is complete");
  }
  hash.update(held.subarray(0, CODE_HEADER.length));
  const isRight = hash.digest().equals(held.subarray(CODE_HEADER.length));
  if (!isRight || !held.subarray(0, CODE_HEADER.length).equals(CODE_HEADER)) {
    throw new FormatError(
      "the encrypted data was changed: its modification detection code is wrong",
    );
  }
}

interface ContentOptions {
  readonly mayBeCompressed: boolean;
  /** As the message tells it in plain text. */
  readonly note: string;
  readonly signal: AbortSignal;
}

async function* readContent(
  cursor: ByteCursor,
  { mayBeCompressed, note, signal }: ContentOptions,
): ByteStream {
  const header = await readPacketHeader(cursor);
  if (header?.tag === TAG.literal) {
    yield* literalContent(readBody(cursor, header), note);
  } else if (header?.tag === TAG.compressed && mayBeCompressed) {
    yield* compressedContent(readBody(cursor, header), { note, signal });
  } else {
    throw new FormatError(`the encrypted message holds packet ${header?.tag ?? "none"}, no data`);
  }
}

/** Text, too, is given byte by byte: WAL-G marks all data as text. */
async function* literalContent(body: ByteStream, note: string): ByteStream {
  const cursor = new ByteCursor(body, "literal data");
  const [, nameBytes = 0] = await cursor.readExactly(2);
  const name = (await cursor.readExactly(nameBytes)).toString("latin1");
  const inner = name.startsWith(NOTE_PREFIX) ? name.slice(NOTE_PREFIX.length) : "";
  if (inner !== note) throw new FormatError("the message's note is not the one it was made with");
  await cursor.skip(LITERAL_TIME.length);
  yield* rest(cursor);
}

async function* rest(cursor: ByteCursor): ByteStream {
  while (await cursor.hasMore()) yield cursor.takeSome(Number.POSITIVE_INFINITY);
}

/** @source RFC 4880, 9.3 */
async function* compressedContent(
  body: ByteStream,
  { note, signal }: Omit<ContentOptions, "mayBeCompressed">,
): ByteStream {
  const cursor = new ByteCursor(body, "compressed data");
  const [algorithm = 0] = await cursor.readExactly(1);
  if (algorithm !== 1 && algorithm !== 2) {
    throw new FormatError(`the message is compressed by method ${algorithm}, which can't be read`);
  }
  const engine = algorithm === 1 ? createInflateRaw(ZLIB_OPTIONS) : createInflate(ZLIB_OPTIONS);
  const options = { subject: "compressed data", signal };
  const inflated = new ByteCursor(decompressedByZlib(rest(cursor), engine, options), "the message");
  try {
    yield* readContent(inflated, { mayBeCompressed: false, note, signal });
    if (await inflated.hasMore()) throw new FormatError("the message has more than one content");
  } finally {
    await inflated.close();
  }
}
