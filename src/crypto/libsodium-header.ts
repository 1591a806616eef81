import { nodeCrypto } from "../io/builtin.ts";
import { posix } from "node:path";
import { libsodiumKeyId } from "./libsodium-key.ts";

/** crypto_secretstream_xchacha20poly1305_HEADERBYTES */
export const HEADER_BYTES = 24;

/**
 * What we write into the 24 bytes that libsodium fills at random, and every reader takes as they
 * are: `named` the key's id and a keyed digest of the object's name, `id` the key's id alone,
 * `random` nothing, as WAL-G.
 */
export const HEADER_FORMS = ["named", "id", "random"] as const;
export type HeaderForm = (typeof HEADER_FORMS)[number];

/* 10 random bytes, 2 that mark the form, 4 of the key's id, 8 of the name or random. */
const MARK_AT = 10;
const ID_AT = 12;
const NAME_AT = 16;

/** WAL-G's copy composer copies parts of a backup into the next one, under this name. */
const COPIED_NAME = /^copy_\d+\.tar/;

/** A new header; no two are alike. */
export function makeHeader(form: HeaderForm, key: Uint8Array, name: string): Buffer {
  const header = nodeCrypto().randomBytes(HEADER_BYTES);
  if (form === "random") return header;
  markOf(form, header).copy(header, MARK_AT);
  header.write(libsodiumKeyId(key), ID_AT, "hex");
  if (form === "named") nameDigest(header, key, name).copy(header, NAME_AT);
  return header;
}

/** The id of the key, if the header tells it; one of WAL-G's looks so once in 32,000. */
export function headerKeyId(header: Uint8Array): string | undefined {
  const bytes = Buffer.from(header);
  if (bytes.length < HEADER_BYTES || formOf(bytes) === undefined) return undefined;
  return bytes.toString("hex", ID_AT, NAME_AT);
}

/**
 * False when the object was written under another name. `key` is the one that opens it, which
 * proves that the header is as it was made.
 */
export function isHeaderOfName(header: Uint8Array, key: Uint8Array, name: string): boolean {
  const bytes = Buffer.from(header);
  if (formOf(bytes) !== "named" || headerKeyId(bytes) !== libsodiumKeyId(key)) return true;
  if (COPIED_NAME.test(posix.basename(name))) return true;
  return nodeCrypto().timingSafeEqual(
    nameDigest(bytes, key, name),
    bytes.subarray(NAME_AT, HEADER_BYTES),
  );
}

function formOf(header: Buffer): Exclude<HeaderForm, "random"> | undefined {
  const mark = header.subarray(MARK_AT, ID_AT);
  if (markOf("named", header).equals(mark)) return "named";
  return markOf("id", header).equals(mark) ? "id" : undefined;
}

function markOf(form: Exclude<HeaderForm, "random">, header: Buffer): Buffer {
  const hash = nodeCrypto().createHash("sha256").update(`walnut header ${form}`);
  return hash
    .update(header.subarray(0, MARK_AT))
    .digest()
    .subarray(0, ID_AT - MARK_AT);
}

function nameDigest(header: Buffer, key: Uint8Array, name: string): Buffer {
  const nameKey = nodeCrypto().createHmac("sha256", key).update("walnut object name").digest();
  const digest = nodeCrypto()
    .createHmac("sha256", nameKey)
    .update(header.subarray(0, NAME_AT))
    .update(name);
  return digest.digest().subarray(0, HEADER_BYTES - NAME_AT);
}
