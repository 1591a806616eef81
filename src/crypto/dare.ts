import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { FormatError, TruncatedError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";

/** Data At Rest Encryption 2.0, as minio/sio writes it: packages of at most 64 KiB of content. */
const VERSION = 0x20;
const HEADER_BYTES = 16;
const NONCE_AT = 4;
const TAG_BYTES = 16;
const PAYLOAD_BYTES = 65_536;
const FINAL_FLAG = 0x80;
/** Output is given in chunks of so many packages, about 1 MiB. */
const PACKAGES_PER_CHUNK = 16;

const AES_256_GCM = 0;
const CHACHA20_POLY1305 = 1;

/** Opens one package; undefined when it is not authentic. */
export type OpenPackage = (
  sealed: Uint8Array,
  nonce: Uint8Array,
  header: Uint8Array,
  key: Uint8Array,
) => Uint8Array | undefined;

export interface DareOptions {
  /** 32 bytes, for this stream or few. */
  readonly key: Uint8Array;
  readonly signal: AbortSignal;
}

/** Length of what `plainBytes` become. */
export function dareBytes(plainBytes: number): number {
  return plainBytes + Math.ceil(plainBytes / PAYLOAD_BYTES) * (HEADER_BYTES + TAG_BYTES);
}

/** The way back; undefined for a length that no stream has. */
export function plainBytesOfDare(storedBytes: number): number | undefined {
  const packages = Math.ceil(storedBytes / (PAYLOAD_BYTES + HEADER_BYTES + TAG_BYTES));
  const plain = storedBytes - packages * (HEADER_BYTES + TAG_BYTES);
  return plain >= 0 && dareBytes(plain) === storedBytes ? plain : undefined;
}

/** Seals with AES-256-GCM. Nothing becomes nothing, as in sio. */
export async function* sealDare(plain: ByteStream, { key, signal }: DareOptions): ByteStream {
  const cursor = new ByteCursor(plain, "content");
  const baseNonce = randomBytes(12);
  const payload = Buffer.allocUnsafeSlow(PAYLOAD_BYTES);
  const packageBytes = HEADER_BYTES + PAYLOAD_BYTES + TAG_BYTES;
  const chunk = Buffer.allocUnsafeSlow(PACKAGES_PER_CHUNK * packageBytes);
  let filled = 0;
  try {
    for (let sequence = 0; ; sequence++) {
      signal.throwIfAborted();
      const size = await cursor.readInto(payload);
      if (size === 0) break;
      const isFinal = !(await cursor.hasMore());
      const header = makeHeader(baseNonce, { size, isFinal });
      const cipher = createCipheriv("aes-256-gcm", key, packageNonce(header, sequence));
      cipher.setAAD(header.subarray(0, NONCE_AT));
      for (const bytes of [header, cipher.update(payload.subarray(0, size)), cipher.final()]) {
        filled += bytes.copy(chunk, filled);
      }
      filled += cipher.getAuthTag().copy(chunk, filled);
      if (isFinal) break;
      if (filled + packageBytes <= chunk.length) continue;
      yield chunk.subarray(0, filled);
      filled = 0;
    }
    if (filled > 0) yield chunk.subarray(0, filled);
  } finally {
    await cursor.close();
  }
}

/**
 * Opens what `sealDare` and sio make of version 2.0. Every package is authentic before it is given.
 * Rejects with TruncatedError when the final package is missing or cut, FormatError for any other
 * damage.
 */
export async function* openDare(
  stored: ByteStream,
  { key, signal, openChaCha }: DareOptions & { readonly openChaCha: () => Promise<OpenPackage> },
): ByteStream {
  const cursor = new ByteCursor(stored, "encrypted data");
  let chaCha: OpenPackage | undefined;
  try {
    for (let sequence = 0, isFinal = false; await cursor.hasMore(); sequence++) {
      signal.throwIfAborted();
      if (isFinal) throw new FormatError(`bytes follow the final package of encrypted data`);
      const start = cursor.position;
      const header = await cursor.readExactly(HEADER_BYTES);
      const parsed = parseHeader(header, start);
      ({ isFinal } = parsed);
      const sealed = await cursor.readExactly(parsed.size + TAG_BYTES);
      const nonce = packageNonce(header, sequence);
      if (parsed.cipher === CHACHA20_POLY1305) chaCha ??= await openChaCha();
      const open = parsed.cipher === AES_256_GCM ? openAes : chaCha;
      const plain = open?.(sealed, nonce, header.subarray(0, NONCE_AT), key);
      if (plain === undefined) {
        throw new FormatError(
          `encrypted data is not authentic between bytes ${start} and ${cursor.position}`,
        );
      }
      yield plain;
      if (!isFinal && !(await cursor.hasMore())) {
        throw new TruncatedError(`encrypted data ends at byte ${cursor.position} without its end`);
      }
    }
  } finally {
    await cursor.close();
  }
}

function makeHeader(
  baseNonce: Uint8Array,
  { size, isFinal }: { readonly size: number; readonly isFinal: boolean },
): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = VERSION;
  header[1] = AES_256_GCM;
  header.writeUInt16LE(size - 1, 2);
  header.set(baseNonce, NONCE_AT);
  const first = header[NONCE_AT] ?? 0;
  header[NONCE_AT] = isFinal ? first | FINAL_FLAG : first & ~FINAL_FLAG;
  return header;
}

function parseHeader(header: Buffer, at: number) {
  const [version = 0, cipher = 0] = header;
  if (version !== VERSION || cipher > CHACHA20_POLY1305) {
    throw new FormatError(
      `encrypted data has at byte ${at} no package of DARE 2.0: version ${version}, cipher ${cipher}`,
    );
  }
  const size = header.readUInt16LE(2) + 1;
  const isFinal = ((header[NONCE_AT] ?? 0) & FINAL_FLAG) !== 0;
  if (!isFinal && size !== PAYLOAD_BYTES) {
    throw new FormatError(
      `encrypted data has at byte ${at} a package of ${size} bytes, not the last`,
    );
  }
  return { cipher, size, isFinal };
}

/** The header's nonce with the number of the package in its last four bytes. */
function packageNonce(header: Buffer, sequence: number): Buffer {
  const nonce = Buffer.from(header.subarray(NONCE_AT, HEADER_BYTES));
  nonce.writeUInt32LE((nonce.readUInt32LE(8) ^ sequence) >>> 0, 8);
  return nonce;
}

function openAes(
  sealed: Uint8Array,
  nonce: Uint8Array,
  header: Uint8Array,
  key: Uint8Array,
): Uint8Array | undefined {
  const decipher = createDecipheriv("aes-256-gcm", key, nonce);
  decipher.setAAD(header);
  decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
  const plain = decipher.update(sealed.subarray(0, -TAG_BYTES));
  try {
    decipher.final();
    return plain;
  } catch {
    return undefined;
  }
}
