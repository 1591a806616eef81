import { nodeCrypto } from "../io/builtin.ts";
import { FormatError } from "../errors.ts";

/** How the text of a key becomes its bytes: WALG_LIBSODIUM_KEY_TRANSFORM. */
export const KEY_TRANSFORMS = ["none", "base64", "hex"] as const;
export type KeyTransform = (typeof KEY_TRANSFORMS)[number];

export const KEY_BYTES = 32;
/** Shorter texts WAL-G refuses, and so do we. */
const SHORTEST_TEXT_BYTES = 25;
const ID_BYTES = 4;

/**
 * The 32 bytes of a key. White space around the text is no part of it. Throws FormatError, with the
 * way out in its hint, and without the text.
 *
 * A text of 25 to 31 bytes is filled up with zeros, as WAL-G does; one of more than 32 bytes, which
 * WAL-G cuts, is refused.
 */
export function parseLibsodiumKey(text: string, transform: KeyTransform): Buffer {
  const trimmed = text.trim();
  if (transform === "hex") return parseHex(trimmed);
  return transform === "base64" ? parseBase64(trimmed) : parsePlain(trimmed);
}

/** Eight hex digits that tell one key from another and nothing else about it. */
export function libsodiumKeyId(key: Uint8Array): string {
  const digest = nodeCrypto().createHmac("sha256", key).update("walnut key id").digest();
  return digest.subarray(0, ID_BYTES).toString("hex");
}

function parseHex(text: string): Buffer {
  if (/^[0-9A-Fa-f]{64}$/.test(text)) return Buffer.from(text, "hex");
  throw new FormatError(
    `holds no key: 64 hex digits are needed, it has ${text.length} characters`,
    {
      hint: "A key of 32 bytes in hex is what `openssl rand -hex 32` prints.",
    },
  );
}

function parseBase64(text: string): Buffer {
  const bytes = Buffer.from(text, "base64");
  if (bytes.length === KEY_BYTES && bytes.toString("base64") === text) return bytes;
  throw new FormatError("holds no key: it is not the base64, with padding, of 32 bytes", {
    hint: "A key of 32 bytes in base64 is what `openssl rand -base64 32` prints.",
  });
}

function parsePlain(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length > KEY_BYTES) {
    throw new FormatError(`holds ${bytes.length} bytes, and a key has ${KEY_BYTES}`, {
      hint:
        "If it is hex or base64, say so with WALG_LIBSODIUM_KEY_TRANSFORM=hex or =base64. WAL-G cuts " +
        "such a text without a word: if it has written the repository with this setting, its key is " +
        "the first 32 bytes; give only these.",
    });
  }
  if (bytes.length < SHORTEST_TEXT_BYTES) {
    throw new FormatError(
      `holds ${bytes.length} bytes, and a key has ${KEY_BYTES} (at least ${SHORTEST_TEXT_BYTES})`,
      { hint: "Make one with `openssl rand -hex 32` and set WALG_LIBSODIUM_KEY_TRANSFORM=hex." },
    );
  }
  const key = Buffer.alloc(KEY_BYTES);
  bytes.copy(key);
  return key;
}
